"""Identities between methods, and what must change nothing, through the learner."""

from collections.abc import Callable, Sequence
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
MakeGroups = Callable[..., list[Group]]

EPO: Settings = {"name": "epo", "entropy_coef": 0.1, "alpha": 2.0, "kappa_high": 0.5}
SPEAR: Settings = {
    "name": "spear",
    "warmup_steps": 1,
    "buffer_size": 3,
    "clip_cov_ratio": 0.2,
    "clip_cov_low": -1.0,
    "replay_clip_cov_ratio": 0.2,
    "replay_clip_cov_low": -9.0,
}
ALL: list[Settings] = [
    {"name": "grpo"},
    {"name": "drgrpo", "sum_norm": 20},
    {"name": "dapo"},
    {"name": "rloo", "kl_coef": 0.1},
    {"name": "reinforce++", "gamma": 0.9},
    {"name": "reinforce++:baseline"},
    {"name": "gigpo", "normalise": True},
    {"name": "ppo", "gamma": 0.9, "lam": 0.8},
    {"name": "drbot", "sum_norm": 20},
    EPO,
    {"base": "ppo", **EPO},
    {"name": "empg"},
    {"base": "dapo", "name": "empg"},
    SPEAR,
    {"base": "gigpo", **SPEAR},
    {"name": "igpo"},
    {"base": "dapo", "name": "igpo", "gamma": 0.5},
    {"name": "aepo"},
]
METHODS = [pytest.param(s, id=" ".join(str(v) for v in list(s.values())[:2])) for s in ALL]


@pytest.fixture
def make_groups(make_trajectory) -> MakeGroups:
    """Build two groups of four trajectories whose turns meet few states, half of them won.

    Every other turn leaves the action format, and an answer is the likelier the more was said.
    """

    def make(layout: str = "full", shapes: Sequence[tuple[int, ...]] | None = None) -> list[Group]:
        shapes = shapes or [(2, 3), (4,), (1, 2, 3), (3, 1, 1, 2), (5,), (2, 2), (1, 1, 4), (3, 3)]
        groups = []
        for g in range(2):
            members = []
            for m, shape in enumerate(shapes[4 * g : 4 * g + 4]):
                plain = make_trajectory(f"t{g}", m, shape, won=(g + m) % 2 == 0, layout=layout)
                turns = [
                    replace(t, anchor=f"s{k * m % 3}", parse_error="no tag" if k % 2 else None)
                    for k, t in enumerate(plain.turns)
                ]
                scores = tuple(-2.0 + 0.3 * k * (1 + m) for k in range(len(shape)))
                members.append(
                    replace(plain, turns=tuple(turns), answer="a", answer_logprobs=scores)
                )
            groups.append(Group(f"t{g}", tuple(members)))
        return groups

    return make


def packed(chain: Chain, groups: Sequence[Group]) -> Batch:
    """Return the groups with the chain's rewards of the second step, in double precision."""
    batch = pack(groups, chain.turn_rewards(groups, 2))
    rewards = {name: part.double() for name, part in batch.reward_NK.items()}
    return replace(batch, reward_NK=rewards, mask_BT=batch.mask_BT.double())


def after_two_steps(model: nn.Module, chain: Chain, batch: Batch, **optim: object) -> list[Tensor]:
    """Return the weights after two updates, in each of which the ratio leaves 1."""
    options = OptimOptions(**{"lr": 1e-2, "warmup": 0, "epochs": 2, "clip": 0, **optim})
    learner = Learner(model, options, STEPS, chain.needs)
    for step in (1, 2):
        scored = chain.advantages(learner.score(batch, 0.9), step)
        learner.update(scored, chain, step)
        chain.observe(scored, step)
    return [p.detach().clone() for p in model.parameters()]


def trained(model: nn.Module, settings: Settings, groups: Sequence[Group]) -> list[Tensor]:
    """Return the weights after two updates by a method."""
    chain = build_chain(settings, STEPS)
    return after_two_steps(model, chain, packed(chain, groups))


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
    ("EPO without a weight is its base", {**EPO, "entropy_coef": 0}, {"name": "grpo"}),
    ("so it is on PPO", {**EPO, "base": "ppo", "entropy_coef": 0}, {"name": "ppo"}),
    (
        "SPEAR without replay, calls and selection is its base",
        {**SPEAR, "replay_coef": 0.0, "tool_schedule": "none", "selector": "none"},
        {"name": "drbot"},
    ),
    (
        "so it is where the share of tokens to leave out is 0 and the buffer is never full",
        {
            **SPEAR,
            "tool_schedule": "none",
            "clip_cov_ratio": 0.0,
            "replay_clip_cov_ratio": 0.0,
            "buffer_size": 99,
        },
        {"name": "drbot"},
    ),
    ("IGPO whose gains weigh nothing", {"name": "igpo", "gain_weight": (0, 0)}, {"name": "grpo"}),
    (
        "AEPO without branching, credit and live gradient",
        {
            "name": "aepo",
            "budget": "fixed",
            "alpha": 0.0,
            "weight": 0.0,
            "entropy_weight": 0.0,
            "clip_high_gradient": "stop",
        },
        {"name": "grpo"},
    ),
    ("ARPO, which changes the rollout alone", {"name": "arpo"}, {"name": "grpo"}),
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
def test_one_methods_neutral_setting_is_bitwise_another(
    one, other, make_model, make_groups
) -> None:
    left, right = (
        trained(make_model(torch.float32), settings, make_groups()) for settings in (one, other)
    )
    assert equal(left, right)


def test_rloo_is_grpo_without_deviations_times_n_by_n_less_one(make_groups) -> None:
    # groups of four: 4 / 3
    rloo, plain = (
        chain.advantages(packed(chain, make_groups()), 1).advantage_BT
        for chain in (
            build_chain({"name": "rloo"}, STEPS),
            build_chain({"name": "grpo", "normalise": False}, STEPS),
        )
    )
    torch.testing.assert_close(rloo, plain * 4 / 3, rtol=0, atol=EXACT)


@pytest.mark.parametrize("settings", METHODS)
def test_a_link_with_neutral_hooks_changes_no_bit(settings, make_model, make_groups) -> None:
    class Neutral(Method[Options]):
        name = "neutral"

    chain = build_chain(settings, STEPS)
    both = Chain(chain.name, [*build_chain(settings, STEPS).links, Neutral(Options(), STEPS)])
    batch = packed(chain, make_groups())
    left = after_two_steps(make_model(torch.float32), chain, batch)
    assert equal(left, after_two_steps(make_model(torch.float32), both, batch))


def test_all_methods_differ(make_model, make_groups) -> None:
    found = [trained(make_model(), settings, make_groups()) for settings in ALL]
    # DAPO differs in select and where ratios are clipped: equal here is no error.
    distinct = [weights for s, weights in zip(ALL, found, strict=True) if s["name"] != "dapo"]
    for i, left in enumerate(distinct):
        assert not any(equal(left, right) for right in distinct[:i])


# What changes nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("settings", METHODS)
def test_one_turn_trajectories_are_alike_in_both_layouts(settings, make_model, make_groups) -> None:
    shapes = [(n % 4 + 1,) for n in range(8)]
    full, window = (
        trained(make_model(), settings, make_groups(layout, shapes))
        for layout in ("full", "window")
    )
    assert_close(full, window)


@pytest.mark.parametrize("settings", METHODS)
@pytest.mark.parametrize("layout", ["full", "window"])
def test_credit_does_not_depend_on_the_order_of_rows(settings, layout, make_groups) -> None:
    batch = packed(build_chain(settings, STEPS), make_groups(layout))
    torch.manual_seed(0)
    entropy_BT = torch.rand(batch.mask_BT.shape, dtype=torch.float64) * batch.mask_BT
    zero_BT = torch.zeros_like(entropy_BT)
    batch = batch.with_(
        entropy_BT=entropy_BT,
        old_logprob_BT=zero_BT,
        ref_logprob_BT=zero_BT,
        value_BT=entropy_BT.flip(-1) * batch.mask_BT,
    )
    order = torch.randperm(len(batch.mask_BT))
    plain_BT = build_chain(settings, STEPS).advantages(batch, 1).advantage_BT
    permuted_BT = build_chain(settings, STEPS).advantages(batch.rows(order), 1).advantage_BT
    torch.testing.assert_close(permuted_BT, plain_BT[order], rtol=0, atol=EXACT)


@pytest.mark.parametrize("settings", METHODS)
def test_order_padding_and_micro_batches_change_nothing(settings, make_model, make_groups) -> None:
    batch = packed(build_chain(settings, STEPS), make_groups("window"))
    plain = after_two_steps(make_model(), build_chain(settings, STEPS), batch)
    order = torch.randperm(len(batch.mask_BT), generator=torch.Generator().manual_seed(1))
    other, chain = padded(batch.rows(order)), build_chain(settings, STEPS)
    assert_close(plain, after_two_steps(make_model(), chain, other, micro_batch_tokens=20))


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


# The formula written out --------------------------------------------------------------------------


def written_out(
    model: nn.Module, reference: nn.Module, batch: Batch, sequences: bool
) -> tuple[Tensor, list[Tensor]]:
    """Return GRPO's loss and its gradients, by plain operations on whole logits.

    r = exp(lp - old), max(-A r, -A clip(r, .8, 1.28)), at most -3 A where A < 0, plus .5 k3 (at
    most 10) to the reference, less .1 of the entropy; the mean over tokens, or that of each
    trajectory's means.
    """

    def logp_BTV(of: nn.Module) -> Tensor:
        return (of(input_ids=batch.ids_BT).logits / 0.9).log_softmax(-1)[:, :-1]

    def sampled(logp: Tensor) -> Tensor:
        return logp.gather(-1, batch.ids_BT[:, 1:, None])[..., 0]

    mask, old, advantage = (
        x[:, 1:] for x in (batch.mask_BT, batch.old_logprob_BT, batch.advantage_BT)
    )
    logp = logp_BTV(model)
    ratio = (sampled(logp) - old).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.28))
    loss = torch.where(advantage < 0, torch.minimum(loss, -3 * advantage), loss)
    d = sampled(logp) - sampled(logp_BTV(reference)).detach()
    loss = loss + 0.5 * ((-d).exp() + d - 1).clamp(max=10) + 0.1 * (logp.exp() * logp).sum(-1)
    means = (loss * mask).sum(-1) / mask.sum(-1)  # a trajectory is a row
    total = means.mean() if sequences else (loss * mask).sum() / mask.sum()
    return total, list(torch.autograd.grad(total, list(model.parameters())))


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_an_update_by_grpo_has_loss_and_gradient_of_the_formula_written_out(
    aggregation, make_model, make_groups
) -> None:
    model, reference = make_model(), make_model(seed=1)
    settings = {
        "name": "grpo", "clip_high": 0.28, "kl_coef": 0.5, "entropy_coef": 0.1,
        "aggregation": aggregation,
    }  # fmt: skip
    chain = build_chain(settings, STEPS)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():

        def keep(p: Tensor, name: str = name) -> None:
            assert p.grad is not None
            found[name] = p.grad.clone()

        parameter.register_post_accumulate_grad_hook(keep)
    options = OptimOptions(warmup=0, clip=0, micro_batch_tokens=30)
    learner = Learner(model, options, STEPS, chain.needs, reference=reference)
    batch = learner.score(packed(chain, make_groups()), 0.9)
    torch.manual_seed(0)
    moved_BT = torch.randn(batch.mask_BT.shape, dtype=torch.float64) * batch.mask_BT
    batch = chain.advantages(batch.with_(old_logprob_BT=batch.old_logprob_BT + moved_BT), 1)
    sequences = aggregation != "token-mean"
    loss, gradients = written_out(model, reference, batch, sequences)
    _, metrics = learner.update(batch, chain, 1)
    assert metrics["loss/total"] == pytest.approx(loss.item(), abs=EXACT)
    assert metrics["actor/clip_frac"] > 0.2  # r leaves the clip often, and 3 at times
    for (name, _), theirs in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(found[name], theirs, rtol=0, atol=EXACT)
