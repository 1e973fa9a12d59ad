"""Weights handed over by a broadcast, from a trainer to servers that prove what they have.

The groups are of gloo; what differs from NCCL is in trainers/nccl.py alone (test_nccl.py).
"""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

from agentgym.errors import ServerError, StaleWeightsError
from agentgym.policies.hf import HFPolicy
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import Gone, ServerOptions
from agentgym.policies.vllm_replica import farthest
from agentgym.trainers.handover import HandOver
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer
from agentgym.trainers.weight_source import WeightSource
from agentgym.types import Request

SHAPE = Shape(hidden=32, layers=1, intermediate=48, context=128)


@pytest.fixture
def trained() -> HFPolicy:
    tokenizer = train_tokenizer(["to be or not to be, that is the question"] * 10, 300)
    return HFPolicy(fresh_model(tokenizer, SHAPE, seed=0), tokenizer)


@pytest.fixture
def serve(serve_fake, fake_vllm, fake_transfer, trained, tmp_path):
    """Starts a server that takes weights from a broadcast; returns it and its ranks."""
    trained.save(tmp_path / "served")

    def start():
        server = serve_fake(tmp_path / "served", max_model_len=128)
        return server, fake_transfer.Ranks(server, fake_vllm.Refusal)

    return start


@pytest.fixture
def source(trained, fake_transfer):
    yield WeightSource(trained, fake_transfer.GlooCollectives())
    for thread in threading.enumerate():  # gloo gives up what nobody answers after a while
        if thread.name == "agentgym-transfer":
            thread.join()


@pytest.fixture
def hand_over_to(trained, source, tmp_path):
    """Makes what hands the weights of ``trained`` to servers."""
    made = []

    def make(*servers, **options):
        urls = tuple(server.url for server in servers)
        policy = VLLMPolicy(
            ServerOptions(urls=urls, **options), trained.tokenizer, "nccl", source=source
        )
        made.append(policy)
        return policy, HandOver(trained, policy, tmp_path / "sync", 1e-4, "nccl", source)

    yield make
    for policy in made:
        policy.close()


def train_a_step(trained: HFPolicy) -> None:
    optimizer = torch.optim.AdamW(trained.model.parameters(), lr=0.05)
    rows = torch.arange(2, 20)[None]
    trained.model(input_ids=rows, labels=rows).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def say_something(policy):
    request = Request("s", tuple(range(5, 30)), 4, 1.0, "seed")
    (sample,) = asyncio.run(policy.sample([request]))
    return sample


def ours(trained, policy):
    return asyncio.run(trained.score(policy.probe, [1] * len(policy.probe)))


def test_all_servers_answer_as_the_trainer_and_nothing_is_written(
    serve, trained, hand_over_to, tmp_path
):
    (one, _), (other, _) = serve(), serve()
    policy, hand_over = hand_over_to(one, other)
    before = ours(trained, policy)
    for version in (0, 1, 2):
        hand_over(version)
        for theirs in policy.fingerprints().values():
            assert farthest(ours(trained, policy), theirs) < 1e-4
        assert say_something(policy).version == version
        train_a_step(trained)
    assert farthest(before, ours(trained, policy)) > 1e-2
    assert not (tmp_path / "sync").exists()


def test_a_server_that_receives_and_does_nothing_is_stale(serve, trained, hand_over_to):
    server, _ = serve()
    _, hand_over = hand_over_to(server)
    hand_over(0)
    server.deaf = True
    train_a_step(trained)
    with pytest.raises(StaleWeightsError, match="the server is stale: it answers as before"):
        hand_over(1)


def test_a_transfer_that_breaks_once_is_made_again(serve, trained, hand_over_to):
    server, ranks = serve()
    policy, hand_over = hand_over_to(server)
    train_a_step(trained)
    ranks.breaks = 1
    hand_over(1)
    assert ranks.calls.count("init") == 2
    assert not ranks.paused
    assert say_something(policy).version == 1


def test_a_server_that_was_restarted_joins_anew_and_gets_the_same_weights(
    serve, trained, hand_over_to
):
    server, ranks = serve()
    policy, hand_over = hand_over_to(server)
    train_a_step(trained)
    hand_over(1)
    ranks.restart()
    server.faults = ["drop"]
    assert say_something(policy).faults == 1
    assert ranks.calls.count("init") == 2
    assert ranks.calls.count("update") == 2
    assert torch.equal(
        ranks.received[0]["lm_head.weight"], trained.model.state_dict()["lm_head.weight"]
    )


def test_a_server_that_is_back_while_the_next_version_is_trained_waits_for_that(
    serve, trained, hand_over_to, source
):
    server, ranks = serve()
    policy, hand_over = hand_over_to(server, patience=0.2)
    hand_over(0)
    ranks.restart()
    train_a_step(trained)
    # Its weights are those of version 0 by chance: a restart shows by weights that differ.
    server.take({name: tensor + 1 for name, tensor in trained.model.state_dict().items()})
    server.faults = ["drop"]
    with pytest.raises(ServerError, match="the weights are being trained"):
        say_something(policy)
    assert ranks.calls.count("update") == 1
    hand_over(1)
    assert say_something(policy).version == 1


def test_weights_that_change_while_they_are_sent_are_of_no_version(trained, source, fake_transfer):
    class Slow:
        """Is trained on while it sends."""

        def broadcast(self, _tensor):
            train_a_step(trained)

        def wait(self):
            pass

        def abort(self):
            pass

    source.settle()
    weights = source.weights()
    with pytest.raises(Gone):
        weights.broadcast(Slow())


def test_a_paused_server_is_refused(serve, hand_over_to):
    server, ranks = serve()
    ranks.pause(True)
    with pytest.raises(ServerError, match="is paused"):
        hand_over_to(server)


def test_a_server_that_is_too_old_or_was_not_started_for_it_is_refused(serve, hand_over_to):
    server, _ = serve()
    server.version = "0.29.1"
    with pytest.raises(ServerError, match=r"is vLLM 0\.29\.1; 0\.30 or later takes weights over"):
        hand_over_to(server)
    server.version = "0.30.0"
    server.more_posts.clear()
    with pytest.raises(ServerError, match=r"has no /init_weight_transfer_engine; start it with"):
        hand_over_to(server)
