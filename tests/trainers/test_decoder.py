import asyncio
import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from agentgym.errors import UsageError
from agentgym.policies.hf import HFPolicy
from agentgym.policies.precision import Compute
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.decoder import Decoder
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer
from agentgym.types import Request

IDS = torch.tensor([[3, 7, 1, 9, 22, 4], [5, 5, 8, 0, 0, 0]])
MASK = torch.tensor([[0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 0]]).float()


def gradients(model: nn.Module, lm: CausalLM) -> list[torch.Tensor]:
    model.zero_grad()
    logprob_BT, entropy_BT = lm.score(IDS, MASK, 0.8)
    (logprob_BT.sum() + 0.3 * entropy_BT.sum()).backward()
    return [p.grad.clone() for p in model.parameters()]


def test_recomputing_changes_no_bit_of_the_gradient(make_model) -> None:
    model = make_model(torch.float32)
    plain = gradients(model, CausalLM(model))
    assert all(map(torch.equal, plain, gradients(model, CausalLM(model, recompute=True))))


def test_recomputing_keeps_less_for_the_backward_pass(make_model) -> None:
    model = make_model(torch.float32, num_hidden_layers=6)

    def kept(recompute: bool) -> int:
        sizes: dict[int, int] = {}
        lm = CausalLM(model, recompute=recompute)

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            lm.score(IDS, MASK, 1.0)
        return sum(sizes.values())

    assert kept(recompute=True) < 0.5 * kept(recompute=False)


def test_recomputing_leaves_dropout_off_and_the_layers_as_they_were(make_model) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=23, n_embd=16, n_layer=2, n_head=2))
    lm = CausalLM(model, recompute=True)  # its configuration has dropout
    assert all(map(torch.equal, gradients(model, lm), gradients(model, lm)))
    assert not any("forward" in vars(module) for module in model.modules())
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.transformer.h[0].mlp.c_proj.weight.zero_()
        changed = CausalLM(other).score(IDS, MASK, 1.0)[0]
    assert not torch.equal(changed, lm.score(IDS, MASK, 1.0)[0])


def test_a_decoder_without_layers_that_can_be_recomputed_is_refused() -> None:
    with pytest.raises(UsageError, match="gradient_checkpointing = false"):
        Decoder(nn.Linear(2, 2), recompute=True)


def test_bfloat16_is_what_products_are_computed_in_and_not_what_is_kept(make_model) -> None:
    model = make_model(torch.float32)
    single, half = CausalLM(model), CausalLM(model, "bfloat16")
    exact, near = single.score(IDS, MASK, 1.0)[0], half.score(IDS, MASK, 1.0)[0]
    assert near.dtype == torch.float32
    assert not torch.equal(exact, near)
    torch.testing.assert_close(exact, near, rtol=0, atol=0.1)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    for ours, theirs in zip(gradients(model, single), gradients(model, half), strict=True):
        assert theirs.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.98


def test_a_sampler_in_bfloat16_says_nearly_what_the_learner_says() -> None:
    tokenizer = train_tokenizer(["go to the desk and take a pen"] * 10, 300)
    model = fresh_model(tokenizer, Shape(hidden=64, layers=2, intermediate=128), seed=0)
    policy = HFPolicy(model, tokenizer, compute="bfloat16")
    prompts = [tuple(tokenizer.encode("go to the desk")) * (n + 1) for n in range(4)]
    requests = [Request(f"{n}", ids, 12, 1.0, f"{n}") for n, ids in enumerate(prompts)]
    samples = asyncio.run(policy.sample(requests))
    apart: dict[Compute, float] = {}
    for compute in ("float32", "bfloat16"):
        gaps = []
        for ids, sample in zip(prompts, samples, strict=True):
            row = torch.tensor([ids + sample.ids])
            mask = torch.tensor([[0.0] * len(ids) + [1.0] * len(sample.ids)])
            found = CausalLM(model, compute).score(row, mask, 1.0)[0][mask > 0]
            gaps.append((found.detach() - torch.tensor(sample.logprobs)).abs())
        apart[compute] = torch.cat(gaps).mean().item()
    assert apart["bfloat16"] < 0.01
    assert apart["float32"] > 0  # it was not computed in float32 after all
