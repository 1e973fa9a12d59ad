"""Weights broadcast to a real vLLM server, whose workers join a group of gloo in NCCL's place."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from agentgym.console import say
from agentgym.errors import ServerError
from agentgym.policies.bundled import resolve_model
from agentgym.policies.serve import ModelServer
from agentgym.policies.serve_command import Served, ServeOptions
from agentgym.policies.served_folder import link_untied
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions
from agentgym.policies.vllm_replica import farthest
from agentgym.trainers.handover import HandOver
from agentgym.trainers.weight_source import WeightSource
from agentgym.types import Request

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

TINY, TOLERANCE = "alfworld-tiny", 1e-3
PLUGIN = Path(__file__).with_name("gloo_ranks")


@pytest.fixture
def source(trained, fake_transfer, monkeypatch):
    monkeypatch.setattr(fake_transfer, "PATIENCE", timedelta(seconds=20))
    yield WeightSource(trained, fake_transfer.GlooCollectives())
    for thread in threading.enumerate():  # gloo gives up what nobody answers after a while
        if thread.name == "agentgym-transfer":
            thread.join()


@pytest.fixture
def server(vllm, tmp_path, monkeypatch):
    """A server whose engine for weight transfer is the plugin's."""
    paths = [str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    options = ServeOptions(arguments=("--weight-transfer-config", '{"backend": "gloo"}'))
    model = link_untied(Path(resolve_model(TINY)), tmp_path / "model")
    served = Served(model=str(model), name=TINY)
    with ModelServer(served, options, tmp_path / "vllm.log", say) as server:
        yield server


def greedy(policy, trained):
    ids = trained.tokenizer.encode("You see a cabinet 2, a fridge 1.", add_special_tokens=False)
    (sample,) = asyncio.run(policy.sample([Request("s", tuple(ids), 24, 0.0, "seed")]))
    policy.drop("s")  # keys and values of these weights
    return sample.ids


def test_a_broadcast_turns_the_servers_answers_into_the_trainers(server, trained, source, tmp_path):
    options = ServerOptions(urls=(server.url,))
    with closing(VLLMPolicy(options, trained.tokenizer, "nccl", source=source)) as policy:
        hand_over = HandOver(trained, policy, tmp_path / "sync", TOLERANCE, "nccl", source)
        hand_over(0)
        before = greedy(policy, trained)
        for version in (1, 2):
            with torch.no_grad():
                torch.manual_seed(version)
                for parameter in trained.model.parameters():
                    parameter += 0.02 * torch.randn_like(parameter)
            begun = time.monotonic()
            hand_over(version)
            seconds = time.monotonic() - begun
            assert greedy(policy, trained) == greedy(trained, trained) != before
        (theirs,) = policy.fingerprints().values()
        ours = asyncio.run(trained.score(policy.probe, [1, 1]))
        say(f"broadcast: {seconds:.2f} s, at most {farthest(ours, theirs):.1e} nats apart")
        assert not (tmp_path / "sync").exists()


def test_a_server_that_was_not_started_for_it_says_its_flag(tiny, trained, source):
    options = ServerOptions(urls=(tiny.url,))
    with closing(VLLMPolicy(options, trained.tokenizer, "nccl", source=source)) as policy:
        source.settle()
        with pytest.raises(ServerError, match=r"start it with --weight-transfer-config"):
            policy.load(None, 1)
