"""Weights by a broadcast: what arrives is what was sent, bit by bit, or the failure is said."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

from agentgym.errors import ServerError
from agentgym.policies.hf import HFPolicy
from agentgym.policies.vllm_http import Http, Lost, ServerOptions
from agentgym.policies.vllm_transfer import Transfer
from agentgym.trainers.lora import LoraOptions, add_adapter, merged
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer
from agentgym.trainers.weight_source import WeightSource

SHAPE = Shape(hidden=32, layers=1, intermediate=48, context=128)
UPDATE = ["pause", "start", "update", "finish", "resume"]


@pytest.fixture
def trained() -> HFPolicy:
    tokenizer = train_tokenizer(["to be or not to be, that is the question"] * 10, 300)
    return HFPolicy(fresh_model(tokenizer, SHAPE, seed=0), tokenizer)


@pytest.fixture
def server(serve_fake, trained, tmp_path):
    trained.save(tmp_path / "served")
    return serve_fake(tmp_path / "served", max_model_len=128)


@pytest.fixture
def ranks(server, fake_vllm, fake_transfer):
    return fake_transfer.Ranks(server, fake_vllm.Refusal, count=2)


@pytest.fixture
def source(trained, fake_transfer):
    yield WeightSource(trained, fake_transfer.GlooCollectives())
    for thread in threading.enumerate():  # gloo gives up what nobody answers after a while
        if thread.name == "agentgym-transfer":
            thread.join()


def transfer(server, source, *steps):
    """Do things with a transfer, in one event loop."""

    async def run():
        http = Http(server.url, ServerOptions())
        one = Transfer(http, source)
        try:
            for step in steps:
                found = step(one)
                if found is not None:
                    await found
        finally:
            await one.close()
            await http.close()

    asyncio.run(run())


def change(trained: HFPolicy, source: WeightSource) -> None:
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    source.settle()


def assert_same_bits(received, wanted) -> None:
    assert received.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert received[name].dtype == tensor.dtype
        assert torch.equal(received[name].view(torch.uint8), tensor.contiguous().view(torch.uint8))


def test_every_rank_receives_every_weight_bit_by_bit(server, ranks, source, trained):
    change(trained, source)
    transfer(server, source, Transfer.load)
    assert ranks.calls == ["init", *UPDATE, "shutdown"]
    assert len(ranks.received) == 2
    for received in ranks.received:
        assert_same_bits(received, trained.model.state_dict())


def test_half_precision_and_weights_in_strides_arrive_as_they_are(server, ranks, source, trained):
    trained.model.to(torch.bfloat16)
    down = trained.model.model.layers[0].mlp.down_proj
    down.weight.data = down.weight.data.T.contiguous().T
    assert not down.weight.is_contiguous()
    transfer(server, source, Transfer.load)
    assert_same_bits(ranks.received[1], trained.model.state_dict())


def test_the_group_of_a_server_is_made_once_and_left_at_the_end(server, ranks, source, trained):
    transfer(server, source, Transfer.load, lambda _: change(trained, source), Transfer.load)
    assert ranks.calls == ["init", *UPDATE, *UPDATE, "shutdown"]
    assert_same_bits(ranks.received[0], trained.model.state_dict())
    (group,) = source._collectives.groups
    assert group.aborted


def test_an_adapter_arrives_added_to_its_matrices(server, ranks, source, trained):
    add_adapter(trained.model, LoraOptions(rank=2), seed=0)
    change(trained, source)
    transfer(server, source, Transfer.load)
    assert_same_bits(ranks.received[0], merged(trained.model).state_dict())


def test_after_a_failure_the_server_stays_paused_and_the_next_load_mends_it(
    server, ranks, source, trained
):
    ranks.breaks = 1

    async def fails(one):
        with pytest.raises(Lost, match="update_weights method failed"):
            await one.load()
        assert ranks.paused
        with pytest.raises(ServerError, match=r"is paused, .* came but in part; restart it"):
            await one.check()

    async def is_awake(one):
        await one.check()

    transfer(server, source, fails, Transfer.load, is_awake)
    assert ranks.calls == ["init", *UPDATE[:3], "init", *UPDATE, "shutdown"]
    assert_same_bits(ranks.received[0], trained.model.state_dict())


def test_a_server_that_was_not_started_for_it_is_told_by_its_flag(server, ranks, source):
    ranks.configured = False
    with pytest.raises(ServerError, match=r"over NCCL; start it with --weight-transfer-config"):
        transfer(server, source, Transfer.load)
