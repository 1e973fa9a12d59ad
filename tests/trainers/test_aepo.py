"""AEPO as a method: the budget, runs of branchings, live gradients, credit for entropy."""

import pytest
import torch

from agentgym.trainers.aepo import AEPOOptions, AEPOPlan, entropy_factor
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Need
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain
from agentgym.types import PILOT, Key

NEUTRAL = {
    "budget": "fixed",
    "initial": 8,
    "alpha": 0.0,
    "weight": 0.0,
    "entropy_weight": 0.0,
    "clip_high_gradient": "stop",
}


def chain(**settings: object):
    return build_chain({"name": "aepo", **settings}, steps=10)


def plan(group_size: int = 16, **options: object) -> AEPOPlan:
    return AEPOPlan(AEPOOptions(**options), group_size, "0:1")


# The budget -----------------------------------------------------------------------------------


def test_a_pilot_is_played_first_and_says_how_many_rollouts_begin_fresh() -> None:
    made = plan(16, vocabulary=3, pool="mean")
    (pilot,) = made.fresh("t")
    assert pilot == Key("t", PILOT)
    nats = 1.0986122886681098  # ln 3, so that these are H = 0.2, then 3.0 on average
    for turn, h in enumerate((0.2, 2.0, 4.0)):
        assert made.looks(pilot, turn)
        assert made.branches(pilot, turn, [h * nats]) == ()
    assert len(made.fresh("t")) == 4  # int(16 sigmoid(0.5 (0.2 - 3.0))) + 1 = int(3.17) + 1
    assert len(made.fresh("t")) == 12


@pytest.mark.parametrize("turns", [(), (1.0,)])
def test_a_pilot_that_was_told_nothing_leaves_it_at_half(turns: tuple[float, ...]) -> None:
    made = plan(16)
    (pilot,) = made.fresh("t")
    for turn, h in enumerate(turns):
        made.branches(pilot, turn, [h])
    assert len(made.fresh("t")) == 9  # int(16 / 2) + 1


def test_a_fixed_budget_plays_no_pilot() -> None:
    assert plan(16, budget="fixed").fresh("t") == [Key("t", member) for member in range(8)]


# Branchings in a row --------------------------------------------------------------------------


STEEP = {"budget": "fixed", "penalty": 0.3, "alpha": 1.0, "weight": 0.0}
"""P = 1 - 0.3 run exceeds 0.5 at runs of 0 and 1."""


def branched(made: AEPOPlan, key: Key, turns: range) -> list[bool]:
    return [bool(made.branches(key, turn, [1.0])) for turn in turns]


def test_branching_in_a_row_costs_and_a_pause_forgives() -> None:
    made = plan(100, **STEEP)
    (key, *_) = made.fresh("t")
    # The first turn is never a place to branch.
    assert branched(made, key, range(7)) == [False, True, True, False, True, True, False]


def test_a_branch_inherits_the_run_and_other_rollouts_do_not() -> None:
    made = plan(100, **STEEP)
    one, other, *_ = made.fresh("t")
    assert made.branches(one, 0, [1.0]) == made.branches(other, 0, [1.0]) == ()
    (branch,) = made.branches(one, 1, [1.0])
    assert branched(made, branch, range(2, 4)) == [True, False]
    assert branched(made, other, range(2, 4)) == [True, True]


def test_the_released_run_is_of_all_rollouts_of_the_task() -> None:
    made = plan(100, **STEEP, run_of="task")
    one, other, *_ = made.fresh("t")
    assert branched(made, one, range(3)) == [False, True, True]
    assert made.branches(other, 0, [1.0]) == ()
    assert branched(made, other, range(3, 4)) == [False]


# The clip -------------------------------------------------------------------------------------


def test_it_keeps_the_gradient_above_the_clip_unless_told_otherwise() -> None:
    assert chain().options()["grpo"]["clip_high_gradient"] == "keep"
    stopped = chain(clip_high_gradient="stop").options()
    assert stopped["grpo"]["clip_high_gradient"] == "stop"
    assert build_chain({}, steps=10).options()["grpo"]["clip_high_gradient"] == "stop"
    released = build_chain({"name": "aepo:released"}, steps=10).options()
    assert released["grpo"]["clip_high_gradient"] == "keep"


# Credit for entropy ---------------------------------------------------------------------------


def factor(entropies: list[float], weight: float = 0.2) -> list[float]:
    entropy_BT = torch.tensor([entropies], dtype=torch.float64)
    return entropy_factor(entropy_BT, torch.ones_like(entropy_BT), weight)[0].tolist()


def test_credit_grows_with_entropy_in_deviations_from_the_mean() -> None:
    # Mean 0.5, unbiased deviation sqrt((0.09 + 0.01 + 0.16) / 2) = 0.360555;
    # z = -0.832050, -0.277350, 1.109400; 1 + 0.2 z:
    found = factor([0.2, 0.4, 0.9])
    assert found == pytest.approx([0.833590, 0.944530, 1.221880], abs=1e-6)
    assert sum(found) / 3 == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("entropies", [[0.3] * 7, [0.1 + 0.2, 0.3, 0.3], [0.7]])
def test_equal_entropies_change_nothing(entropies: list[float]) -> None:
    assert factor(entropies) == [1.0] * len(entropies)


def test_an_advantage_never_turns_its_sign() -> None:
    # One token of 0 among 100 of 1: z = -(100 / 101) / sqrt(1 / 101) = -9.950372, and without a
    # guard 1 + 0.2 z = -0.990074.
    found = factor([0.0] + [1.0] * 100)
    assert found[0] == 0
    assert all(1 < f < 1.1 for f in found[1:])


def test_tokens_that_were_not_sampled_count_for_nothing() -> None:
    entropy_BT = torch.tensor([[0.2, 99.0, 0.4], [0.9, -5.0, 7.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[1.0, 0, 1], [1, 0, 0]])
    found = entropy_factor(entropy_BT, mask_BT, 0.2)
    expected = torch.tensor([[0.833590, 1, 0.944530], [1.221880, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def updated(make_model, batch, settings: dict[str, object], options: OptimOptions | None = None):
    """Take a step; return the weights after it, the batch that was learnt from, and metrics."""
    method = build_chain(settings, steps=4)
    model = make_model()
    learner = Learner(model, options or OptimOptions(lr=1e-2), 4, method.needs)
    batch = method.advantages(learner.prepare(batch, 1.0), 1)
    batch, metrics = learner.update(batch, method, 1)
    return model.state_dict(), batch, metrics


def test_the_credit_acts_though_no_entropy_is_in_the_loss(make_model, two_groups) -> None:
    assert Need.ENTROPY in chain().needs
    plain_weights, plain, _ = updated(make_model, two_groups, {"name": "grpo"})
    weights, balanced, metrics = updated(make_model, two_groups, {"name": "aepo"})
    sampled_BT = two_groups.mask_BT.bool() & (plain.advantage_BT != 0)
    ratio_S = (balanced.advantage_BT / plain.advantage_BT)[sampled_BT]
    expected_BT = entropy_factor(balanced.entropy_BT, two_groups.mask_BT, 0.2)
    torch.testing.assert_close(ratio_S, expected_BT[sampled_BT].to(ratio_S))
    assert ratio_S.max() > 1.1
    assert ratio_S.min() < 0.9
    assert metrics["aepo/factor_max"] == pytest.approx(ratio_S.max().item(), rel=1e-5)
    assert metrics["aepo/held"] == 0
    assert any(not torch.equal(weights[name], plain_weights[name]) for name in weights)


def test_the_credit_is_of_the_whole_batch_however_it_is_cut(make_model, two_groups) -> None:
    _, whole, _ = updated(make_model, two_groups, {"name": "aepo"})
    _, cut, _ = updated(
        make_model, two_groups, {"name": "aepo"}, OptimOptions(lr=1e-2, micro_batch_tokens=16)
    )
    torch.testing.assert_close(cut.advantage_BT, whole.advantage_BT, atol=1e-12, rtol=0)


# Neutral --------------------------------------------------------------------------------------


def test_switched_off_it_is_bitwise_grpo(make_model, two_groups) -> None:
    method = chain(**NEUTRAL)
    assert method.links[-1].needs == Need.NOTHING
    assert method.collect(8, "0:1", 1) is None
    assert method.links[-1].advantages(two_groups, 1) is two_groups
    ours, _, _ = updated(make_model, two_groups, {"name": "aepo", **NEUTRAL})
    theirs, _, _ = updated(make_model, two_groups, {"name": "grpo"})
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_released_has_neither_budget_nor_credit_for_entropy() -> None:
    method = build_chain({"name": "aepo:released"}, steps=10)
    options = method.options()["aepo"]
    assert options["budget"] == "fixed"
    assert options["entropy_weight"] == 0
    assert (options["form"], options["run_of"]) == ("released", "task")
    assert (options["decision"], options["timing"], options["top_k"]) == ("draw", "before", 10)
    assert Need.ENTROPY not in method.needs
