"""A run that plays nothing ahead, against the steps of a run written out one after another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.config import load
from agentgym.envs.registry import make_env
from agentgym.policies.conversation import Script
from agentgym.policies.hf import HFPolicy
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions
from agentgym.rollout import collect_groups
from agentgym.train import Reporter, run_training
from agentgym.trainers.batch import pack
from agentgym.trainers.decks import Deck, draw_tasks
from agentgym.trainers.handover import HandOver
from agentgym.trainers.learner import Learner
from agentgym.trainers.registry import build_chain
from agentgym.types import EnvSpec
from agentgym.workers import WorkerPool

SPEC = EnvSpec("corridor", {"suite": "corridor/train", "max_turns": 3})


def written_out(
    config: Any, trained: HFPolicy, sampler: Any, hand_over: Callable[[int], None]
) -> None:
    """Play a step, learn from it, hand over the weights; then the next one."""
    method = build_chain(config.method, config.steps, config.reward)
    learner = Learner(trained.model, config.optim, config.steps, method.needs, config.seed)
    assert trained.prompt is not None
    begin = Script(trained.prompt, trained.tokenizer).begin
    sampling, asked = config.policy.sampling, config.rollout
    with closing(make_env(SPEC)) as env, closing(WorkerPool(SPEC)) as pool:
        for step in range(1, config.steps + 1):
            hand_over(step - 1)
            tasks = draw_tasks([Deck(env.suite.tasks)], asked.tasks_per_step, config.seed, step)
            seed = f"{config.seed}:{step}"
            groups, _ = collect_groups(
                pool, tasks, asked.group_size, sampler, begin, sampling, seed
            )
            batch = pack(groups, method.turn_rewards(groups, step))
            batch = method.advantages(learner.prepare(batch, sampling.temperature), step)
            batch, _ = learner.update(batch, method, step)
            method.observe(batch, step)


@pytest.mark.parametrize("served", [False, True], ids=["in this process", "served"])
def test_without_staleness_a_run_is_bitwise_its_steps_one_after_another(
    served: bool, corridor_model: Path, serve_fake: Any, tmp_path: Path
) -> None:
    policy: dict[str, Any] = {"sampling": {"max_tokens": 3, "max_context": 128}}
    if served:
        url = serve_fake(corridor_model, name="random", max_model_len=256).url
        policy["server"] = {"urls": [url]}
    settings = {
        "steps": 3,
        "env": {"suite": "corridor/train", "max_turns": 3},
        "policy": {"model": str(corridor_model), "template": "plain", **policy},
        "rollout": {"tasks_per_step": 2, "group_size": 3, "staleness": 0},
        "reward": {"format_penalty": 0.5},
        "method": {"name": "epo"},
        "optim": {"lr": 1e-3},
        "eval": {"suite": "corridor/test", "tasks": 1},
    }
    config = load([settings])
    run_training(config, tmp_path / "run", Reporter(lambda _: None, lambda _: None), resume=False)
    ran = HFPolicy.from_pretrained(tmp_path / "run" / "checkpoints" / "step_000003" / "hf")

    trained = HFPolicy.from_pretrained(corridor_model)
    if served:
        other = serve_fake(corridor_model, name="random", max_model_len=256).url
        with closing(VLLMPolicy(ServerOptions(urls=(other,)), trained.tokenizer)) as sampler:
            hand_over = HandOver(trained, sampler, tmp_path / "sync", 1e-3, "disk")
            written_out(config, trained, sampler, hand_over)
    else:
        written_out(config, trained, trained, trained.refresh)

    before = HFPolicy.from_pretrained(corridor_model).model.state_dict()
    after = trained.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in ran.model.state_dict().items())
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())
