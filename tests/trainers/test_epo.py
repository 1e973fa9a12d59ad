import json
import math

import pytest
import torch
from torch import Tensor

from agentgym.trainers.aggregate import Aggregation
from agentgym.trainers.batch import Batch
from agentgym.trainers.describe import describe
from agentgym.trainers.epo import EPO, EPOOptions
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Forward, Loss, MiniBatchWeights, Need, Term
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain

STEPS = 150


def epo(history: dict[str, list[float]] | None = None, **options: object) -> EPO:
    """Build EPO; ``history`` gives the sum and count of each turn index."""
    method = EPO(EPOOptions(**options), STEPS)
    turns = history or {}
    overall = [sum(s for s, _ in turns.values()), sum(n for _, n in turns.values())]
    method.load_state({"turns": turns, "overall": overall})
    return method


def with_entropies(batch: Batch, per_trajectory: list[list[float]]) -> Batch:
    """Give the policy's tokens entropies, trajectory by trajectory, in order."""
    entropy_BT = torch.zeros(batch.mask_BT.shape, dtype=torch.float64)
    for n, values in enumerate(per_trajectory):
        cells_BT = (batch.trajectory_B[:, None] == n) & (batch.mask_BT > 0)
        entropy_BT[cells_BT] = torch.tensor(values, dtype=torch.float64)
    return batch.with_(entropy_BT=entropy_BT)


def loss_of(method: EPO, batch: Batch, step: int = 1) -> tuple[Loss, Tensor]:
    """Return EPO's terms with the batch's entropies as the current ones, and those entropies."""
    method.prepare(batch, step)
    entropy_BT = batch.entropy_BT.clone().requires_grad_()
    rows = torch.arange(len(batch.mask_BT))
    weights = MiniBatchWeights(batch)
    return method.loss(
        Forward(batch, entropy_BT, entropy_BT, step, weights, rows), Loss()
    ), entropy_BT


@pytest.fixture
def one_turn(make_trajectory, make_batch) -> Batch:
    """One trajectory of one turn with entropies .9 and 1.5."""
    return with_entropies(make_batch([make_trajectory("t", 0, (2,))]), [[0.9, 1.5]])


def test_the_whole_loss_by_hand(one_turn) -> None:
    # mean entropy 1.2; bound 2 x .45 = .9, penalties 0 and .6, mean .3, times alpha .1 = .03;
    # beta is 2 at first: .5 - .001 (1.2 - 2 x .03) = .49886
    loss, _ = loss_of(epo({"0": [0.45, 1]}), one_turn)
    base = Term(torch.tensor([[0.5]]).double(), torch.tensor([[1.0]]).double())
    assert loss.terms["entropy"].value.item() == pytest.approx(-0.0012)
    assert loss.terms["smooth"].value.item() == pytest.approx(0.001 * 2 * 0.03)
    assert loss.with_term("policy", base).total().item() == pytest.approx(0.49886, abs=1e-12)
    assert loss.metrics["epo/outside"].item() == 0.5
    assert loss.metrics["epo/entropy"].item() == pytest.approx(1.2)


def test_the_penalty_has_a_gradient_where_it_acts_and_only_there(one_turn) -> None:
    loss, entropy_BT = loss_of(epo({"0": [0.5, 1]}), one_turn)  # bound 1
    (slope_BT,) = torch.autograd.grad(loss.terms["smooth"].value, entropy_BT)
    found = slope_BT[one_turn.mask_BT > 0].tolist()
    assert found == pytest.approx([0, 0.001 * 2 * 0.1 / 2])  # lambda beta alpha, mean of two


def test_below_the_lower_bound_the_penalty_raises_entropy(one_turn) -> None:
    method = epo({"0": [2.0, 1]}, kappa_low=0.5)  # bounds 1 and 4
    loss, entropy_BT = loss_of(method, one_turn)
    (slope_BT,) = torch.autograd.grad(loss.terms["smooth"].value, entropy_BT)
    assert slope_BT[one_turn.mask_BT > 0].tolist() == pytest.approx([-0.0001, 0])


def test_the_indicator_changes_the_loss_and_trains_nothing(one_turn) -> None:
    loss, _ = loss_of(epo({"0": [0.5, 1]}, penalty="indicator"), one_turn)
    assert loss.terms["smooth"].value.item() == pytest.approx(0.001 * 2 * 0.1 * 0.5)
    assert not loss.terms["smooth"].value.requires_grad


def test_without_a_history_there_is_no_penalty(one_turn) -> None:
    for options in ({}, {"reference": "global"}, {"penalty": "indicator"}):
        loss, _ = loss_of(epo(**options), one_turn)
        assert loss.terms["smooth"].value.item() == 0
        assert loss.metrics["epo/outside"].item() == 0
        assert math.isfinite(loss.total().item())


def test_without_alpha_the_bonus_alone_is_left(one_turn) -> None:
    loss, _ = loss_of(epo({"0": [0.5, 1]}, alpha=0), one_turn)
    assert list(loss.terms) == ["entropy"]
    assert loss.metrics["epo/outside"].item() == 0.5  # still measured


def test_without_a_weight_nothing_is_needed_and_nothing_changes(one_turn) -> None:
    method, loss = epo(entropy_coef=0), Loss()
    forward = Forward(
        one_turn, torch.empty(0), torch.empty(0), 1, MiniBatchWeights(one_turn), torch.empty(0)
    )
    assert method.loss(forward, loss) is loss
    assert method.needs is Need.NOTHING
    assert epo().needs == Need.ENTROPY_GRADIENT
    assert epo(include_current=True).needs == Need.ENTROPY | Need.ENTROPY_GRADIENT


def test_each_turn_has_its_own_reference_unless_it_is_global(make_trajectory, make_batch) -> None:
    batch = with_entropies(make_batch([make_trajectory("t", 0, (1, 1, 1))]), [[1.0, 1.0, 1.0]])
    history = {"0": [0.4, 1], "1": [0.6, 1]}  # bounds .8 and 1.2; turn 2 was never seen
    loss, _ = loss_of(epo(history, entropy_coef=1.0, alpha=1.0), batch)
    assert loss.terms["smooth"].value.item() == pytest.approx(2 * 0.2 / 3)
    loss, _ = loss_of(epo(history, entropy_coef=1.0, alpha=1.0, reference="global"), batch)
    assert loss.terms["smooth"].value.item() == pytest.approx(0)  # bound 2 x .5 for all


def test_the_reference_is_of_earlier_steps_unless_the_current_one_is_included(one_turn) -> None:
    # Steps of mean entropy 1.0 and .8 before, .6 now: .9 without it, .8 with it.
    now = with_entropies(one_turn, [[0.6, 0.6]])
    for include, expected in ((False, 0.9), (True, 0.8)):
        method = epo(include_current=include)
        for earlier in (1.0, 0.8):
            method.observe(with_entropies(one_turn, [[earlier, earlier]]), 1)
        method.prepare(now, 3)
        assert method._reference_K.tolist() == pytest.approx([expected])


def test_the_mean_is_nested_or_over_tokens(make_trajectory, make_batch) -> None:
    # turns (1, 3), (2) and (4): nested 3, over tokens 2.5
    batch = make_batch([make_trajectory("t", 0, (2, 1)), make_trajectory("t", 1, (1,))])
    batch = with_entropies(batch, [[1, 3, 2], [4]])
    for mode, expected in ((Aggregation.NESTED, 3.0), (Aggregation.TOKEN_MEAN, 2.5)):
        loss, _ = loss_of(epo(entropy_aggregation=mode, entropy_coef=1.0), batch)
        assert loss.terms["entropy"].value.item() == pytest.approx(-expected)


@pytest.mark.parametrize(
    ("schedule", "step", "beta"),
    [("paper", 1, 2.0), ("paper", 76, 1.049787), ("code", 77, 0.768632), ("none", 77, 1.0)],
)
def test_the_schedule_counts_steps_done(schedule, step, beta) -> None:
    assert epo(schedule=schedule).metrics(step)["epo/beta"] == pytest.approx(beta, abs=1e-6)


def test_the_log_says_what_the_corridor_leaves_of_the_bonus() -> None:
    assert epo().metrics(1)["epo/bonus_above"] == pytest.approx(1 - 2 * 0.1)
    assert epo(alpha=2.0).metrics(1)["epo/bonus_above"] == pytest.approx(-3)
    assert epo(penalty="indicator").metrics(1)["epo/bonus_above"] == 1


@pytest.mark.parametrize(("name", "sign"), [("epo", 1), ("epo:restoring", -1)])
def test_only_the_restoring_preset_pushes_entropy_back(name, sign, one_turn) -> None:
    method = build_chain({"name": name}, STEPS).links[-1]
    method.load_state({"turns": {"0": [0.4, 1]}, "overall": [0.4, 1]})  # both tokens are above .8
    for step in (1, STEPS):
        loss, entropy_BT = loss_of(method, one_turn, step)
        (slope_BT,) = torch.autograd.grad(loss.total(), entropy_BT)
        # Descending the loss raises entropy where the slope is negative.
        assert (slope_BT[one_turn.mask_BT > 0] * -sign > 0).all()


def test_the_released_preset_trains_the_bonus_alone(one_turn) -> None:
    method = build_chain({"name": "epo:released"}, STEPS).links[-1]
    loss, entropy_BT = loss_of(method, one_turn)
    (slope_BT,) = torch.autograd.grad(loss.total(), entropy_BT)
    assert slope_BT[one_turn.mask_BT > 0].tolist() == pytest.approx([-0.0005] * 2)


def test_the_history_grows_by_each_step_and_survives_json(one_turn) -> None:
    method = epo()
    method.observe(one_turn, 1)
    method.observe(one_turn, 2)
    assert method.state() == {"turns": {"0": [2.4, 2]}, "overall": [2.4, 2]}
    other = epo()
    other.load_state(json.loads(json.dumps(method.state())))
    assert other.state() == method.state()


def test_replayed_turns_beyond_the_steps_longest_have_no_penalty(
    make_trajectory, make_batch, one_turn
) -> None:
    method = epo({"0": [0.5, 1]})
    method.prepare(one_turn, 1)
    longer = make_batch([make_trajectory("t", 0, (1, 1, 1, 1))])
    entropy_BT = torch.full(longer.mask_BT.shape, 3.0)
    weights, rows = MiniBatchWeights(longer), torch.arange(1)
    loss = method.loss(Forward(longer, entropy_BT, entropy_BT, 1, weights, rows), Loss())
    # turn 0: 3 - 1, one of four turns
    assert loss.terms["smooth"].value.item() == pytest.approx(0.001 * 2 * 0.1 * 2 / 4)


# Through the learner ------------------------------------------------------------------------------


def run_two_steps(model, batch: Batch, settings: dict[str, object]) -> dict[str, float]:
    chain = build_chain(settings, STEPS)
    learner = Learner(
        model, OptimOptions(lr=1e-3, warmup=0, micro_batch_tokens=50), STEPS, chain.needs
    )
    for step in (1, 2):
        scored = chain.advantages(learner.score(batch, 1.0), step)
        _, metrics = learner.update(scored, chain, step)
        chain.observe(scored, step)
    return metrics


def test_the_corridor_acts_in_training_and_its_own_gradient_is_logged(
    make_model, two_groups
) -> None:
    settings = {"name": "epo", "kappa_high": 0.9, "log_every": 1}
    metrics = run_two_steps(make_model(), two_groups, settings)
    assert 0 < metrics["epo/outside"] < 1
    assert metrics["loss/smooth"] > 0
    assert metrics["optim/grad_norm/smooth"] > 1e-6
    indicator = run_two_steps(make_model(), two_groups, {**settings, "penalty": "indicator"})
    assert indicator["loss/smooth"] > 0
    assert indicator["optim/grad_norm/smooth"] == 0


def test_the_logged_norm_is_of_the_whole_mini_batchs_gradient(make_model, two_groups) -> None:
    # With the corridor as its only weighty term, the step's gradient is the penalty's own.
    settings = {"name": "epo", "kappa_high": 0.9, "log_every": 1, "alpha": 1e9}
    metrics = run_two_steps(make_model(), two_groups, settings)
    expected = pytest.approx(metrics["optim/grad_norm"], rel=1e-6)
    assert metrics["optim/grad_norm/smooth"] == expected


def test_the_norm_is_logged_every_so_many_steps(make_model, two_groups) -> None:
    metrics = run_two_steps(make_model(), two_groups, {"name": "epo", "log_every": 2})
    assert "loss/smooth" in metrics
    assert "optim/grad_norm/smooth" not in metrics


def test_the_bonus_alone_is_the_bases_own_entropy_bonus(make_model, two_groups) -> None:
    arms = (
        {"name": "epo", "alpha": 0, "entropy_coef": 0.1, "entropy_aggregation": "token-mean"},
        {"name": "grpo", "entropy_coef": 0.1},
    )
    found = []
    for settings in arms:
        model = make_model()
        run_two_steps(model, two_groups, settings)
        found.append([p.detach() for p in model.parameters()])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


def test_the_bonus_raises_entropy(make_model, two_groups) -> None:
    def entropy_after(coefficient: float) -> float:
        model = make_model()
        chain = build_chain({"name": "epo", "entropy_coef": coefficient, "alpha": 0}, 5)
        learner = Learner(model, OptimOptions(lr=1e-2, warmup=0), 5, chain.needs)
        for step in range(1, 6):
            learner.update(chain.advantages(learner.score(two_groups, 1.0), step), chain, step)
        return learner.score(two_groups, 1.0).entropy_BT[two_groups.mask_BT > 0].mean().item()

    assert entropy_after(1.0) > entropy_after(0.0) + 0.1


# What it is compared with -------------------------------------------------------------------------


def expected_best(rate: float, evaluations: int, episodes: int) -> float:
    """Return the mean of the largest of several success rates, each of so many episodes."""
    below, mean = 0.0, 0.0  # the chance that the largest has fewer wins, so far
    for won in range(episodes + 1):
        chances = (
            math.comb(episodes, n) * rate**n * (1 - rate) ** (episodes - n) for n in range(won + 1)
        )
        at_most = sum(chances) ** evaluations
        mean += won / episodes * (at_most - below)
        below = at_most
    return mean


def test_its_page_tells_how_far_the_published_statistic_is_above_the_true_rate() -> None:
    rates, best = ("0.4", "0.6", "0.8"), ("0.64", "0.83", "0.97")
    found = [f"{expected_best(float(rate), 25, 16):.2f}" for rate in rates]
    assert found == list(best)
    told = " ".join(describe("epo").text.split())
    assert "largest of about 25 evaluations of 16 episodes" in told
    assert f"stays at {rates[0]}, {rates[1]} or {rates[2]}" in told
    assert f"expected to be {best[0]}, {best[1]} or {best[2]}" in told
