"""The mathematics of branching, by hand."""

import math
import random

import pytest
import torch

from agentgym.policies.draw import entropy_of, lumped
from agentgym.trainers.branching import (
    branch_probability,
    fresh_rollouts,
    penalised_probability,
    released_probability,
    run_before,
    uncertainty,
)

QWEN = 151_936  # tokens


def test_uncertainty_is_entropy_in_units_of_the_logarithm_of_the_vocabulary() -> None:
    # -(0.7 ln 0.7 + 0.2 ln 0.2 + 0.1 ln 0.1) = 0.249672 + 0.321888 + 0.230259
    entropy = entropy_of(torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)).item()
    assert entropy == pytest.approx(0.801819, abs=1e-6)
    # / ln 151936 = 11.931214
    assert uncertainty([entropy], "sum", QWEN) == pytest.approx(0.067203, abs=1e-6)
    assert uncertainty([entropy] * 20, "sum", QWEN) == pytest.approx(1.344069, abs=1e-6)
    assert uncertainty([entropy] * 20, "mean", QWEN) == pytest.approx(0.067203, abs=1e-6)


def test_the_tail_that_is_lumped_stands_between_a_tail_left_out_and_the_whole() -> None:
    # Ten likeliest tokens {0.5, 9 x 0.01}; the other 0.41 over 1000 tokens.
    prob = torch.tensor([0.5, *[0.01] * 9, *[0.41 / 1000] * 1000], dtype=torch.float64)
    left_out = entropy_of(prob[:10]).item()
    assert left_out == pytest.approx(0.761039, abs=1e-6)  # 0.346574 + 9 x 0.046052
    assert entropy_of(prob).item() == pytest.approx(3.958774, abs=1e-6)  # + 0.41 ln(1000 / 0.41)
    # One more token of 0.41: 0.761039 - 0.41 ln 0.41 = 0.761039 + 0.365555
    assert entropy_of(lumped(prob, 10)).item() == pytest.approx(1.126594, abs=1e-6)


@pytest.mark.parametrize(("delta", "p"), [(-1, 0.3), (0, 0.5), (0.5, 0.6), (1, 0.7), (3, 1)])
def test_arpo_branches_more_often_the_more_entropy_rose(delta: float, p: float) -> None:
    assert branch_probability(delta, 0.5, 0.2) == pytest.approx(p, abs=1e-12)  # 0.5 + 0.2 delta


@pytest.mark.parametrize(("run", "p"), [(0, 0.6), (1, 0.57), (2, 0.54), (5, 0.45), (10, 0.3)])
def test_aepo_takes_a_twentieth_off_for_each_branching_in_a_row(run: int, p: float) -> None:
    # (0.5 + 0.2 x 0.5)(1 - 0.05 run)
    assert penalised_probability(0.5, run, 0.5, 0.2, 0.05) == pytest.approx(p, abs=1e-12)


def test_after_twenty_branchings_in_a_row_there_is_no_more() -> None:
    assert penalised_probability(3, 20, 0.5, 0.2, 0.05) == 0
    assert penalised_probability(3, 25, 0.5, 0.2, 0.05) == 0
    assert released_probability(3, 20, 0.5, 0.2, 0.05) == 0


RELEASED = [
    # 1 - (0.5 / (1 - 0.05 run) - 0.2 delta)
    (0.5, [(0, 0.6), (1, 0.573684), (2, 0.544444), (5, 0.433333), (10, 0.1), (12, 0)]),
    (0.0, [(0, 0.5), (1, 0.473684), (2, 0.444444), (5, 0.333333), (10, 0), (12, 0)]),
]


@pytest.mark.parametrize(("delta", "expected"), RELEASED)
def test_the_released_penalty_falls_faster(delta: float, expected: list[tuple[int, float]]) -> None:
    for run, p in expected:
        assert released_probability(delta, run, 0.5, 0.2, 0.05) == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize("run", [0, 1, 5, 10, 12])
@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_the_released_probability_is_how_often_the_released_rule_branches(
    run: int, alpha: float
) -> None:
    rng = random.Random(f"{run}:{alpha}")
    trials = 50_000
    branched = 0
    for _ in range(trials):
        drawn = (rng.random() + 0.2 * 0.5) * max(0.0, 1 - 0.05 * run)
        branched += min(1.0, max(0.0, drawn)) >= 1 - alpha
    p = released_probability(0.5, run, alpha, 0.2, 0.05)
    # Five standard errors; the largest is 5 sqrt(0.25 / 50000) = 0.0112.
    error = 5 * math.sqrt(p * (1 - p) / trials)
    assert branched / trials == pytest.approx(p, abs=error + 1e-9)


@pytest.mark.parametrize(
    ("size", "root", "tool", "fresh"),
    [
        (16, 1, 0.4, 10),  # 16 sigmoid(0.3) = 9.19
        (16, 1, 1, 9),  # 16 / 2 = 8
        (16, 0.2, 3, 4),  # 16 sigmoid(-1.4) = 3.17
        (12, 0.5, 0.5, 7),  # 6
        (12, 9, 0, 12),  # 12 sigmoid(4.5) = 11.87
        (1, 0.5, 0.5, 1),  # never more than there are
    ],
)
def test_the_less_the_environment_tells_the_more_rollouts_begin_fresh(
    size: int, root: float, tool: float, fresh: int
) -> None:
    assert fresh_rollouts(size, root, tool, 0.5) == fresh


@pytest.mark.parametrize(("root", "tool", "fresh"), [(0.1, 8, 1), (8, 0.1, 16)])
def test_a_great_sensitivity_makes_the_budget_a_switch(root, tool, fresh) -> None:
    assert fresh_rollouts(16, root, tool, 100) == fresh  # 16 sigmoid(-+790)


def test_a_run_ends_where_a_turn_did_not_branch() -> None:
    assert run_before(5, {2, 3, 4}) == 3
    assert run_before(5, {2, 4}) == 1
    assert run_before(5, {3, 5}) == 0
    assert run_before(0, {0}) == 0
    assert run_before(2, {0, 1}) == 2
