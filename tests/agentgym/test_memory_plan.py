"""The arithmetic of memory, against what really is allocated and kept."""

import asyncio
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentgym.errors import UsageError
from agentgym.memory_plan import (
    BLOCK_LOGITS,
    GIB,
    KEPT_LOGITS,
    Serving,
    Trainers,
    Training,
    host_memory,
    served,
    total,
    training_items,
)
from agentgym.model_shape import ModelShape, shape_of
from agentgym.policies.bundled import resolve_model
from agentgym.policies.hf import HFPolicy, load_model
from agentgym.trainers import logprobs
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.decoder import Decoder
from agentgym.trainers.lora import LoraOptions, add_adapter
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.updater import Updater
from agentgym.types import Request

TINY = "alfworld-tiny"
FULL = Training(half=False, context=256, episodes=8, micro_batch_tokens=256)
ONE = Trainers(gpus=1, bytes=80 * GIB)
SEVEN_B = shape_of("Qwen2.5-7B")


def bytes_of(shape: ModelShape, training: Training, trainers: Trainers = ONE) -> dict[str, float]:
    return {item.name: item.bytes for item in training_items(shape, training, trainers)}


@pytest.mark.parametrize("rank", [None, 4])
def test_weights_gradients_and_moments_are_those_of_a_real_update(rank: int | None) -> None:
    model = load_model(resolve_model(TINY), torch.float32)
    if rank is not None:
        add_adapter(model, LoraOptions(rank=rank), seed=0)
    updater = Updater(model, OptimOptions(), steps=10)
    updater.begin(1)
    ids = torch.arange(64)[None] % 100
    mask = torch.ones_like(ids)
    mask[:, 0] = 0
    logprob, _ = CausalLM(model).score(ids, mask, 1.0)
    logprob.sum().backward()
    gradients = sum(p.grad.nbytes for p in updater.parameters if p.grad is not None)
    updater.apply(0.0, {}, 1)
    states = [one["state"].values() for one in updater.state_dict()["optimizers"]]
    moments = sum(
        value.nbytes
        for state in states
        for of_parameter in state
        for value in of_parameter.values()
        if value.ndim
    )
    weights = sum(p.nbytes for p in model.parameters())
    planned = bytes_of(shape_of(resolve_model(TINY)), replace(FULL, lora_rank=rank))
    assert planned["weights"] == pytest.approx(weights, rel=0.02)
    assert planned["gradients"] == pytest.approx(gradients, rel=0.02)
    assert planned["optimiser"] == pytest.approx(moments, rel=0.02)


FAMILIES = {
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"head_norms": True, "head_dim": 24},  # heads that are not a share of h
}


def saved(family: str, training: Training, layers: int, tokens: int, moved_half: bool) -> int:
    """Return the bytes that a real decoder saves for its backward pass, its weights left out."""
    head_dim = FAMILIES[family].get("head_dim", 16)
    config = AutoConfig.for_model(
        family,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        vocab_size=100,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    if moved_half or training.frozen_half:
        model = model.bfloat16()
    if training.lora_rank is not None:
        add_adapter(model, LoraOptions(rank=training.lora_rank), seed=0)
    compute = "bfloat16" if training.half else "float32"
    decoder = Decoder(model.get_decoder(), compute, training.checkpointing)
    weights = {p.data_ptr() for p in model.parameters()}
    found: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes(), tensor  # held, so that none is reused
        return tensor

    ids = torch.zeros(1, tokens, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = decoder.before(ids, torch.arange(tokens)[None] > 0)
    assert kept.requires_grad
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("half", "rank", "moved_half"),
    [
        (False, None, False),
        (True, None, False),
        (True, None, True),
        (False, 3, False),
        (True, 3, False),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_saves_for_each_token_what_is_planned_to_the_byte(
    family: str, half: bool, rank: int | None, moved_half: bool, checkpointing: bool
) -> None:
    training = replace(FULL, half=half, lora_rank=rank, checkpointing=checkpointing)
    sizes = {
        (layers, tokens): saved(family, training, layers, tokens, moved_half)
        for layers in (1, 2)
        for tokens in (32, 96)
    }
    # What grows with tokens and with layers: the rest is weights that were cast, and the ends.
    measured = (sizes[2, 96] - sizes[2, 32] - sizes[1, 96] + sizes[1, 32]) / 64
    shape = ModelShape(1, 64, 176, 4, 2, 16, 100, False)
    shape = replace(shape, **FAMILIES[family])
    trainers = Trainers(2, 80 * GIB, sharded=True) if moved_half else ONE
    deeper = replace(shape, layers=2)
    planned = (
        bytes_of(deeper, training, trainers)["activations"]
        - bytes_of(shape, training, trainers)["activations"]
    ) / FULL.tokens
    assert measured == planned


def test_what_is_cast_to_bfloat16_is_the_matrices_of_the_layers() -> None:
    training = replace(FULL, half=True)
    sizes = {
        (layers, tokens): saved("qwen2", training, layers, tokens, False)
        for layers in (1, 2)
        for tokens in (32, 96)
    }
    per_token = (sizes[2, 96] - sizes[2, 32] - sizes[1, 96] + sizes[1, 32]) / 64
    measured = sizes[2, 32] - sizes[1, 32] - 32 * per_token
    shape = ModelShape(1, 64, 176, 4, 2, 16, 100, False, qkv_bias=True)
    assert bytes_of(shape, training)["casts"] == measured
    assert "casts" not in bytes_of(shape, FULL)
    assert "casts" not in bytes_of(shape, replace(training, lora_rank=4))


@pytest.mark.parametrize(("half", "compute"), [(False, "float32"), (True, "bfloat16")])
def test_keys_and_values_in_this_process_are_those_of_the_sampler(half: bool, compute: str) -> None:
    policy = HFPolicy.from_pretrained(resolve_model(TINY), compute=compute)
    requests = [
        Request(session=f"{n}", ids=tuple(range(4, 304)), max_tokens=2, temperature=1.0, seed="s")
        for n in range(3)
    ]
    asyncio.run(policy.sample(requests))
    layers = policy._engine._memory.by_layer
    held = sum(layer.key_SCDT.nbytes + layer.value_SCDT.nbytes for layer in layers)
    training = replace(FULL, half=half, context=302, episodes=3, in_process=True)
    assert bytes_of(shape_of(resolve_model(TINY)), training)["keys and values"] == held


def test_blocks_of_logits_are_as_large_as_the_learner_makes_them() -> None:
    assert logprobs.KEPT_LOGITS == KEPT_LOGITS
    assert logprobs.BLOCK_TOKENS * logprobs.BLOCK_VOCAB == BLOCK_LOGITS


def test_shards_divide_the_state_and_whole_gradients_stay_whole() -> None:
    alone = bytes_of(SEVEN_B, FULL)
    last = bytes_of(SEVEN_B, FULL, Trainers(4, 80 * GIB, sharded=True))
    each = bytes_of(SEVEN_B, FULL, Trainers(4, 80 * GIB, sharded=True, reduce_each=True))
    for name in ("weights", "optimiser"):
        assert last[name] == each[name] == alone[name] / 4
    assert each["gradients"] == alone["gradients"] / 4
    assert last["gradients"] == alone["gradients"] * 5 / 4
    away = bytes_of(SEVEN_B, FULL, Trainers(4, 80 * GIB, True, reduce_each=True, offload=True))
    assert away.keys() & {"weights", "gradients", "optimiser"} == set()


def test_whole_weights_lie_beside_shards_where_the_gpu_uses_them_and_on_the_host_elsewhere() -> (
    None
):
    four, weights = Trainers(4, 80 * GIB, sharded=True), 4 * SEVEN_B.parameters
    assert "whole weights" not in bytes_of(SEVEN_B, FULL, four)
    assert host_memory(SEVEN_B, FULL, four).first == weights + 2 * weights  # and AdamW's moments
    for there in (replace(FULL, in_process=True), replace(FULL, nccl=True)):
        assert bytes_of(SEVEN_B, there, four)["whole weights"] == weights
        assert host_memory(SEVEN_B, there, four).first == 2 * weights
    assert "whole weights" not in bytes_of(SEVEN_B, replace(FULL, in_process=True))


def test_shards_begin_as_a_copy_of_the_whole_weights_and_without_moments() -> None:
    eight = Trainers(8, 80 * GIB, sharded=True, reduce_each=True)
    training = replace(FULL, half=True, lora_rank=16, nccl=True)
    found = bytes_of(SEVEN_B, training, eight)
    items = training_items(SEVEN_B, training, eight)
    moments = found["optimiser"]
    begun = found["weights"] + 2 * found["whole weights"] + found["allowance"]
    assert total(items, "start") == pytest.approx(begun)
    assert total(items) == total(items, "start") > total(items, "update") > moments


def test_hosts_hold_what_each_process_loads_and_what_is_offloaded() -> None:
    weights = 4 * SEVEN_B.parameters
    plain = host_memory(SEVEN_B, FULL, ONE)
    assert (plain.beginning, plain.first, plain.others) == (2 * weights, 0, 0)
    four = Trainers(4, 80 * GIB, sharded=True, offload=True)
    away = host_memory(SEVEN_B, FULL, four)
    assert away.others == (1 + 1 + 2) * weights / 4  # weights, gradients, moments
    assert away.beginning == away.first == weights + 2 * weights + away.others


def test_processes_with_all_weights_each_hold_what_one_alone_holds() -> None:
    alone, four = bytes_of(SEVEN_B, FULL), bytes_of(SEVEN_B, FULL, Trainers(4, 80 * GIB))
    assert four.pop("gradients") == alone.pop("gradients") + 256 * 2**20
    assert four == alone


def test_a_reference_and_a_critic_are_models_of_their_own() -> None:
    more = bytes_of(SEVEN_B, replace(FULL, reference=True, critic=True))
    count = 7_615_616_512
    assert more["reference"] == 4 * count
    assert more["critic"] == 12 * (count - 152_064 * 3584)  # without the output's matrix
    adapter = bytes_of(SEVEN_B, replace(FULL, reference=True, lora_rank=8))
    assert "reference" not in adapter  # the model without its adapter is the reference


def test_the_rollout_and_the_update_do_not_add_up() -> None:
    items = training_items(SEVEN_B, replace(FULL, in_process=True), ONE)
    always = sum(item.bytes for item in items if item.phase == "always")
    phases = [total(items, "update"), total(items, "rollout")]
    assert total(items) == max(phases) < sum(phases) - always + 1
    assert (
        total(items, "rollout")
        == always + bytes_of(SEVEN_B, replace(FULL, in_process=True))["keys and values"]
    )


def test_a_context_that_the_model_does_not_read_is_refused() -> None:
    with pytest.raises(UsageError, match=r"reads 32,768 tokens, and contexts are 40,000"):
        training_items(SEVEN_B, replace(FULL, context=40_000), ONE)


def test_a_server_has_56_kib_of_keys_and_values_for_each_token_of_a_7b_model() -> None:
    training = replace(FULL, half=True, context=4096)
    found = served(SEVEN_B, training, Serving(1, 80 * GIB))
    # 2 (keys, values) x 2 bytes x 28 layers x 4 heads x 128
    assert found.token == 57_344 == 56 * 1024
    assert found.room == pytest.approx(0.9 * 80 * GIB - sum(one.bytes for one in found.items))
    assert found.at_once == int(found.room // (57_344 * 4096))


def test_a_server_on_several_gpus_shares_heads_until_each_has_one() -> None:
    training = replace(FULL, half=True, context=4096)
    tokens = [
        served(SEVEN_B, training, Serving(8, 80 * GIB, tensor_parallel=n)).token
        for n in (1, 2, 4, 8)
    ]
    assert tokens == [57_344, 28_672, 14_336, 14_336]
    two = served(SEVEN_B, training, Serving(2, 80 * GIB))
    assert two.at_once == 2 * served(SEVEN_B, training, Serving(1, 80 * GIB)).at_once
    with pytest.raises(UsageError, match="no multiple of --tensor-parallel 3"):
        Serving(8, 80 * GIB, tensor_parallel=3)


def test_a_server_without_room_holds_no_episode() -> None:
    assert served(SEVEN_B, replace(FULL, half=True), Serving(1, 16 * GIB)).at_once == 0
