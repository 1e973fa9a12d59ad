"""Metrics against numbers by hand."""

import math
from dataclasses import replace

import pytest
import torch

from agentgym.trainers.metrics import (
    age_metrics,
    batch_metrics,
    episode_metrics,
    metrics_by_environment,
)
from agentgym.types import Stop


def test_episodes_are_measured_whole_and_turns_one_by_one(make_trajectory) -> None:
    won = make_trajectory("a", 0, turns=(2, 4), won=True, score=1.0)
    lost = make_trajectory("b", 0, (5,), won=False, score=0.5, parse_errors=["no tag"])
    lost = replace(lost, task_type="other", stop=Stop.TURNS, faults=3)
    metrics = episode_metrics([won, lost], max_tokens=5)
    assert metrics["episode/success_rate"] == 0.5
    assert metrics["episode/kind/success_rate"] == 1.0
    assert metrics["episode/other/success_rate"] == 0.0
    assert metrics["episode/score"] == 0.75
    assert metrics["episode/turns"] == 1.5
    assert metrics["episode/faults"] == 3
    assert metrics["episode/valid_action_rate"] == pytest.approx(2 / 3)  # of three turns
    assert metrics["response_length/mean"] == pytest.approx((2 + 4 + 5) / 3)
    assert metrics["response_length/clip_ratio"] == pytest.approx(1 / 3)
    assert (metrics["stop/terminated"], metrics["stop/turns"]) == (0.5, 0.5)
    assert sum(metrics[f"stop/{stop}"] for stop in Stop) == 1


@pytest.mark.parametrize("layout", ["full", "window"])
def test_turns_are_as_long_in_one_row_as_in_many(make_trajectory, layout: str) -> None:
    trajectory = make_trajectory(turns=(2, 4, 3), layout=layout)
    assert episode_metrics([trajectory], 9)["response_length/mean"] == 3


def test_the_age_of_tokens_is_counted_in_versions_over_those_that_were_sampled(
    make_trajectory,
) -> None:
    trajectory = make_trajectory(turns=(2, 4))
    (row,) = trajectory.rows
    # Two tokens of the version before, four of the one that is updated.
    versions = [-1 if turn < 0 else 6 + turn for turn in row.turns]
    mixed = replace(trajectory, rows=(replace(row, versions=tuple(versions)),))
    metrics = age_metrics([mixed], 7)
    assert metrics["rollout/age_mean"] == pytest.approx(2 / 6)
    assert metrics["rollout/age_max"] == 1
    assert metrics["rollout/stale_share"] == pytest.approx(2 / 6)
    assert age_metrics([replace(trajectory, rows=())], 7) == {}


def test_no_episodes_have_no_metrics() -> None:
    assert episode_metrics([], 5) == {}


def test_a_step_is_measured_over_trajectories_and_over_sampled_tokens(
    make_trajectory, make_batch
) -> None:
    batch = make_batch(
        [
            make_trajectory("a", 0, (1, 2), won=True),
            make_trajectory("a", 1, (1,), won=False),
            make_trajectory("b", 0, (1,), won=False),
            make_trajectory("b", 1, (1,), won=False),
        ]
    )
    mask = batch.mask_BT
    entropy = mask * (batch.turn_BT.clamp(min=0) + 1)  # 1 in turn 0, 2 in turn 1
    credit = torch.tensor([1.5, -0.5, 0.0, 0.0])[:, None] * mask
    behind = mask * -1.25  # the sampler said -1.5
    metrics = batch_metrics(
        batch.with_(entropy_BT=entropy, advantage_BT=credit, old_logprob_BT=behind)
    )
    assert metrics["reward/mean"] == metrics["reward/outcome"] == 0.25
    assert metrics["reward/std"] == pytest.approx(math.sqrt(3) / 4)
    assert metrics["group/frac_zero_std"] == 0.5  # all of b are equal
    # Six sampled tokens: four in turn 0, two in turn 1.
    assert metrics["actor/entropy"] == pytest.approx((4 * 1 + 2 * 2) / 6)
    assert metrics["actor/entropy_turn_0"] == 1
    assert metrics["actor/entropy_turn_1"] == 2
    assert metrics["advantage/mean"] == pytest.approx((3 * 1.5 - 0.5) / 6)
    assert (metrics["advantage/min"], metrics["advantage/max"]) == (-0.5, 1.5)
    assert metrics["rollout/logprob_abs_diff"] == pytest.approx(0.25)
    assert metrics["rollout/logprob_abs_diff_max"] == pytest.approx(0.25)


def test_what_was_not_computed_is_not_measured(two_groups) -> None:
    assert not [n for n in batch_metrics(two_groups) if n.startswith(("advantage", "actor"))]


def test_turns_that_repeat_the_action_before_are_counted_of_those_that_have_one_before(
    make_trajectory,
) -> None:
    fresh = make_trajectory("t", 0, (2, 2, 2))
    first, second, third = fresh.turns
    # look, look, go: one of two pairs. A single turn has none before it.
    turns = (
        replace(first, action="look"),
        replace(second, action="look"),
        replace(third, action="go"),
    )
    alone = make_trajectory("t", 1, (2,))
    measured = episode_metrics([replace(fresh, turns=turns), alone], 99)
    assert measured["episode/repeated_action_rate"] == 0.5
    assert "episode/repeated_action_rate" not in episode_metrics([alone], 99)


def test_errors_are_counted_by_environment(make_trajectory, make_batch) -> None:
    played = [
        replace(make_trajectory(task, 0, won=won), suite=f"{env}/train")
        for env, task, won in (("shop", "a", True), ("shop", "b", False), ("house", "c", False))
    ]
    broken = [replace(played[2], stop=Stop.ERROR), replace(played[0], stop=Stop.ERROR)]
    names = ["shop", "house", "lab"]
    found = metrics_by_environment(names, played, [*broken, broken[0]], make_batch(played))
    assert [found[f"rollout/{name}/errors"] for name in names] == [1, 2, 0]
    assert found["episode/shop/success_rate"] == 0.5
    assert found["reward/house/mean"] == 0
    assert not [name for name in found if name.startswith("episode/lab")]  # not drawn in this step
    assert metrics_by_environment(["shop"], played[:2], [], make_batch(played[:2])) == {}
