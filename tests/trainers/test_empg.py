"""EMPG by hand: k = k' = 1 and zeta = .05 on two trajectories of three and two steps.

A = +1 with step entropies .2, .5, 1 and A = -1 with .6, .4. So h = 0, .375, 1 and .5, .25;
exp(-h) = 1, .687289, .367879, .606531, .778801, of mean .688100.
"""

import math

import pytest
import torch
from torch import Tensor

from agentgym.errors import UsageError
from agentgym.trainers.batch import Batch
from agentgym.trainers.empg import EMPG, EMPGOptions, Modulation, modulate
from agentgym.trainers.logprobs import token_logprobs
from agentgym.trainers.method import Need
from agentgym.trainers.registry import build_chain

H = [[0.2, 0.5, 1.0], [0.6, 0.4]]
STEPS_NK = torch.tensor([[True, True, True], [True, True, False]])
THERE = STEPS_NK.flatten().nonzero()[:, 0]


def grid(first: list[float], second: list[float]) -> Tensor:
    """Lay five values on the steps; what is no step holds a value that must not count."""
    return torch.tensor([first, [*second, 99.0]], dtype=torch.float64)


def options(**changes) -> EMPGOptions:
    return EMPGOptions(**{"zeta": 0.05} | changes)


def found(advantages: tuple[float, float], entropies=H, **changes) -> list[float]:
    """Return A_final of the five steps."""
    advantage_NK = grid([advantages[0]] * 3, [advantages[1]] * 2)
    result = modulate(advantage_NK, grid(*entropies), STEPS_NK, options(**changes))
    return (advantage_NK * result.scale_NK + result.added_NK).flatten()[THERE].tolist()


def by_hand(*values: float):
    return pytest.approx(list(values), abs=1e-6)


def test_scale_bonus_and_centring_by_hand() -> None:
    advantage_NK = grid([1, 1, 1], [-1, -1])
    result = modulate(advantage_NK, grid(*H), STEPS_NK, options())
    scale = result.scale_NK.flatten()[THERE].tolist()
    # exp(-h) / .688100; mean 1
    assert scale == by_hand(1.453277, 0.998822, 0.534631, 0.881457, 1.131813)
    assert [-math.log(g / max(scale)) for g in scale] == by_hand(0, 0.375, 1, 0.5, 0.25)  # h
    assert sum(scale) / 5 == pytest.approx(1, abs=1e-12)
    # A g + .05 exp(-h of the next); nothing for the last of a trajectory
    before = (advantage_NK * result.scale_NK + result.bonus_NK).flatten()[THERE].tolist()
    assert before == by_hand(1.487642, 1.017216, 0.534631, -0.842517, -1.131813)
    # less their mean, .213032
    final = found((1, -1))
    assert final == by_hand(1.274610, 0.804184, 0.321599, -1.055549, -1.344845)
    assert sum(final) == pytest.approx(0, abs=1e-12)


def test_what_is_no_step_is_ignored_and_gets_nothing() -> None:
    result = modulate(grid([1, 1, 1], [-1, -1]), grid(*H), STEPS_NK, options())
    for values_NK in (result.scale_NK, result.bonus_NK, result.added_NK):
        assert values_NK[1, 2] == 0


def test_shifting_and_scaling_all_entropies_changes_nothing() -> None:
    moved = [[3 * h + 7 for h in row] for row in H]
    assert found((1, -1), moved) == pytest.approx(found((1, -1)), abs=1e-7)  # but for eps


def test_equal_entropies_leave_the_bonus_alone() -> None:
    # g = f = 1: 1.05, 1.05, 1, -.95, -1 of mean .23
    equal = [[0.5] * 3, [0.5] * 2]
    assert found((1, -1), equal) == by_hand(0.82, 0.82, 0.77, -1.18, -1.23)


def test_groups_without_a_signal_get_the_bonus_too() -> None:
    # .05 exp(-h): .034364, .018394, 0, .038940, 0 of mean .018340
    assert found((0, 0)) == by_hand(0.016025, 0.000054, -0.018340, 0.020600, -0.018340)


def test_without_scale_and_bonus_it_is_the_base_less_its_mean_over_steps() -> None:
    # (3 - 2) / 5 = .2
    assert found((1, -1), k=0, zeta=0) == by_hand(0.8, 0.8, 0.8, -1.2, -1.2)


def test_the_squared_norm_of_the_score_is_what_it_works_against() -> None:
    # 1 - (.49 + .04 + .01) = .46, by the gradient itself
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    expected = 0.0
    for action in range(3):
        logits = p.log()[None].requires_grad_()
        logprob, _ = token_logprobs(logits, torch.eye(3).double(), None, torch.tensor([action]))
        (slope,) = torch.autograd.grad(logprob.sum(), logits)
        expected += float(p[action] * slope.square().sum())
    assert expected == pytest.approx(0.46, abs=1e-12)


def test_the_shift_can_rule_a_small_advantage() -> None:
    expected = by_hand(0.435797, 0.410738, 0.383060, -0.470150, -0.759446)
    assert found((0.02, -1)) == expected
    assert all(final < 0 for final in found((0.02, 1))[:3])


def test_each_step_is_scaled_by_its_own_factor_only() -> None:
    scale_NK = modulate(grid([1] * 3, [-1] * 2), grid(*H), STEPS_NK, options()).scale_NK
    product = math.prod(scale_NK.flatten()[THERE].tolist())
    assert product == pytest.approx(0.774223, abs=1e-6)
    assert not any(abs(g - product) < 1e-3 for g in scale_NK.flatten()[THERE].tolist())


@pytest.mark.parametrize("k", [0.5, 1.0, 2.0])
def test_the_scales_are_bounded_by_e_to_the_k(k) -> None:
    scale_NK = modulate(grid([1] * 3, [1] * 2), grid(*H), STEPS_NK, options(k=k)).scale_NK
    scale_S = scale_NK.flatten()[THERE]
    assert float(scale_S.max() / scale_S.min()) == pytest.approx(math.exp(k), abs=1e-6)


def test_a_batch_without_steps_is_left_alone() -> None:
    nothing_NK = torch.zeros(2, 3, dtype=torch.float64)
    result = modulate(nothing_NK, nothing_NK, nothing_NK.bool(), options())
    assert isinstance(result, Modulation)
    assert not result.added_NK.any()


# In a batch --------------------------------------------------------------------------------------

LENGTHS = [(2, 1, 4), (1, 1)]  # tokens of the steps


@pytest.fixture
def make_scored(make_trajectory, make_batch):
    """Build the two trajectories with A = +1 and -1 and tokens whose entropies have means H.

    Tokens that the policy did not say have an entropy and an advantage that must not count.
    """

    def make(layout: str = "full") -> Batch:
        batch = make_batch(
            [make_trajectory("t", i, shape, layout=layout) for i, shape in enumerate(LENGTHS)]
        )
        entropy_BT = torch.full(batch.mask_BT.shape, 50.0, dtype=torch.float64)
        advantage_BT = torch.zeros_like(entropy_BT)
        for n, row in enumerate(H):
            for k, mean in enumerate(row):
                cells = (batch.trajectory_B[:, None] == n) & (batch.turn_BT == k)
                spread = torch.linspace(-0.1, 0.1, LENGTHS[n][k]).double()
                entropy_BT[cells] = mean + spread - spread.mean()
                advantage_BT[cells] = 1.0 - 2 * n
        return batch.with_(entropy_BT=entropy_BT, advantage_BT=advantage_BT)

    return make


def empg(**changes) -> EMPG:
    return EMPG(options(**changes), 1)


@pytest.mark.parametrize("layout", ["full", "window"])
def test_every_token_of_a_step_has_its_steps_credit_and_others_none(layout, make_scored) -> None:
    batch = make_scored(layout)
    advantage_BT = empg().advantages(batch, 1).advantage_BT
    # as above, on 2, 1, 4 and 1, 1 tokens
    steps = [1.274610] * 2 + [0.804184] + [0.321599] * 4 + [-1.055549, -1.344845]
    assert advantage_BT[batch.mask_BT > 0].tolist() == by_hand(*steps)
    assert not advantage_BT[batch.mask_BT == 0].any()


def test_over_tokens_a_bias_is_left(make_scored) -> None:
    # (2 x 1.274610 + .804184 + 4 x .321599 - 1.055549 - 1.344845) / 9
    batch = make_scored()
    advantage_BT = empg().advantages(batch, 1).advantage_BT
    assert advantage_BT[batch.mask_BT > 0].mean().item() == pytest.approx(0.248823, abs=1e-6)


def test_the_entropy_of_a_step_is_the_mean_over_the_policys_tokens(make_scored) -> None:
    method, batch = empg(), make_scored()
    method.advantages(batch, 1)
    assert method.metrics(1)["empg/entropy_min"] == pytest.approx(0.2)
    assert method.metrics(1)["empg/entropy_max"] == pytest.approx(1.0)  # not the 50 of the rest


def test_the_log_says_that_it_acts(make_scored) -> None:
    method = empg()
    method.advantages(make_scored(), 1)
    metrics = method.metrics(1)
    assert metrics["empg/scale_max"] == pytest.approx(1.453277, abs=1e-6)
    assert metrics["empg/scale_min"] == pytest.approx(0.534631, abs=1e-6)
    # .034364 + .018394 + 0 + .038940 + 0
    assert metrics["empg/bonus"] == pytest.approx(0.018340, abs=1e-6)
    assert metrics["empg/flipped"] == 0


def test_the_log_says_how_often_the_shift_turned_a_sign(make_scored) -> None:
    # A = .02 and 1: all steps of the first end below 0
    batch = make_scored()
    small_BT = torch.where(batch.advantage_BT > 0, 0.02, -batch.advantage_BT)
    method = empg()
    method.advantages(batch.with_(advantage_BT=small_BT * batch.mask_BT), 1)
    assert method.metrics(1)["empg/flipped"] == pytest.approx(3 / 5)


def test_a_credit_that_differs_between_tokens_keeps_its_differences(make_scored) -> None:
    batch = make_scored()
    uneven_BT = batch.advantage_BT * torch.linspace(0.5, 1.5, batch.mask_BT.shape[1]).double()
    method = empg(k=0, zeta=0)
    found_BT = method.advantages(batch.with_(advantage_BT=uneven_BT), 1).advantage_BT
    shift_M = (uneven_BT - found_BT)[batch.mask_BT > 0]
    assert shift_M.tolist() == pytest.approx([shift_M[0].item()] * len(shift_M))


def test_neutral_it_needs_nothing_and_returns_the_batch_itself(make_scored) -> None:
    batch, method = make_scored(), empg(k=0, zeta=0, centre=False)
    assert method.advantages(batch, 1) is batch
    assert method.needs is Need.NOTHING
    assert method.metrics(1) == {}
    assert empg().needs is Need.ENTROPY


def test_it_stands_on_grpo_and_on_dapo() -> None:
    for base in ("grpo", "dapo"):
        chain = build_chain({"name": "empg", "base": base, "clip_high": 0.3, "k": 2}, 1)
        assert [link.name for link in chain.links] == [base, "empg"]
        assert chain.options()[base]["clip_high"] == 0.3
        assert chain.options()["empg"]["k"] == 2
    with pytest.raises(UsageError, match="unknown base of empg 'drgrpo'; did you mean grpo"):
        build_chain({"name": "empg", "base": "drgrpo"}, 1)


def test_there_is_no_released_preset_and_it_says_why() -> None:
    with pytest.raises(UsageError, match="no empg:released: no official code was released"):
        build_chain({"name": "empg:released"}, 1)
