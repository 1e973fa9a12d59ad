"""What all tests share."""

import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
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
def unexplained() -> Callable[[Iterable[str]], list[str]]:
    """Return those of some names of metrics that the page about metrics does not have."""
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    written = re.findall(r"`([a-z_]+/[a-z_/<>]+)`", page)
    known = re.compile("|".join(re.sub("<[a-z]+>", ".+", name) for name in written))
    return lambda names: sorted({name for name in names if not known.fullmatch(name)} - {"step"})


@pytest.fixture
def trained_turns(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Compare, token by token, what learners are given with what vLLM servers answered meanwhile.

    Returns a function that asserts that each turn that was trained on, with all that stood before
    it, is what a server answered to that prompt, and returns how many turns these were.
    """
    from agentgym.policies.vllm_http import Http
    from agentgym.trainers.learner import Learner

    answered: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    trained: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    post, update = Http.post, Learner.update

    async def note(self: Any, path: str, body: Any) -> Any:
        answer = await post(self, path, body)
        if path == "/v1/completions":
            for choice in answer["choices"]:
                answered.add((tuple(choice["prompt_token_ids"]), tuple(choice["token_ids"])))
        return answer

    def take(self: Any, batch: Any, *others: Any) -> Any:
        rows = zip(batch.ids_BT.tolist(), batch.mask_BT.tolist(), strict=True)
        for ids, mask in rows:
            marks = [0.0, *mask, 0.0]
            steps = range(len(mask) + 1)
            begins = [at for at in steps if marks[at] < marks[at + 1]]
            ends = [at for at in steps if marks[at] > marks[at + 1]]
            for begin, end in zip(begins, ends, strict=True):
                trained.append((tuple(ids[:begin]), tuple(ids[begin:end])))
        return update(self, batch, *others)

    monkeypatch.setattr(Http, "post", note)
    monkeypatch.setattr(Learner, "update", take)

    def check() -> int:
        assert set(trained) <= answered
        return len(trained)

    return check


def _module_beside(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake_vllm() -> ModuleType:
    """The module ``fake_vllm.py``, which is a program too."""
    return _module_beside("fake_vllm")


@pytest.fixture(scope="session")
def fake_transfer() -> ModuleType:
    """The module ``fake_transfer.py``: ranks that take weights over gloo."""
    return _module_beside("fake_transfer")


@pytest.fixture
def serve_fake(fake_vllm: ModuleType) -> Iterator[Callable[..., Any]]:
    """Starts servers that speak as vLLM does, in threads; they end with the test."""
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> Any:
            server = fake_vllm.FakeVLLM(*arguments, **options)
            return stack.enter_context(contextmanager(fake_vllm.running)(server))

        yield start
