"""Every method teaches a random player of the corridor to win tasks that it never trained on.

One seed each; AGENTGYM_LEARNING_SEEDS=3 takes three, as ``make test-learning`` does, and
AGENTGYM_LEARNING_WRITE writes what was found into that file.
"""

import os
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
from transformers import AutoModelForCausalLM

from agentgym.trainers.registry import method_names

pytestmark = pytest.mark.timeout(600)  # a busy machine may take its time
SEEDS = range(int(os.environ.get("AGENTGYM_LEARNING_SEEDS", "1")))
BASELINE, ENOUGH = 0.4, 0.9  # one who chooses any door wins 0.14
SLOWEST = 24.0
"""Seconds of a processor. An ordinary one is to need 8 at most; one that others use at the same
time shares its caches and its core with them, and may need three times as long."""


class Case(NamedTuple):
    """What a method needs to be quick, and whether its mechanism acted, by its metrics."""

    method: Mapping[str, object] = MappingProxyType({})
    changes: Mapping[str, object] = MappingProxyType({})
    acted: Callable[..., bool] | None = None


def distance_of_values(run) -> list[float]:
    """Return how far the critic's mean was from what came of the steps."""
    pairs = zip(run.seen("critic/value_mean"), run.seen("critic/return_mean"), strict=True)
    return [abs(value - outcome) for value, outcome in pairs]


CASES = {
    "grpo": Case(),
    "drgrpo": Case(),
    "rloo": Case(),
    "reinforce++": Case(),
    "gigpo": Case(acted=lambda run: min(run.seen("gigpo/compared")) > 0.2),
    "dapo": Case(
        {"max_rounds": 2},
        {"rollout": {"tasks_per_step": 24}},
        lambda run: max(run.seen("rollout/rounds")) > 1 and max(run.seen("rollout/left_out")) > 0,
    ),
    "ppo": Case(
        {"aggregation": "seq-mean-token-mean"},
        {"optim": {"lr": 1e-3, "critic": {"lr": 1e-2}}},
        lambda run: (
            run.seen("critic/loss")[-1] < 0.5 * run.seen("critic/loss")[0]
            and distance_of_values(run)[-1] < 0.5 * distance_of_values(run)[0]
            and min(run.seen("critic/grad_norm")) > 0
        ),
    ),
    "drbot": Case(acted=lambda run: min(run.seen("rollout/left_out")) >= 32),  # 1/4 of the groups
    # Fewer of its rollouts begin by themselves, and a colour may be forgotten early.
    "arpo": Case(
        changes={"steps": 16, "optim": {"lr": 7e-4}},
        acted=lambda run: min(run.seen("tree/branches")) > 0,
    ),
    "aepo": Case(
        acted=lambda run: (
            min(run.seen("tree/branches")) > 0
            and max(run.seen("actor/clip_kept")) > 0
            and min(run.seen("aepo/factor_max")) > 1
        )
    ),
    "empg": Case(
        acted=lambda run: (
            min(run.seen("empg/scale_max")) > 1.05
            and max(run.seen("empg/scale_min")) < 0.95
            and min(run.seen("empg/bonus")) > 0
        ),
    ),
    "epo": Case(
        {"kappa_high": 1.0, "log_every": 1},
        acted=lambda run: (
            max(run.seen("epo/outside")[1:]) > 0 and max(run.seen("loss/smooth")[1:]) > 0
        ),
    ),
    "spear": Case(
        {"warmup_steps": 6, "tool_steps": 6, "buffer_size": 32},
        {"reward": {"scale": 10.0}},
        lambda run: (
            sum(count > 0 for count in run.seen("spear/replayed")) >= 3
            and max(line.get("replay/optim/grad_norm", 0.0) for line in run.metrics) > 1e-3
            and max(run.seen("spear/chosen")) > 0
            and run.metrics[0]["reward/tool"] > 0
            and "reward/tool" not in run.metrics[-1]
        ),
    ),
    # Its turns are one word long and its answers are several, so that gains are noisy; and a
    # corridor is lost by walking on, which should not be worth more than running out of turns.
    "igpo": Case(
        {"gain_weight": (0.5, 0.0), "format_outcome": 0.0},
        acted=lambda run: min(run.seen("igpo/gain_abs")) > 1e-3,
    ),
}


def test_every_method_is_taught() -> None:
    assert set(CASES) == set(method_names())


def test_the_model_is_as_small_as_is_said(random_player) -> None:
    model = AutoModelForCausalLM.from_pretrained(random_player)
    assert sum(parameter.numel() for parameter in model.parameters()) < 100_000


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_a_random_player_learns_to_win_held_out_tasks(name, seed, make_config, learn, keep) -> None:
    case = CASES[name]
    run = learn(make_config({"name": name, **case.method}, {"seed": seed}, case.changes))
    found = f"{name}, seed {seed}: {run.before:.2f} to {run.after:.2f}"
    sys.stdout.write(f"{found} in {run.seconds:.1f} s of processor time\n")
    keep(name, seed, run)
    assert run.before < BASELINE
    assert run.after >= ENOUGH, [round(rate, 2) for rate in run.seen("episode/success_rate")]
    assert case.acted is None or case.acted(run)
    assert run.seconds < SLOWEST


def test_cloning_one_who_follows_teaches_it_too(cloned, keep) -> None:
    run = cloned()
    keep("sft", 0, run)
    sys.stdout.write(f"sft: {run.before:.2f} to {run.after:.2f} in {run.seconds:.1f} s\n")
    assert run.before < BASELINE
    assert run.after >= ENOUGH
    assert run.seconds < SLOWEST
