import copy
import itertools
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from agentgym.errors import DivergedError, UsageError
from agentgym.trainers.aggregate import Aggregation
from agentgym.trainers.batch import Batch
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain, Forward, Loss, Method, Need, Options, Term
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain

STEPS = 10
METHODS = [
    pytest.param({"name": "grpo", "entropy_coef": 0.1, "aggregation": mode, "sum_norm": 9}, id=mode)
    for mode in Aggregation
] + [
    pytest.param({"name": "grpo", "kl_coef": 0.5}, id="kl"),
    pytest.param({"name": "epo", "entropy_coef": 0.1, "alpha": 2.0, "kappa_high": 0.5}, id="epo"),
]


class Recording(Method[Options]):
    """Remembers which rows it was asked about."""

    name = "recording"
    role = "base"

    def __init__(self) -> None:
        super().__init__(Options(), STEPS)
        self.seen: list[Forward] = []

    def loss(self, forward: Forward, loss: Loss) -> Loss:
        self.seen.append(forward)
        weight_BT = forward.weight_BT(Aggregation.TOKEN_MEAN)
        return loss.with_term("policy", Term(forward.logprob_BT, weight_BT))


class Extra(Method[Options]):
    """Adds a term, or replays a batch."""

    name = "extra"

    def __init__(
        self,
        of_logprob: Callable[[Tensor], Tensor] | None = None,
        replayed: list[tuple[Batch, float]] | None = None,
    ) -> None:
        super().__init__(Options(), STEPS)
        self._of_logprob, self._replayed = of_logprob, replayed or []

    def loss(self, forward: Forward, loss: Loss) -> Loss:
        if self._of_logprob is None:
            return loss
        weight_BT = forward.weight_BT(Aggregation.TOKEN_MEAN)
        return loss.with_term("extra", Term(self._of_logprob(forward.logprob_BT), weight_BT))

    def replay(self, step: int) -> list[tuple[Batch, float]]:
        return self._replayed


def with_link(chain: Chain, link: Method[Options]) -> Chain:
    return Chain(chain.name, [*chain.links, link])


def learner_of(model: nn.Module, chain: Chain, **options: object) -> Learner:
    settings = {"lr": 1e-2, "warmup": 0, "weight_decay": 0.1} | options
    return Learner(model, OptimOptions(**settings), STEPS, chain.needs)


def take_step(learner: Learner, chain: Chain, batch: Batch, step: int = 1) -> dict[str, float]:
    batch = chain.advantages(learner.prepare(batch, 0.8), step)
    batch, metrics = learner.update(batch, chain, step)
    chain.observe(batch, step)
    return metrics


def gradient(model: nn.Module, settings: dict[str, object], batch: Batch, **options: object):
    """Return the second step's gradient (the first fills histories) and its metrics."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():

        def keep(p: Tensor, name: str = name) -> None:
            assert p.grad is not None
            found[name] = p.grad.clone()

        parameter.register_post_accumulate_grad_hook(keep)
    chain = build_chain(settings, STEPS)
    learner = learner_of(model, chain, lr=1e-3, **options)
    take_step(learner, chain, batch, 1)
    metrics = take_step(learner, chain, batch, 2)
    assert metrics["optim/grad_norm"] > 1e-3
    return found, metrics


def assert_same(found: tuple, other: tuple, tolerance: float = 1e-12) -> None:
    for name, ours in found[0].items():
        torch.testing.assert_close(ours, other[0][name], rtol=0, atol=tolerance)
    for name, value in found[1].items():
        assert other[1][name] == pytest.approx(value, abs=tolerance), name


# What must change nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("settings", METHODS)
def test_splitting_into_other_micro_batches_changes_nothing(
    settings, make_model, two_groups
) -> None:
    whole = gradient(make_model(), settings, two_groups, micro_batch_tokens=10_000)
    for tokens in (1, 50):
        split = gradient(make_model(), settings, two_groups, micro_batch_tokens=tokens)
        assert_same(whole, split)


def test_in_float32_it_changes_only_the_last_digits(make_model, two_groups) -> None:
    settings = {"name": "epo", "entropy_coef": 0.1}
    whole, split = (
        gradient(make_model(torch.float32), settings, two_groups, micro_batch_tokens=tokens)
        for tokens in (10_000, 50)
    )
    assert_same(whole, split, tolerance=1e-5)


@pytest.mark.parametrize("settings", METHODS)
def test_permuting_rows_changes_nothing(settings, make_model, two_groups) -> None:
    order = torch.tensor([3, 0, 7, 2, 5, 1, 4, 6])
    plain = gradient(make_model(), settings, two_groups, micro_batch_tokens=50)
    permuted = gradient(make_model(), settings, two_groups.rows(order), micro_batch_tokens=50)
    assert_same(plain, permuted)


@pytest.mark.parametrize("settings", METHODS)
def test_padding_and_a_row_without_a_sampled_token_change_nothing(
    settings, make_model, two_groups
) -> None:
    plain = gradient(make_model(), settings, two_groups)
    assert_same(plain, gradient(make_model(), settings, padded(two_groups)))


def padded(batch: Batch) -> Batch:
    def pad(tensor: Tensor, fill: float) -> Tensor:
        return nn.functional.pad(tensor, (0, 3, 0, 1), value=fill)

    return batch.with_(
        ids_BT=pad(batch.ids_BT, 5),
        length_B=torch.cat([batch.length_B, torch.tensor([batch.ids_BT.shape[1] + 3])]),
        mask_BT=pad(batch.mask_BT, 0),
        turn_BT=pad(batch.turn_BT, -1),
        behaviour_logprob_BT=pad(batch.behaviour_logprob_BT, 0),
        trajectory_B=torch.cat([batch.trajectory_B, torch.tensor([0])]),
    )


@pytest.mark.parametrize("settings", METHODS)
def test_one_turn_trajectories_are_alike_in_both_layouts(
    settings, make_model, make_trajectory, make_batch
) -> None:
    full, window = (
        gradient(
            make_model(),
            settings,
            make_batch([make_trajectory("t", i, (i + 1,), i > 1, layout=layout) for i in range(4)]),
        )
        for layout in ("full", "window")
    )
    assert_same(full, window)


def test_the_mean_is_over_the_tokens_of_the_mini_batch_not_of_each_micro_batch(
    make_model, make_trajectory, make_batch
) -> None:
    # One token of loss 4, three of loss 0: 4 / 4 = 1; the mean of means would be 2.
    class Given(Recording):
        def loss(self, forward: Forward, loss: Loss) -> Loss:
            weight_BT = forward.weight_BT(Aggregation.TOKEN_MEAN)
            first_B1 = (forward.batch.trajectory_B == 0)[:, None]
            value_BT = 4.0 * first_B1 + 0 * forward.logprob_BT
            return loss.with_term("policy", Term(value_BT, weight_BT))

    batch = make_batch([make_trajectory("t", 0, (1,)), make_trajectory("t", 1, (3,))])
    chain = Chain("given", [Given()])
    metrics = take_step(learner_of(make_model(), chain, micro_batch_tokens=1), chain, batch)
    assert metrics["loss/policy"] == pytest.approx(1.0)


# What must be bitwise the base's ----------------------------------------------------------------


def weights_after(model: nn.Module, chain: Chain, batch: Batch, **options: object) -> list[Tensor]:
    learner = learner_of(model, chain, **options)
    for step in (1, 2):
        take_step(learner, chain, batch, step)
    return [p.detach().clone() for p in model.parameters()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_neutral_hooks_are_bitwise_grpo(make_model, two_groups) -> None:
    base = build_chain({"name": "grpo"}, STEPS)
    expected = weights_after(make_model(torch.float32), base, two_groups)
    neutral = with_link(with_link(base, Extra()), Extra())
    assert equal(weights_after(make_model(torch.float32), neutral, two_groups), expected)


def test_epo_without_a_weight_is_bitwise_its_base(make_model, two_groups) -> None:
    base = build_chain({"name": "grpo"}, STEPS)
    expected = weights_after(make_model(torch.float32), base, two_groups)
    epo = build_chain({"name": "epo", "entropy_coef": 0}, STEPS)
    assert equal(weights_after(make_model(torch.float32), epo, two_groups), expected)
    acting = build_chain({"name": "epo", "entropy_coef": 0.1}, STEPS)
    assert not equal(weights_after(make_model(torch.float32), acting, two_groups), expected)


def test_a_replay_of_weight_zero_is_bitwise_no_replay(make_model, two_groups) -> None:
    base = build_chain({"name": "grpo"}, STEPS)
    expected = weights_after(make_model(torch.float32), base, two_groups)
    model = make_model(torch.float32)
    scored = base.advantages(learner_of(model, base).score(two_groups, 0.8), 1)
    for weight, same in ((0.0, True), (0.5, False)):
        chain = with_link(base, Extra(replayed=[(scored, weight)]))
        found = weights_after(make_model(torch.float32), chain, two_groups)
        assert equal(found, expected) is same


def test_watching_a_term_leaves_the_update_as_it_is(make_model, two_groups) -> None:
    settings = {"name": "epo", "entropy_coef": 0.1, "alpha": 2.0, "kappa_high": 0.5}
    found = [
        weights_after(
            make_model(torch.float32),
            build_chain({**settings, "log_every": every}, STEPS),
            two_groups,
            micro_batch_tokens=50,
        )
        for every in (0, 1)
    ]
    assert equal(*found)


# Scores ------------------------------------------------------------------------------------------


def test_scores_come_back_in_the_order_of_the_rows(make_model, two_groups) -> None:
    model = make_model()
    chain = build_chain({}, STEPS)
    scored = learner_of(model, chain, micro_batch_tokens=30).score(two_groups, 0.8)
    expected = CausalLM(model).score(two_groups.ids_BT, two_groups.mask_BT, 0.8)
    torch.testing.assert_close(scored.old_logprob_BT, expected[0].detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(scored.entropy_BT, expected[1].detach(), rtol=0, atol=1e-12)
    assert scored.ref_logprob_BT is None
    assert not scored.old_logprob_BT.requires_grad


def test_a_row_that_begins_with_a_sampled_token_is_refused(make_model, two_groups) -> None:
    mask_BT = two_groups.mask_BT.clone()
    mask_BT[2, 0] = 1
    with pytest.raises(UsageError, match="row 2 begins"):
        learner_of(make_model(), build_chain({}, STEPS)).score(two_groups.with_(mask_BT=mask_BT), 1)


def test_the_first_update_of_a_step_has_ratio_one_and_later_ones_have_not(
    make_model, two_groups
) -> None:
    chain = build_chain({}, STEPS)
    metrics = take_step(learner_of(make_model(), chain), chain, two_groups)
    assert metrics["actor/ppo_kl"] == pytest.approx(0, abs=1e-12)
    metrics = take_step(learner_of(make_model(), chain, epochs=2), chain, two_groups)
    assert abs(metrics["actor/ppo_kl"]) > 1e-6


def test_the_reference_stays_where_the_model_began(make_model, two_groups) -> None:
    model = make_model()
    chain = build_chain({"kl_coef": 0.1}, STEPS)
    learner = learner_of(model, chain)
    first = take_step(learner, chain, two_groups, 1)
    second = take_step(learner, chain, two_groups, 2)
    assert first["actor/ref_kl"] == pytest.approx(0, abs=1e-12)
    assert second["actor/ref_kl"] > 1e-6
    began = learner_of(make_model(), build_chain({}, STEPS)).score(two_groups, 0.8)
    assert torch.equal(learner.score(two_groups, 0.8).ref_logprob_BT, began.old_logprob_BT)


def test_a_given_reference_is_used(make_model, two_groups) -> None:
    other = make_model(seed=1)
    learner = Learner(make_model(), OptimOptions(), STEPS, Need.REFERENCE, reference=other)
    expected = CausalLM(other).score(two_groups.ids_BT, two_groups.mask_BT, 0.8)[0]
    found = learner.score(two_groups, 0.8).ref_logprob_BT
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


def test_needs_that_cannot_be_met_are_refused(make_model, two_groups) -> None:
    chain = build_chain({"kl_coef": 0.1}, STEPS)
    learner = Learner(make_model(), OptimOptions(), STEPS)
    with pytest.raises(UsageError, match="REFERENCE"):
        take_step(learner, chain, two_groups)


# Scores that the update gives ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"name": "grpo", "entropy_coef": 0.1}, {"name": "epo", "entropy_coef": 0.1, "log_every": 1}],
    ids=["grpo", "epo"],
)
def test_where_the_update_is_one_step_its_own_pass_is_bitwise_the_score(
    settings, make_model, two_groups
) -> None:
    def run(early: bool) -> tuple[list[Tensor], list[dict[str, float]], Batch]:
        model, chain = make_model(torch.float32), build_chain(settings, STEPS)
        learner = learner_of(model, chain, micro_batch_tokens=50)
        seen = []
        for step in (1, 2, 3):
            batch = (learner.score if early else learner.prepare)(two_groups, 0.8)
            assert (batch.old_logprob_BT is not None) is early
            batch, metrics = learner.update(chain.advantages(batch, step), chain, step)
            chain.observe(batch, step)
            seen.append(metrics)
        return list(model.parameters()), seen, batch

    scored, given = run(early=True), run(early=False)
    assert equal(scored[0], given[0])
    assert scored[1] == given[1]
    assert torch.equal(scored[2].old_logprob_BT, given[2].old_logprob_BT)
    assert torch.equal(scored[2].entropy_BT, given[2].entropy_BT)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"name": "epo", "include_current": True}, {}),
        ({"name": "empg"}, {}),
        ({"name": "grpo", "kl_coef": 0.1, "kl_in": "reward"}, {}),
        ({"name": "grpo"}, {"epochs": 2}),
        ({"name": "grpo"}, {"mini_batch": 3}),
        ({"name": "grpo"}, {"correction": {"level": "token"}}),
    ],
)
def test_what_is_needed_before_the_update_is_scored_before(
    settings, options, make_model, two_groups
) -> None:
    learner = learner_of(make_model(), build_chain(settings, STEPS), **options)
    assert learner.prepare(two_groups, 0.8).old_logprob_BT is not None


def test_a_skipped_update_still_gives_all_scores(make_model, two_groups) -> None:
    good = build_chain({}, STEPS)
    learner = learner_of(make_model(), good, micro_batch_tokens=50)
    expected = good.advantages(learner.score(two_groups, 0.8), 1)
    factors = itertools.chain([1.0, float("nan")], itertools.repeat(1.0))
    # What is replayed after it changes the weights.
    bad = with_link(good, Extra(lambda x: x * next(factors), replayed=[(expected, 1.0)]))
    batch = good.advantages(learner.prepare(two_groups, 0.8), 1)
    batch, metrics = learner.update(batch, bad, 1)
    assert metrics["optim/skipped"] == 1
    assert metrics["optim/updates"] == 1
    assert torch.equal(batch.old_logprob_BT, expected.old_logprob_BT)
    assert torch.equal(batch.entropy_BT, expected.entropy_BT)


# Mini-batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["trajectory", "row"])
@pytest.mark.parametrize("size", [None, 1, 3, 8, 100])
def test_each_epoch_sees_each_row_once(unit, size, make_model, make_trajectory, make_batch) -> None:
    batch = make_batch([make_trajectory("t", i, (1, 2), layout="window") for i in range(4)])
    chain = Chain("recording", [Recording()])
    learner = learner_of(
        make_model(), chain, mini_batch=size, mini_batch_of=unit, epochs=2, micro_batch_tokens=9
    )
    metrics = take_step(learner, chain, batch)
    seen = sorted(
        (int(f.batch.trajectory_B[b]), int(f.batch.turn_BT[b].max()))
        for f in chain.links[0].seen
        for b in range(len(f.rows))
    )
    assert seen == sorted((i, k) for i in range(4) for k in range(2) for _ in range(2))
    units = 4 if unit == "trajectory" else 8
    assert metrics["optim/updates"] == 2 * -(-units // (size or units))


def test_trajectories_are_never_cut_by_mini_batches_of_trajectories(
    make_model, make_trajectory, make_batch
) -> None:
    batch = make_batch([make_trajectory("t", i, (1, 1, 1), layout="window") for i in range(5)])
    chain = Chain("recording", [Recording()])
    take_step(learner_of(make_model(), chain, mini_batch=2), chain, batch)
    for forward in chain.links[0].seen:
        assert (torch.bincount(forward.batch.trajectory_B) % 3 == 0).all()


def test_micro_batches_keep_to_their_budget(make_model, two_groups) -> None:
    chain = Chain("recording", [Recording()])
    take_step(learner_of(make_model(), chain, micro_batch_tokens=40), chain, two_groups)
    sizes = [f.logprob_BT.numel() for f in chain.links[0].seen]
    assert max(sizes) <= 40
    assert len(sizes) > 1


# Numbers that are not finite ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [lambda x: x * float("nan"), lambda x: x * float("inf"), lambda x: (0 * x).sqrt()],
    ids=["nan loss", "infinite loss", "nan gradient of a finite loss"],
)
def test_a_step_that_is_not_finite_is_skipped_counted_and_the_third_in_a_row_ends_the_run(
    spoil, make_model, two_groups
) -> None:
    model = make_model()
    good = build_chain({}, STEPS)
    learner = learner_of(model, good)
    before = copy.deepcopy(model.state_dict())
    bad = with_link(good, Extra(spoil))
    for skipped in (1, 2):
        metrics = take_step(learner, bad, two_groups)
        assert metrics["optim/skipped"] == skipped
        assert metrics["optim/updates"] == 0
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert take_step(learner, good, two_groups)["optim/updates"] == 1  # and the count begins anew
    take_step(learner, bad, two_groups)
    take_step(learner, bad, two_groups)
    with pytest.raises(DivergedError, match=r"step 4.*3 times in a row.*loss/policy.*optim.lr"):
        take_step(learner, bad, two_groups, step=4)


def test_a_skipped_step_leaves_no_gradient_for_the_next(make_model, two_groups) -> None:
    good = build_chain({}, STEPS)
    found = []
    for spoil in (False, True):
        model = make_model()
        learner = learner_of(model, good, micro_batch_tokens=50)
        if spoil:
            rest = iter([1.0, float("nan")])
            spoilt = with_link(good, Extra(lambda x, r=rest: x * next(r, 1.0)))
            take_step(learner, spoilt, two_groups)
        take_step(learner, good, two_groups)
        found.append([p.detach().clone() for p in model.parameters()])
    assert equal(*found)


# Checkpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_is_bitwise_an_unbroken_one(
    optimizer, make_model, two_groups, tmp_path
) -> None:
    settings = {"name": "epo", "entropy_coef": 0.1}
    options = {"optimizer": optimizer, "mini_batch": 3, "micro_batch_tokens": 50}
    model, chain = make_model(torch.float32), build_chain(settings, STEPS)
    learner = learner_of(model, chain, **options)
    for step in (1, 2):
        take_step(learner, chain, two_groups, step)
    torch.save(learner.state_dict(), tmp_path / "optimizer.pt")
    weights, remembered = copy.deepcopy(model.state_dict()), json.dumps(chain.state())
    unbroken = [take_step(learner, chain, two_groups, step) for step in (3, 4)]

    again, other = make_model(torch.float32, seed=5), build_chain(settings, STEPS)
    again.load_state_dict(weights)
    resumed = learner_of(again, other, **options)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    other.load_state(json.loads(remembered))
    assert [take_step(resumed, other, two_groups, step) for step in (3, 4)] == unbroken
    assert equal(list(model.parameters()), list(again.parameters()))


# It learns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_won_becomes_likelier_than_what_lost(optimizer, make_model, two_groups) -> None:
    model, chain = make_model(torch.float32), build_chain({}, STEPS)
    learner = learner_of(model, chain, optimizer=optimizer)
    before = learner.score(two_groups, 1.0)
    for step in range(1, 6):
        take_step(learner, chain, two_groups, step)
    change_BT = learner.score(two_groups, 1.0).old_logprob_BT - before.old_logprob_BT
    advantage_BT = chain.advantages(two_groups, 1).advantage_BT
    assert change_BT[advantage_BT > 0].mean() > 0.1
    assert change_BT[advantage_BT < 0].mean() < -0.1
