"""Real vLLM servers, started once for all tests that ask for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentgym.console import say
from agentgym.policies.bundled import resolve_model
from agentgym.policies.hf import HFPolicy
from agentgym.policies.serve import ModelServer
from agentgym.policies.serve_command import Served, ServeOptions
from agentgym.policies.served_folder import link_untied

TINY = "alfworld-tiny"


@pytest.fixture(scope="session", autouse=True)
def vllm() -> str:
    """Where vLLM is; without it this job fails."""
    where = os.environ.get("AGENTGYM_VLLM")
    assert where, "set AGENTGYM_VLLM, or run `make test-vllm`, which installs it"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    # On a machine that does other things too, a thread bound to a busy core waits for it.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    return where


@pytest.fixture
def trained() -> HFPolicy:
    """The bundled model as the trainer has it."""
    return HFPolicy.from_pretrained(resolve_model(TINY), device="cpu")


@pytest.fixture(scope="session")
def tiny(vllm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A server of the bundled model, which takes weights and adapters."""
    folder = tmp_path_factory.mktemp("tiny")
    model = link_untied(Path(resolve_model(TINY)), folder / "model")
    served = Served(model=str(model), name=TINY, lora_rank=8)
    with ModelServer(served, ServeOptions(), folder / "vllm.log", say) as server:
        yield server
