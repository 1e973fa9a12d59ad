"""SPEAR's curriculum, replay and selection by hand, and that each of them acts in training."""

import json
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from agentgym.errors import UsageError
from agentgym.trainers.batch import Batch
from agentgym.trainers.learner import Learner
from agentgym.trainers.memory import memories
from agentgym.trainers.method import Chain, Forward, MiniBatchWeights, Need
from agentgym.trainers.method_state import join, split
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain
from agentgym.trainers.replay_buffer import Baseline, ReplayBuffer
from agentgym.trainers.spear import SPEAR, fade_out, warm_up
from agentgym.types import Group

STEPS = 200
ONLY_REPLAY = {"tool_schedule": "none", "selector": "none", "warmup_steps": 1}
ONLY_CLIP_COV = {"replay_coef": 0.0, "tool_schedule": "none"}
NEUTRAL = {"tool_schedule": "none", "selector": "none", "replay_coef": 0.0}


def chain_of(base: str = "drbot", name: str = "spear", **options: object) -> Chain:
    return build_chain({"name": name, "base": base, **options}, STEPS)


def spear(**options: object) -> SPEAR:
    link = chain_of(**options).links[-1]
    assert isinstance(link, SPEAR)
    return link


# The curriculum ---------------------------------------------------------------------------------


def test_the_weight_of_replay_rises_along_a_cosine() -> None:
    found = [warm_up(done, 200) for done in (0, 50, 100, 150, 200, 300)]
    assert found == pytest.approx([0, 0.146447, 0.5, 0.853553, 1, 1], abs=1e-6)
    assert warm_up(0, 200) == 0  # no optimiser step at all


def test_schedules_count_the_steps_done_and_take_the_runs_length_unless_told() -> None:
    assert spear().replay_weight(1) == 0
    assert spear().replay_weight(101) == pytest.approx(0.5)
    assert spear(warmup_steps=50, replay_coef=0.4).replay_weight(51) == pytest.approx(0.4)
    assert spear().tool_factor(1) == 1
    assert spear().tool_factor(101) == pytest.approx(0.5)
    assert spear(tool_schedule="constant").tool_factor(999) == 1
    assert spear(tool_schedule="none").tool_factor(1) == 0
    assert fade_out(200, 200) == fade_out(201, 200) == 0


@pytest.mark.parametrize(
    ("turns", "done", "expected"),
    [(7, 0, 0.7), (7, 50, 0.597487), (7, 100, 0.35), (7, 200, 0), (7, 201, 0), (30, 50, 0.853553)],
)
def test_calls_are_rewarded_up_to_a_cap_and_less_and_less(
    turns, done, expected, make_trajectory
) -> None:
    group = Group("t", (make_trajectory("t", 0, (1,) * turns, won=False),))
    rewards = {"outcome": [[0.0] * turns]}
    found = spear().turn_rewards([group], rewards, done + 1)
    assert sum(found.get("tool", [[]])[0]) == pytest.approx(expected, abs=1e-6)
    if not expected:
        assert found is rewards


def test_each_call_is_paid_at_its_turn_until_the_cap_is_reached(make_trajectory) -> None:
    group = Group("t", (make_trajectory("t", 0, (1,) * 4),))
    found = spear(tool_reward=0.4).turn_rewards([group], {"outcome": [[0.0] * 4]}, 1)
    assert found["tool"][0] == pytest.approx([0.4, 0.4, 0.2, 0])
    assert found["outcome"] == [[0.0] * 4]


def test_a_turn_is_a_call_if_its_action_says_so(make_trajectory) -> None:
    plain = make_trajectory("t", 0, (1, 1, 1))
    actions = ("<search>a</search>", "", "<answer>b</answer>")
    turns = tuple(replace(t, action=a) for t, a in zip(plain.turns, actions, strict=True))
    groups = [Group("t", (replace(plain, turns=turns),))]
    for pattern, calls in ((".", [1, 0, 1]), ("", [1, 1, 1]), ("<search>", [1, 0, 0])):
        found = spear(tool_action=pattern).turn_rewards(groups, {"outcome": [[0.0] * 3]}, 1)
        assert found["tool"][0] == pytest.approx([0.1 * n for n in calls])
    with pytest.raises(UsageError, match=r"method\.tool_action = '\('.*no regular expression"):
        spear(tool_action="(")


# Replay -----------------------------------------------------------------------------------------


def scored(batch: Batch, chain: Chain, step: int = 1) -> Batch:
    """Return a batch with credit, and with log-probabilities that are drawn from the step."""
    torch.manual_seed(step)
    old_BT = -torch.rand(batch.mask_BT.shape, dtype=torch.double) * batch.mask_BT
    return chain.advantages(batch.with_(old_logprob_BT=old_BT), step)


def lived(chain: Chain, batch: Batch, steps: int) -> list[list[int]]:
    """Let a chain see the same batch at each step; return how many it replayed at each."""
    found = []
    for step in range(1, steps + 1):
        now = scored(batch, chain, step)
        chain.prepare(now, step)
        found.append([len(again.turns_N) for again, _ in chain.replay(step)])
        chain.observe(now, step)
    return found


def test_a_full_buffer_is_replayed_and_emptied(two_groups) -> None:
    # Each step has three trajectories above their group's mean. Their returns are 1, above the
    # median .375 of the groups' means .5 and .25. Weight 0 at step 1.
    chain = chain_of(**ONLY_REPLAY, buffer_size=6)
    assert lived(chain, two_groups, 7) == [[], [], [6], [], [6], [], [6]]
    assert chain.metrics(7)["spear/replayed"] == 6
    assert chain.metrics(7)["spear/baseline"] == pytest.approx(0.375)
    assert chain.metrics(7)["spear/replayed_advantage"] == pytest.approx(0.625)


def test_a_buffer_that_is_kept_is_replayed_as_long_as_it_is_full(two_groups) -> None:
    chain = chain_of(**ONLY_REPLAY, buffer_size=6, keep=True)
    assert lived(chain, two_groups, 5) == [[], [], [6], [6], [6]]


def test_a_buffer_that_is_never_full_is_never_replayed(two_groups) -> None:
    assert lived(chain_of(**ONLY_REPLAY, buffer_size=99), two_groups, 9) == [[]] * 9
    # After one step it holds three; two steps later the first of them are too old for four.
    assert lived(chain_of(**ONLY_REPLAY, buffer_size=7, tolerate=2), two_groups, 9) == [[]] * 9


def test_a_buffer_is_as_large_as_a_step_unless_told(two_groups) -> None:
    # Eight trajectories a step; 3, 6, 8 of 9 remembered.
    assert lived(chain_of(**ONLY_REPLAY), two_groups, 4) == [[], [], [], [8]]


def test_what_is_replayed_is_older_than_the_step_and_as_it_was(two_groups) -> None:
    chain = chain_of(**ONLY_REPLAY, buffer_size=6)
    before = [scored(two_groups, chain, step) for step in (1, 2)]
    lived(chain, two_groups, 2)
    chain.prepare(scored(two_groups, chain, 3), 3)
    ((again, weight),) = chain.replay(3)
    assert weight == 1
    won = [n for n, t in enumerate(two_groups.trajectories) if t.won]
    expected = [batch.rows(torch.tensor(won)).old_logprob_BT for batch in before]
    width = again.old_logprob_BT.shape[1]
    assert torch.equal(again.old_logprob_BT, torch.cat(expected)[:, :width])


def test_what_is_no_better_than_the_median_is_not_replayed(two_groups) -> None:
    chain = chain_of(**ONLY_REPLAY, buffer_size=3)
    lived(chain, two_groups, 1)
    link = chain.links[-1]
    before = link.state()
    for mean, replayed in ((0.9, 3), (1.0, 0), (1.1, 0)):
        link.load_state({**before, "baseline": Baseline((1,), (mean,), (0.5,)).to_json()})
        chain.prepare(scored(two_groups, chain, 2), 2)
        assert sum(len(again.turns_N) for again, _ in chain.replay(2)) == replayed
        assert len(link.state()["buffer"]["step"]) == (0 if replayed else 3)  # or it waits


def test_by_the_released_rules_rows_are_drawn_and_equal_ones_too(
    make_trajectory, make_batch
) -> None:
    trajectories = [
        make_trajectory("t", i, (1,) * (5 + i), won=i < 2, layout="window") for i in range(4)
    ]
    batch = make_batch(trajectories)  # 5 + 6 rows of those that won
    chain = chain_of(name="spear:released", selector="none", warmup_steps=1, buffer_size=8)
    # 11 is not above 1.5 x 8, 22 is; 16 would be the power of two, 8 is the size.
    assert lived(chain, batch, 5) == [[], [], [8], [], [8]]


def test_released_options_are_the_scripts() -> None:
    options = chain_of(name="spear:released").options()
    assert options["spear"]["clip_cov_ratio"] == 0.0002
    assert options["spear"]["buffer_size"] == 2048
    assert options["drbot"]["sum_norm"] == 512
    chain_of(name="spear:released", base="grpo")
    chain_of(name="spear:released", base="gigpo")


def replayed_loss(ratios: list[float], advantage: float) -> tuple[list[float], list[float]]:
    """Return the loss and the slope of tokens of a replayed trajectory, by the ratio of each."""
    chain = chain_of(**ONLY_REPLAY)
    row = {
        "ids_BT": torch.arange(len(ratios) + 1),
        "turn_BT": torch.tensor([-1] + [0] * len(ratios)),
        "behaviour_logprob_BT": torch.zeros(len(ratios) + 1),
        "old_logprob_BT": torch.zeros(len(ratios) + 1, dtype=torch.double),
    }
    from agentgym.trainers.memory import Memory, as_batch

    batch = as_batch([Memory(1, 1.0, (row,))], [advantage], 1.0)
    logprob_BT = torch.tensor([[1.0, *ratios]], dtype=torch.double).log().requires_grad_()
    forward = Forward(batch, logprob_BT, logprob_BT, 2, MiniBatchWeights(batch), torch.arange(1))
    loss_BT = chain.loss(forward).terms["policy"].loss_BT
    (slope_BT,) = torch.autograd.grad(loss_BT.sum(), logprob_BT)
    return loss_BT[0, 1:].tolist(), slope_BT[0, 1:].tolist()


def test_a_replayed_token_has_the_clipped_surrogate_with_its_own_ratio() -> None:
    # -.6 x 1.28, and -.6 x .5
    loss, slope = replayed_loss([2.0, 0.5], 0.6)
    assert loss == pytest.approx([-0.768, -0.3])
    assert slope == pytest.approx([0, -0.3])


def test_the_state_survives_a_checkpoint(two_groups) -> None:
    chain = chain_of(**ONLY_REPLAY, buffer_size=6)
    lived(chain, two_groups, 2)
    plain, tensors = split(chain.state())
    other = chain_of(**ONLY_REPLAY, buffer_size=6)
    other.load_state(join(json.loads(json.dumps(plain)), tensors))
    for one in (chain, other):
        one.prepare(scored(two_groups, one, 3), 3)
    ((ours, _),), ((theirs, _),) = chain.replay(3), other.replay(3)
    for name in ("ids_BT", "old_logprob_BT", "advantage_BT", "turn_BT", "length_B"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.advantage_BT.any()


# Through the learner ----------------------------------------------------------------------------


def trained(
    model, chain: Chain, batch: Batch, steps: int = 4, **optim: object
) -> tuple[list[Tensor], list[dict[str, float]]]:
    """Return the weights after some steps on the same batch, and the metrics of each."""
    options = OptimOptions(**({"lr": 1e-2, "warmup": 0} | optim))
    learner = Learner(model, options, STEPS, chain.needs)
    seen = []
    for step in range(1, steps + 1):
        now = chain.advantages(learner.prepare(batch, 0.8), step)
        now, metrics = learner.update(now, chain, step)
        chain.observe(now, step)
        seen.append(metrics)
    return [p.detach().clone() for p in model.parameters()], seen


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("base", ["drbot", "grpo", "gigpo"])
def test_neutral_it_is_its_base_bitwise(base, make_model, two_groups) -> None:
    plain, _ = trained(make_model(), build_chain({"name": base}, STEPS), two_groups)
    chain = chain_of(base, **NEUTRAL)
    assert chain.links[-1].needs is Need.NOTHING
    neutral, _ = trained(make_model(), chain, two_groups)
    assert same(plain, neutral)
    drawn = torch.get_rng_state(), random.getstate()  # after training by the base
    never_full, _ = trained(
        make_model(), chain_of(base, **ONLY_REPLAY, buffer_size=999), two_groups
    )
    assert same(plain, never_full)
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    nothing_drawn = {**ONLY_CLIP_COV, "clip_cov_ratio": 0.0}
    assert same(plain, trained(make_model(), chain_of(base, **nothing_drawn), two_groups)[0])


@pytest.mark.parametrize("base", ["drbot", "grpo", "gigpo"])
def test_replay_makes_optimiser_steps_of_its_own(base, make_model, two_groups) -> None:
    chain = chain_of(base, **ONLY_REPLAY, buffer_size=3)
    replaying, seen = trained(make_model(), chain, two_groups)
    assert [metrics["spear/replayed"] for metrics in seen] == [0, 3, 3, 3]
    assert seen[-1]["optim/updates"] == 4 + 3
    assert seen[-1]["replay/loss/policy"] < 0
    plain, _ = trained(make_model(), build_chain({"name": base}, STEPS), two_groups)
    assert not same(replaying, plain)


def test_the_gradient_of_replay_is_its_weights(make_model, two_groups) -> None:
    norms = {}
    for coef in (1.0, 0.25):
        chain = chain_of(**ONLY_REPLAY, buffer_size=3, replay_coef=coef)
        _, seen = trained(make_model(), chain, two_groups, steps=2, lr=1e-4)
        norms[coef] = seen[-1]["replay/optim/grad_norm"]
    assert norms[0.25] == pytest.approx(norms[1.0] / 4, rel=1e-6)
    assert norms[1.0] > 1e-6


def test_replay_makes_what_it_replays_likelier(make_model, two_groups) -> None:
    model = make_model()
    chain = chain_of(**ONLY_REPLAY, buffer_size=3)
    learner = Learner(model, OptimOptions(lr=1e-3, warmup=0), STEPS, chain.needs)
    before = chain.advantages(learner.score(two_groups, 1.0), 1)
    chain.observe(before, 1)
    # A step without credit of its own: only the replay learns.
    nothing = before.with_(advantage_BT=0 * before.advantage_BT)
    learner.update(nothing, chain, 2)
    after = learner.score(two_groups, 1.0)
    won_B1 = torch.tensor([t.won for t in two_groups.trajectories])[two_groups.trajectory_B, None]
    moved_BT = (after.old_logprob_BT - before.old_logprob_BT) * two_groups.mask_BT * won_B1
    assert moved_BT.sum() > 0.01


def test_clip_cov_takes_gradients_away_in_training(make_model, two_groups) -> None:
    options = {**ONLY_CLIP_COV, "clip_cov_ratio": 0.25, "clip_cov_low": 0.0}
    chain = chain_of(**options)
    weights, seen = trained(make_model(), chain, two_groups, steps=1)
    tokens = two_groups.mask_BT.sum().item()
    assert seen[0]["spear/candidates"] > 0.25
    assert seen[0]["spear/chosen"] == pytest.approx(int(0.25 * tokens) / tokens)
    assert seen[0]["spear/covariance_abs"] > 0
    plain, _ = trained(make_model(), build_chain({"name": "drbot"}, STEPS), two_groups, steps=1)
    assert not same(weights, plain)


def slopes(chain: Chain, batch: Batch, logprob_BT: Tensor) -> Tensor:
    """Return the slope of the whole loss at each token, as the learner asks for it."""
    chain.prepare(batch, 1)
    chain.hold_back(batch, logprob_BT, 1)
    current_BT = logprob_BT.clone().requires_grad_()
    rows = torch.arange(len(batch.mask_BT))
    forward = Forward(batch, current_BT, current_BT, 1, MiniBatchWeights(batch), rows)
    (slope_BT,) = torch.autograd.grad(chain.loss(forward).total(), current_BT)
    return slope_BT


def test_the_chosen_tokens_alone_lose_their_gradient(two_groups) -> None:
    chain = chain_of(**ONLY_CLIP_COV, clip_cov_ratio=0.25, clip_cov_low=-1.0)
    batch = scored(two_groups, chain)
    slope_BT = slopes(chain, batch, batch.old_logprob_BT)
    base = build_chain({"name": "drbot"}, STEPS)
    plain_BT = slopes(base, batch, batch.old_logprob_BT)
    chosen_BT = chain.hold_back(batch, batch.old_logprob_BT, 1) & (plain_BT != 0)
    chain.prepare(batch, 1)
    lost_BT = (slope_BT == 0) & (plain_BT != 0)
    assert lost_BT.sum() == int(0.25 * batch.mask_BT.sum())
    assert torch.equal(slope_BT[~lost_BT], plain_BT[~lost_BT])
    assert chosen_BT.sum() == lost_BT.sum()


def test_kl_cov_changes_the_chosen_tokens_alone_where_nothing_is_clipped(two_groups) -> None:
    options = {**ONLY_CLIP_COV, "selector": "kl_cov", "kl_cov_ratio": 0.25, "kl_cov_coef": 0.5}
    chain = chain_of(**options)
    batch = scored(two_groups, chain)
    now_BT = batch.old_logprob_BT + 0.1 * batch.mask_BT  # e^.1 = 1.1 is within the clip
    slope_BT = slopes(chain, batch, now_BT)
    plain_BT = slopes(build_chain({"name": "drbot"}, STEPS), batch, now_BT)
    changed_BT = slope_BT != plain_BT
    assert changed_BT.sum() == int(0.25 * batch.mask_BT.sum())
    # Each pays .5 for each nat above, weighed as a token is: 1 / (8 trajectories x 1024).
    difference = (slope_BT - plain_BT)[changed_BT]
    torch.testing.assert_close(difference, torch.full_like(difference, 0.5 / 8 / 1024))


@pytest.mark.parametrize("selector", ["clip_cov", "kl_cov"])
def test_micro_batches_and_the_order_of_rows_change_nothing(
    selector, make_model, two_groups
) -> None:
    options = {
        "selector": selector, "warmup_steps": 1, "buffer_size": 3, "clip_cov_ratio": 0.2,
        "clip_cov_low": 0.0, "replay_clip_cov_ratio": 0.2, "replay_clip_cov_low": -9.0,
        "kl_cov_ratio": 0.2, "replay_kl_cov_ratio": 0.2,
    }  # fmt: skip
    order = torch.tensor([3, 0, 7, 2, 5, 1, 4, 6])
    whole, seen = trained(make_model(), chain_of(**options), two_groups, lr=1e-3)
    assert seen[-1]["spear/chosen"] > 0.1
    assert seen[-1]["replay/spear/chosen"] > 0.1
    for batch, tokens in ((two_groups, 50), (two_groups.rows(order), 10_000)):
        other, _ = trained(
            make_model(), chain_of(**options), batch, lr=1e-3, micro_batch_tokens=tokens
        )
        for ours, theirs in zip(whole, other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_replay_has_bounds_of_its_own(make_model, two_groups) -> None:
    chain = chain_of(
        warmup_steps=1, buffer_size=3, clip_cov_ratio=0.0, replay_clip_cov_ratio=1.0,
        replay_clip_cov_low=-99.0, replay_clip_cov_high=99.0,
    )  # fmt: skip
    _, seen = trained(make_model(), chain, two_groups, steps=2, lr=1e-4)
    assert "spear/chosen" not in seen[-1]
    assert seen[-1]["replay/spear/chosen"] == pytest.approx(1)  # and so nothing is left
    assert seen[-1]["replay/loss/policy"] == seen[-1]["replay/optim/grad_norm"] == 0


def test_the_weights_before_a_later_optimiser_step_are_asked_anew(make_model, two_groups) -> None:
    chain = chain_of(**ONLY_CLIP_COV, clip_cov_low=-99.0, clip_cov_ratio=0.1)
    looked: list[Tensor] = []
    hold_back = chain.links[-1].hold_back

    def look(mini_batch: Batch, logprob_BT: Tensor, held_BT: Tensor, step: int) -> Tensor:
        looked.append(logprob_BT - mini_batch.old_logprob_BT)
        return hold_back(mini_batch, logprob_BT, held_BT, step)

    chain.links[-1].hold_back = look  # type: ignore[method-assign]
    trained(make_model(), chain, two_groups, steps=1, epochs=2)
    first, second = looked
    assert not first.any()
    assert second.abs().max() > 1e-4


def test_a_learner_built_without_is_refused(make_model, two_groups) -> None:
    chain = chain_of()
    learner = Learner(make_model(), OptimOptions(), STEPS)
    batch = chain.advantages(learner.score(two_groups, 1.0), 1)
    with pytest.raises(UsageError, match="the method needs CURRENT_LOGPROB"):
        learner.update(batch, chain, 1)


def test_a_reference_is_not_asked_about_what_is_replayed(make_model, two_groups) -> None:
    chain = chain_of("grpo", **ONLY_REPLAY, buffer_size=3, kl_coef=0.1)
    _, seen = trained(make_model(), chain, two_groups, steps=2)
    assert "loss/ref_kl" in seen[-1]
    assert "replay/loss/policy" in seen[-1]
    assert "replay/loss/ref_kl" not in seen[-1]


def test_memories_hold_no_gradient(make_model, two_groups) -> None:
    chain = chain_of(**ONLY_REPLAY)
    learner = Learner(make_model(), OptimOptions(), STEPS, chain.needs)
    batch = chain.advantages(learner.score(two_groups, 1.0), 1)
    rows = [row for memory in memories(batch, 1, "trajectory") for row in memory.rows]
    assert rows
    assert not any(tensor.requires_grad for row in rows for tensor in row.values())
    assert ReplayBuffer.from_state(ReplayBuffer().state()).memories == ()
