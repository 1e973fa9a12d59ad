"""What all tests share."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def interrupts_arrive() -> None:
    """Let tests and the programs they start be interrupted.

    A shell starts a job in the background with SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fake_vllm() -> ModuleType:
    """The module ``fake_vllm.py``, which is a program too."""
    path = Path(__file__).with_name("fake_vllm.py")
    spec = spec_from_file_location("fake_vllm", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serve_fake(fake_vllm: ModuleType) -> Iterator[Callable[..., Any]]:
    """Starts servers that speak as vLLM does, in threads; they end with the test."""
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> Any:
            server = fake_vllm.FakeVLLM(*arguments, **options)
            return stack.enter_context(contextmanager(fake_vllm.running)(server))

        yield start
