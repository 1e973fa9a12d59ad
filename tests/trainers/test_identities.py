"""Identities between methods, and what must change nothing, through the learner."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from agentgym.trainers.batch import Batch, pack
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain, Method, Options
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain
from agentgym.types import Group

STEPS = 10
EXACT = 1e-12

Settings = dict[str, object]

ALL: list[Settings] = [
    {"name": "grpo"},
    {"name": "drgrpo", "sum_norm": 20},
    {"name": "dapo"},
    {"name": "rloo", "kl_coef": 0.1},
    {"name": "reinforce++", "gamma": 0.9},
    {"name": "reinforce++:baseline"},
    {"name": "gigpo", "normalise": True},
    {"name": "empg"},
    {"name": "empg", "base": "dapo"},
]
METHODS = [pytest.param(s, id=" on ".join(str(v) for v in list(s.values())[:2])) for s in ALL]


@pytest.fixture
def make_met(make_trajectory):
    """Pack two groups of four trajectories whose turns meet few states, half of them won."""

    def make(layout: str = "full", shapes: Sequence[tuple[int, ...]] | None = None) -> Batch:
        shapes = shapes or [(2, 3), (4,), (1, 2, 3), (3, 1, 1, 2), (5,), (2, 2), (1, 1, 4), (3, 3)]
        groups, outcome, form = [], [], []
        for g in range(2):
            members = []
            for m, shape in enumerate(shapes[4 * g : 4 * g + 4]):
                plain = make_trajectory(f"t{g}", m, shape, won=(g + m) % 2 == 0, layout=layout)
                turns = [replace(t, anchor=f"s{k * m % 3}") for k, t in enumerate(plain.turns)]
                members.append(replace(plain, turns=tuple(turns)))
                outcome.append([0.0] * (len(shape) - 1) + [float(plain.won)])
                form.append([-0.1 * (k % 2) for k in range(len(shape))])
            groups.append(Group(f"t{g}", tuple(members)))
        return pack(groups, {"outcome": outcome, "format": form})

    return make


def after_two_steps(model: nn.Module, chain: Chain, batch: Batch, **optim: object) -> list[Tensor]:
    """Return the weights after two updates, in each of which the ratio leaves 1."""
    options = OptimOptions(**{"lr": 1e-2, "warmup": 0, "epochs": 2, "clip": 0, **optim})
    learner = Learner(model, options, STEPS, chain.needs)
    for step in (1, 2):
        scored = chain.advantages(learner.score(batch, 0.9), step)
        learner.update(scored, chain, step)
        chain.observe(scored, step)
    return [p.detach().clone() for p in model.parameters()]


def assert_close(left: list[Tensor], right: list[Tensor], tolerance: float = EXACT) -> None:
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


# What equals what --------------------------------------------------------------------------------

EQUAL: list[tuple[str, Settings, Settings]] = [
    (
        "EMPG without scale, bonus and centring is its base",
        {"name": "empg", "k": 0, "zeta": 0, "centre": False},
        {"name": "grpo"},
    ),
    (
        "so it is on DAPO",
        {"name": "empg", "base": "dapo", "k": 0, "zeta": 0, "centre": False},
        {"name": "dapo"},
    ),
    (
        "GiGPO without turns is GRPO of the same unit",
        {"name": "gigpo", "omega": 0, "normalise": True, "unit": "turn"},
        {"name": "grpo", "unit": "turn"},
    ),
    (
        "so it is without deviations",
        {"name": "gigpo", "omega": 0},
        {"name": "grpo", "normalise": False},
    ),
    ("DAPO without its clip is GRPO", {"name": "dapo", "clip_high": 0.2}, {"name": "grpo"}),
    (
        "Dr. GRPO is two settings of GRPO",
        {"name": "drgrpo", "sum_norm": 20},
        {
            "name": "grpo",
            "normalise": False,
            "aggregation": "seq-mean-token-sum-norm",
            "sum_norm": 20,
        },
    ),
]


@pytest.mark.parametrize(("one", "other"), [pytest.param(a, b, id=i) for i, a, b in EQUAL])
def test_one_methods_neutral_setting_is_bitwise_another(one, other, make_model, make_met) -> None:
    left, right = (
        after_two_steps(make_model(torch.float32), build_chain(settings, STEPS), make_met())
        for settings in (one, other)
    )
    assert equal(left, right)


def test_rloo_is_grpo_without_deviations_times_n_by_n_less_one(make_met) -> None:
    # groups of four: 4 / 3
    batch = make_met()
    rloo, plain = (
        build_chain(settings, STEPS).advantages(batch, 1).advantage_BT
        for settings in ({"name": "rloo"}, {"name": "grpo", "normalise": False})
    )
    torch.testing.assert_close(rloo, plain * 4 / 3, rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", METHODS)
def test_a_link_with_neutral_hooks_changes_no_bit(settings, make_model, make_met) -> None:
    class Neutral(Method[Options]):
        name = "neutral"

    chain = build_chain(settings, STEPS)
    both = Chain(chain.name, [*build_chain(settings, STEPS).links, Neutral(Options(), STEPS)])
    left = after_two_steps(make_model(torch.float32), chain, make_met())
    assert equal(left, after_two_steps(make_model(torch.float32), both, make_met()))


def test_all_methods_differ(make_model, make_met) -> None:
    batch = make_met()
    found = [after_two_steps(make_model(), build_chain(s, STEPS), batch) for s in ALL]
    # DAPO differs in select and where ratios are clipped: equal here is no error.
    distinct = [weights for s, weights in zip(ALL, found, strict=True) if "dapo" not in s.values()]
    for i, left in enumerate(distinct):
        assert not any(equal(left, right) for right in distinct[:i])


# What changes nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("settings", METHODS)
def test_one_turn_trajectories_are_alike_in_both_layouts(settings, make_model, make_met) -> None:
    shapes = [(n % 4 + 1,) for n in range(8)]
    full, window = (
        after_two_steps(make_model(), build_chain(settings, STEPS), make_met(layout, shapes))
        for layout in ("full", "window")
    )
    assert_close(full, window)


@pytest.mark.parametrize("settings", METHODS)
@pytest.mark.parametrize("layout", ["full", "window"])
def test_credit_does_not_depend_on_the_order_of_rows(settings, layout, make_met) -> None:
    batch = make_met(layout)
    torch.manual_seed(0)
    entropy_BT = torch.rand(batch.mask_BT.shape, dtype=torch.float64) * batch.mask_BT
    zero_BT = torch.zeros_like(entropy_BT)
    batch = batch.with_(entropy_BT=entropy_BT, old_logprob_BT=zero_BT, ref_logprob_BT=zero_BT)
    order = torch.randperm(len(batch.mask_BT))
    plain_BT = build_chain(settings, STEPS).advantages(batch, 1).advantage_BT
    permuted_BT = build_chain(settings, STEPS).advantages(batch.rows(order), 1).advantage_BT
    torch.testing.assert_close(permuted_BT, plain_BT[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", METHODS)
def test_order_padding_and_micro_batches_change_nothing(settings, make_model, make_met) -> None:
    batch = make_met("window")
    plain = after_two_steps(make_model(), build_chain(settings, STEPS), batch)
    order = torch.randperm(len(batch.mask_BT), generator=torch.Generator().manual_seed(1))
    for other, tokens in ((batch.rows(order), 4096), (padded(batch), 4096), (batch, 20)):
        chain = build_chain(settings, STEPS)
        assert_close(plain, after_two_steps(make_model(), chain, other, micro_batch_tokens=tokens))


def padded(batch: Batch) -> Batch:
    """Append three columns of padding and a row that sampled nothing."""

    def pad(tensor: Tensor, fill: float) -> Tensor:
        return nn.functional.pad(tensor, (0, 3, 0, 1), value=fill)

    return batch.with_(
        ids_BT=pad(batch.ids_BT, 5),
        length_B=torch.cat([batch.length_B, torch.tensor([batch.ids_BT.shape[1]])]),
        mask_BT=pad(batch.mask_BT, 0),
        turn_BT=pad(batch.turn_BT, -1),
        behaviour_logprob_BT=pad(batch.behaviour_logprob_BT, 0),
        trajectory_B=torch.cat([batch.trajectory_B, torch.tensor([0])]),
    )
