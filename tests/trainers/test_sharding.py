"""Weights in shards, as a process alone has them: what one process can show of them."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from agentgym.launch import ALONE
from agentgym.trainers import learner as learning
from agentgym.trainers import sharding
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Need
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.ranks import Ranks
from agentgym.trainers.rendezvous import joined
from agentgym.trainers.sharding import ParallelOptions, whole

SHARDED = ParallelOptions(weights="sharded")


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    with joined(ALONE, SHARDED, {}) as one:
        yield one


def tied_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def learner_of(model: nn.Module, ranks: Ranks, needs: Need = Need.NOTHING) -> Learner:
    return Learner(model, OptimOptions(), 10, needs, ranks=ranks, parallel=SHARDED)


def test_weights_are_brought_into_a_tied_model_and_into_one_that_was_emptied(ranks) -> None:
    kept, emptied = tied_model(), tied_model()
    learners = [learner_of(model, ranks) for model in (kept, emptied)]
    emptied.to("meta")  # which unties its weights
    for learner in learners:
        assert all(isinstance(p, DTensor) for p in learner.parameters)
        with torch.no_grad():
            for parameter in learner.parameters:
                parameter.add_(1.0)
        learner.publish()
    first = tied_model()
    for ours, theirs in zip(kept.parameters(), first.parameters(), strict=True):
        assert torch.equal(ours, theirs + 1.0)
    assert kept.lm_head.weight is kept.model.embed_tokens.weight
    assert all(p.is_meta for p in emptied.parameters())


def test_each_copy_of_a_model_is_divided_before_the_next_one_is_made(ranks, monkeypatch) -> None:
    done: list[str] = []

    def noting(name: str, work: Any) -> Any:
        def noted(*args: Any, **more: Any) -> Any:
            done.append(name)
            return work(*args, **more)

        return noted

    monkeypatch.setattr(learning, "shard", noting("divided", learning.shard))
    monkeypatch.setattr(learning, "CausalLM", _noting_class(done))
    monkeypatch.setattr(learning, "Critic", noting("critic", learning.Critic))
    learner_of(tied_model(), ranks, Need.REFERENCE | Need.VALUES)
    assert done == ["copy", "divided", "critic", "copy", "divided"]


def _noting_class(done: list[str]) -> type[learning.CausalLM]:
    class Noting(learning.CausalLM):
        def __init__(self, *args: Any) -> None:
            done.append("copy")
            super().__init__(*args)

    return Noting


class OnAGpu:
    """A tensor in shards on a GPU, of which only its place is of interest."""

    place = "gpu"

    def full_tensor(self) -> "OnAGpu":
        return OnAGpu()

    def cpu(self) -> "OnAGpu":
        self.place = "cpu"
        return self


def test_what_is_gathered_for_a_checkpoint_leaves_the_gpu_tensor_by_tensor(monkeypatch) -> None:
    monkeypatch.setattr(sharding, "DTensor", OnAGpu)
    state = {"state": [{"exp_avg": OnAGpu(), "step": 1}]}
    assert whole(state, to_cpu=True)["state"][0]["exp_avg"].place == "cpu"
    assert whole(state)["state"][0]["exp_avg"].place == "gpu"  # as the norm of a gradient wants it
    assert whole(state, keep=False, to_cpu=True)["state"][0] == {"exp_avg": None, "step": 1}


def test_the_states_of_policy_and_critic_are_gathered_on_the_cpu(ranks, monkeypatch) -> None:
    learner = learner_of(tied_model(), ranks, Need.VALUES)
    asked = []
    for module in ("updater", "critic"):
        monkeypatch.setattr(
            f"agentgym.trainers.{module}.whole",
            lambda value, *, keep=True, to_cpu=False: asked.append((keep, to_cpu)),
        )
    learner.state_dict()
    assert asked == [(True, True)] * 3  # the optimiser's, the critic's weights, its optimiser's


@pytest.mark.parametrize("setting", [{"offload": True}, {"reduce": "each"}])
def test_what_is_for_shards_alone_is_refused_without_them(setting) -> None:
    with pytest.raises(ValueError, match=r"is for weights in shards; set weights = sharded"):
        ParallelOptions.model_validate(setting)
    assert ParallelOptions.model_validate({**setting, "weights": "sharded"})


def test_shards_that_are_offloaded_learn_on_a_cpu_what_others_do(ranks) -> None:
    offloaded = SHARDED.model_copy(update={"offload": True})
    norms = []
    for options in (SHARDED, offloaded):
        model = tied_model()
        learner = Learner(model, OptimOptions(), 10, ranks=ranks, parallel=options)
        for parameter in learner.parameters:
            parameter.grad = torch.ones_like(parameter)
        learner._updater.begin(1)
        norms.append(learner._updater.apply(0.0, {}, 1)[0])
        learner.publish()
    assert norms[0] == norms[1] > 0
