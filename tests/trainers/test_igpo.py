"""IGPO's numbers by hand: gains, z-scores, returns, and what they become for tokens."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from agentgym.errors import UsageError
from agentgym.trainers.advantages import group_advantage, of_tokens
from agentgym.trainers.batch import Batch, pack
from agentgym.trainers.igpo import GAIN, IGPO, gains, is_invalid, turn_returns, z_scores
from agentgym.trainers.method import Chain, Need
from agentgym.trainers.registry import build_chain
from agentgym.trainers.returns import turn_end_rewards
from agentgym.types import Group, Key, Row, Stop, Trajectory, Turn

STEPS = 11

Scored = tuple[list[float], float]  # answer scores before each turn, and the score of the episode


@pytest.fixture
def played(make_trajectory: Callable[..., Trajectory]) -> Callable[..., list[Group]]:
    """Build one group of trajectories with scored answers, two tokens a turn."""

    def build(scored: Sequence[Scored], **changes: object) -> list[Group]:
        members = tuple(
            replace(
                make_trajectory("t", n, [2] * len(scores), won=worth == 1, score=worth, **changes),
                answer="gold",
                answer_logprobs=tuple(scores),
            )
            for n, (scores, worth) in enumerate(scored)
        )
        return [Group("t", members)]

    return build


def chain_of(**options: object) -> Chain:
    return build_chain({"name": "igpo", **options}, STEPS)


def batch_of(chain: Chain, groups: Sequence[Group], step: int = 1) -> Batch:
    return pack(groups, chain.turn_rewards(groups, step))


def of_each_turn(batch: Batch, step: int, chain: Chain) -> list[list[float]]:
    """Return the advantage of each turn of each trajectory, from its first token."""
    batch = chain.advantages(batch, step)
    found = []
    for n, trajectory in enumerate(batch.trajectories):
        cells = [(batch.trajectory_B == n)[:, None] & (batch.turn_BT == k) for k in range(9)]
        values = [batch.advantage_BT[cell] for cell in cells][: len(trajectory.turns)]
        assert all((v == v[0]).all() for v in values)  # the same for all tokens of a turn
        found.append([v[0].item() for v in values])
    return found


# The gain of a turn --------------------------------------------------------------------------


def test_a_gain_is_the_difference_of_mean_log_probabilities_or_of_their_exponentials() -> None:
    before = sum([-2, -1]) / 2  # -1.5, exp .223130
    after_1 = sum([-0.1, -0.3]) / 2  # -.2, exp .818731
    after_2 = sum([-0.5, -0.5]) / 2  # -.5, exp .606531
    scores = [before, after_1, after_2]
    assert gains(scores, "logprob")[:2] == pytest.approx([1.3, -0.3], abs=1e-12)
    # .818731 - .223130 = .595601 and .606531 - .818731 = -.212200
    assert gains(scores, "probability")[:2] == pytest.approx([0.595601, -0.212200], abs=5e-7)


def test_gains_telescope_and_the_last_turn_has_none() -> None:
    found = gains([-3, -2.2, -2.5, -0.7])
    assert found[:3] == pytest.approx([0.8, -0.3, 1.8], abs=1e-12)
    assert sum(found[:3]) == pytest.approx(-0.7 - -3)  # 2.3, s_last - s_0
    assert math.isnan(found[3])
    assert gains([]) == []


def test_a_turn_whose_answer_was_not_scored_has_no_gain_and_nor_has_the_one_before() -> None:
    found = gains([-3, math.nan, -2, -1])
    assert [math.isnan(gain) for gain in found] == [True, True, False, True]


# Normalising and returns ----------------------------------------------------------------------

# Trajectory 1 gains .2 and .3 and has the outcome 1, trajectory 2 gains .1 and has the outcome 0.
TWO = [([-1.0, -0.8, -0.5], 1.0), ([-1.0, -0.9], 0.0)]

# Separate: gains .2 .3 .1, mean .2, population std .081650, so 0, 1.224729, -1.224729;
# outcomes 1 and 0, mean .5, std .5, so +-.999998.
# Joint: .2 .3 1 .1 0, mean .32, std .354401.
RETURNS = [
    ("separate", 1.0, [[2.224727, 2.224727, 0.999998], [-2.224727, -0.999998]]),
    # .999998; 1.224729 + .5 * .999998; 0 + .5 * 1.724728
    ("separate", 0.5, [[0.862364, 1.724728, 0.999998], [-1.724728, -0.999998]]),
    ("joint", 1.0, [[1.523694, 1.862292, 1.918726], [-1.523694, -0.902930]]),
    ("joint", 0.5, [[0.112866, 0.902930, 1.918726], [-1.072229, -0.902930]]),
    ("none", 1.0, [[1.5, 1.3, 1.0], [0.1, 0.0]]),
]


@pytest.mark.parametrize(("normalise", "gamma", "expected"), RETURNS)
@pytest.mark.parametrize("layout", ["full", "window"])
def test_turns_earn_discounted_sums_of_z_scores(
    played: Callable[..., list[Group]],
    normalise: str,
    gamma: float,
    expected: list[list[float]],
    layout: str,
) -> None:
    chain = chain_of(normalise=normalise, gamma=gamma)
    batch = batch_of(chain, played(TWO, layout=layout))
    found = of_each_turn(batch, 1, chain)
    assert [len(turns) for turns in found] == [3, 2]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1.5e-6)


def test_z_scores_are_of_two_sets_or_of_one() -> None:
    gain_NK = torch.tensor([[0.2, 0.3, 9.0], [0.1, 9.0, 9.0]]).double()
    there_NK = torch.tensor([[True, True, False], [True, False, False]])
    outcome_N, group_N = torch.tensor([1.0, 0.0]).double(), torch.tensor([0, 0])
    z_NK, z_N = z_scores(gain_NK, there_NK, outcome_N, group_N, "separate")
    assert z_NK.tolist() == [
        pytest.approx([0, 1.224729, 0], abs=1e-6),
        pytest.approx([-1.224729, 0, 0], abs=1e-6),
    ]
    assert z_N.tolist() == pytest.approx([0.999998, -0.999998], abs=1e-6)
    z_NK, z_N = z_scores(gain_NK, there_NK, outcome_N, group_N, "joint")
    assert z_NK.tolist() == [
        pytest.approx([-0.338599, -0.056433, 0], abs=1e-6),
        pytest.approx([-0.620764, 0, 0], abs=1e-6),
    ]
    assert z_N.tolist() == pytest.approx([1.918726, -0.902930], abs=1e-6)


def test_groups_are_normalised_each_for_itself() -> None:
    gain_NK = torch.tensor([[0.2], [0.3], [20.0], [30.0]]).double()
    there_NK, group_N = torch.ones(4, 1).bool(), torch.tensor([0, 0, 1, 1])
    z_NK, _ = z_scores(gain_NK, there_NK, torch.zeros(4).double(), group_N, "separate")
    # deviation .05 of a population std of .05 (less the constants), and 5 of 5
    assert z_NK[:, 0].tolist() == pytest.approx([-1, 1, -1, 1], abs=3e-5)


def test_the_only_gain_of_a_group_counts_nothing() -> None:
    gain_NK = torch.tensor([[0.7, 0.0], [0.0, 0.0]]).double()
    there_NK = torch.tensor([[True, False], [False, False]])
    z_NK, _ = z_scores(
        gain_NK, there_NK, torch.tensor([1.0, 0.0]).double(), torch.tensor([0, 0]), "separate"
    )
    assert z_NK.tolist() == [[0, 0], [0, 0]]


def test_a_gain_of_exactly_0_keeps_its_turn_and_its_z_score(
    played: Callable[..., list[Group]],
) -> None:
    chain = chain_of()
    groups = played([([-1.0, -0.5, -0.5, -0.25], 1.0), ([-1.0, -1.0], 0.0)])
    batch = batch_of(chain, groups)
    assert batch.reward_NK[GAIN].tolist() == [[0.5, 0.0, 0.25, 0.0], [0.0] * 4]
    # Gains .5 0 .25 0: mean .1875, squares .09765625 + .03515625 + .00390625 + .03515625, their
    # mean .04296875, std .20728905.
    z = [(x - 0.1875) / 0.20728905 for x in (0.5, 0.0, 0.25, 0.0)]
    expected = [[z[0] + z[1] + z[2] + 1, z[1] + z[2] + 1, z[2] + 1, 1], [z[3] - 1, -1]]
    for ours, theirs in zip(of_each_turn(batch, 1, chain), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-5)


def test_without_normalising_a_turn_earns_what_the_answer_gains_from_there_and_the_outcome(
    played: Callable[..., list[Group]],
) -> None:
    scores = [-3, -2.2, -2.5, -0.7]
    chain = chain_of(normalise="none")
    found = of_each_turn(batch_of(chain, played([(scores, 1.0), ([-1.0], 0.0)])), 1, chain)
    assert found[0] == pytest.approx([scores[-1] - s + 1.0 for s in scores], abs=1e-6)


def test_the_telescoping_sum_is_exact_in_double_precision() -> None:
    scores = [-3, -2.2, -2.5, -0.7]
    gain_NK = torch.tensor([[*gains(scores)[:3], 0.0]], dtype=torch.float64)
    found = turn_returns(gain_NK, torch.ones(1).double(), torch.tensor([4]), gamma=1.0)
    assert found[0].tolist() == pytest.approx([scores[-1] - s + 1 for s in scores], abs=1e-12)


def test_of_outcomes_alone_the_z_score_is_the_populations_with_its_two_constants() -> None:
    # 1, 0, 0: mean 1/3, population variance 2/9
    nothing_NK, outcome_N = torch.zeros(3, 1).double(), torch.tensor([1.0, 0, 0]).double()
    group_N = torch.zeros(3, dtype=torch.long)
    _, z_N = z_scores(nothing_NK, nothing_NK > 0, outcome_N, group_N, "separate")
    std = math.sqrt(2 / 9 + 1e-8) + 1e-6
    expected = [(2 / 3) / std, (-1 / 3) / std, (-1 / 3) / std]
    assert z_N.tolist() == pytest.approx(expected, abs=1e-12)


def test_every_token_of_a_turn_has_its_turns_return_and_others_have_none() -> None:
    turn = torch.tensor([[0, 0, -1, 1, 1, 1, -1, 2, 2]])
    row = Row((1,) * 9, tuple(turn[0].tolist()), (0.0,) * 9, (0,) * 9)
    other = Row((1,) * 6, (0, 0, -1, 1, 1, 1), (0.0,) * 6, (0,) * 6)
    chain = chain_of(format_outcome="keep")
    group = Group("t", (trajectory_of(row, TWO[0]), trajectory_of(other, TWO[1])))
    batch = chain.advantages(batch_of(chain, [group]), 1)
    assert batch.advantage_BT is not None
    first = [2.2247, 2.2247, 0, 2.2247, 2.2247, 2.2247, 0, 1, 1]
    assert batch.advantage_BT[0].tolist() == pytest.approx(first, abs=5e-5)


def trajectory_of(row: Row, scored: Scored) -> Trajectory:
    scores, worth = scored
    turns = tuple(Turn("seen", "said", "done", None, True, 0.0, "seen") for _ in scores)
    return Trajectory(
        key=Key("t", len(scores)),
        suite="e/train",
        task_type="kind",
        goal="goal",
        turns=turns,
        rows=(row,),
        stop=Stop.TERMINATED,
        won=worth == 1,
        score=worth,
        answer="gold",
        answer_logprobs=tuple(scores),
    )


def test_a_turn_that_repeats_what_was_said_before_gets_its_own_gain() -> None:
    # Turn 0 says "5 6 7", turn 1 says "6", which stands in turn 0 too.
    row = Row((5, 6, 7, 1, 6, 1, 9), (0, 0, 0, -1, 1, -1, 2), (0.0,) * 7, (0,) * 7)
    chain = chain_of()
    group = Group("t", (trajectory_of(row, ([-1.0, -0.7, -0.5], 0.0)),))
    rewards = chain.turn_rewards([group], 1)
    found = turn_end_rewards(pack([group], {GAIN: rewards[GAIN]}))
    assert found[0].tolist() == pytest.approx([0, 0, 0.3, 0, 0.2, 0, 0], abs=1e-6)


def test_returns_of_padding_turns_are_0() -> None:
    found = turn_returns(
        torch.tensor([[0.5, 0.0, 0.0]]).double(), torch.ones(1).double(), torch.tensor([2]), 0.5
    )
    assert found.tolist() == [[1.0, 1.0, 0.0]]  # .5 + .5 * 1, then the outcome


# The outcome ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "invalid"),
    [
        ({}, False),
        ({"parse_errors": [None, "there is no <answer>"]}, True),
        ({"stop": Stop.TURNS}, True),
        ({"stop": Stop.TOKENS}, True),
        ({"stop": Stop.TURNS, "score": 0.4}, False),  # partial credit is something
    ],
)
def test_an_episode_in_bad_format_or_without_an_answer_is_invalid(
    make_trajectory: Callable[..., Trajectory], changes: dict[str, object], invalid: bool
) -> None:
    stop = changes.pop("stop", Stop.TERMINATED)
    trajectory = make_trajectory(turns=(2, 2), won=False, **changes)
    assert is_invalid(replace(trajectory, stop=stop)) is invalid


def test_bad_format_replaces_the_outcome_by_a_penalty_that_is_a_part_of_its_own(
    played: Callable[..., list[Group]],
) -> None:
    groups = played([([-1.0, -1.0], 1.0), ([-1.0, -1.0], 0.0)], parse_errors=["no tag", None])
    rewards = build_chain({"name": "igpo"}, STEPS, None).turn_rewards(groups, 1)
    assert rewards["outcome"] == [[0, 1], [0, 0]]  # as it was
    assert rewards["invalid"] == [[0, -3], [0, -2]]  # -2 in the place of 1 and 0
    assert "invalid" not in chain_of(format_outcome="keep").turn_rewards(groups, 1)


def test_an_episode_without_a_turn_has_no_rewards(played: Callable[..., list[Group]]) -> None:
    groups = played([([], 0.0), ([-1.0], 0.0)])
    rewards = chain_of().turn_rewards(groups, 1)
    assert {name: [len(of) for of in part] for name, part in rewards.items()} == {
        name: [0, 1] for name in ("outcome", "format", GAIN, "invalid")
    }


# Schedules and neutral settings ---------------------------------------------------------------


def test_the_curriculum_moves_weight_from_gains_to_the_outcome() -> None:
    link = build_chain({"name": "igpo:curriculum"}, STEPS).links[-1]
    assert isinstance(link, IGPO)
    assert link.weights(1) == (1.0, 0.5)
    assert link.weights(6) == (0.75, 0.75)  # half way of 11 steps
    assert link.weights(11) == (0.5, 1.0)


def test_weights_multiply_z_scores(played: Callable[..., list[Group]]) -> None:
    chain = build_chain({"name": "igpo:curriculum"}, STEPS)
    found = of_each_turn(batch_of(chain, played(TWO), 11), 11, chain)
    # .5 * 1.224729 + 1 * .999998, twice as 0 has no weight
    assert found[0] == pytest.approx([1.612362, 1.612362, 0.999998], abs=2e-6)


def test_without_weight_every_hook_returns_its_very_input(
    played: Callable[..., list[Group]],
) -> None:
    chain = chain_of(gain_weight=(0.0, 0.0))
    link = chain.links[-1]
    groups = played([([], 0.0), ([-1.0], 0.0)])
    rewards = {"outcome": [[], [0.0]]}
    batch = pack(groups, rewards)
    assert link.needs is Need.NOTHING
    assert chain.answers is None
    assert link.turn_rewards(groups, rewards, 1) is rewards
    assert link.advantages(batch, 1) is batch


def test_of_one_turn_it_is_grpo_with_the_populations_deviation(
    played: Callable[..., list[Group]],
) -> None:
    groups = played([([-1.0], 1.0), ([-2.0], 0.0), ([-0.5], 0.0)])
    chain = chain_of()
    batch = batch_of(chain, groups)
    outcome_N, counts_N = torch.tensor([1.0, 0.0, 0.0]).double(), torch.ones(3)
    expected_N = group_advantage(outcome_N, batch.group_N, counts_N, ddof=0)
    # Their difference is the 1e-8 in the variance: 1.4 * 1e-8 / (2 * .2222) = 3e-8.
    expected_BT = of_tokens(batch, expected_N)
    found_BT = chain.advantages(batch, 1).advantage_BT
    assert found_BT is not None
    assert torch.allclose(found_BT.double(), expected_BT.double(), atol=2e-7)


def test_rows_in_another_order_get_the_same_credit(played: Callable[..., list[Group]]) -> None:
    for normalise, layout in (("separate", "window"), ("position", "full")):
        chain = chain_of(normalise=normalise)
        batch = batch_of(chain, played(TWO, layout=layout))
        order = torch.randperm(len(batch.length_B), generator=torch.Generator().manual_seed(0))
        straight, shuffled = chain.advantages(batch, 1), chain.advantages(batch.rows(order), 1)
        assert straight.advantage_BT is not None
        assert shuffled.advantage_BT is not None
        assert torch.equal(straight.advantage_BT[order], shuffled.advantage_BT)


# What the first released code trains with ------------------------------------------------------


def test_released_takes_the_mean_of_the_group_at_the_same_place_of_the_row() -> None:
    # Turn rewards .4 and 1 over two tokens each; .2 over three. Returns 1.4 1.4 1 1 and .2 .2 .2
    # and nothing; means .8 .8 .6 .5.
    longer = Row((1,) * 6, (-1, -1, 0, 0, 1, 1), (0.0,) * 6, (0,) * 6)
    shorter = Row((1,) * 5, (-1, -1, 0, 0, 0), (0.0,) * 5, (0,) * 5)
    chain = build_chain(
        {"name": "igpo:released", "gain": "logprob", "format_outcome": "keep"}, STEPS
    )
    first = trajectory_of(longer, ([-1.0, -0.6], 1.0))
    second = replace(trajectory_of(shorter, ([-1.0], 0.0)))
    batch = batch_of(chain, [Group("t", (first, second))])
    batch = batch.with_(reward_NK={**batch.reward_NK, "more": torch.tensor([[0.0, 0], [0.2, 0]])})
    found = chain.advantages(batch, 1).advantage_BT
    assert found is not None
    assert found[0].tolist() == pytest.approx([0, 0, 0.6, 0.6, 0.4, 0.5], abs=1e-6)
    assert found[1].tolist() == pytest.approx([0, 0, -0.6, -0.6, -0.4, 0], abs=1e-6)


def test_at_a_place_where_another_trajectory_is_spoken_to_its_last_turns_return_counts() -> None:
    # After its first turn the environment says two tokens, where the other still speaks.
    spoken_to = Row((1,) * 5, (-1, 0, -1, -1, 1), (0.0,) * 5, (0,) * 5)
    speaking = Row((1,) * 5, (-1, 0, 0, 0, 0), (0.0,) * 5, (0,) * 5)
    chain = chain_of(normalise="position", format_outcome="keep")
    members = (
        trajectory_of(spoken_to, ([-1.0, -0.6], 1.0)),
        trajectory_of(speaking, ([-1.0], 0.0)),
    )
    found = chain.advantages(batch_of(chain, [Group("t", members)]), 1).advantage_BT
    assert found is not None
    # Returns 1.4 1.4 1.4 1 and 0 0 0 0.
    assert found[0].tolist() == pytest.approx([0, 0.7, 0, 0, 0.5], abs=1e-6)
    assert found[1].tolist() == pytest.approx([0, -0.7, -0.7, -0.7, -0.5], abs=1e-6)


def test_places_of_a_row_cannot_be_compared_where_turns_are_rows(
    played: Callable[..., list[Group]],
) -> None:
    chain = build_chain({"name": "igpo:released"}, STEPS)
    with pytest.raises(UsageError, match=r"policy\.context = full"):
        chain.advantages(batch_of(chain, played(TWO, layout="window")), 1)


def test_released_sets_the_released_constants() -> None:
    options = build_chain({"name": "igpo:released"}, STEPS).options()
    assert options["igpo"]["gain"] == "probability"
    assert options["igpo"]["gamma"] == 1
    assert options["igpo"]["format_outcome"] == -2
    assert options["grpo"]["kl_coef"] == options["grpo"]["entropy_coef"] == 0.001


# What the log shows, and what is refused --------------------------------------------------------


def test_the_log_tells_gains_and_how_many_are_missing(played: Callable[..., list[Group]]) -> None:
    chain = chain_of()
    groups = played([([-1.0, math.nan, -0.5, -0.9], 1.0), ([-1.0, -0.8], 0.0)])
    chain.advantages(batch_of(chain, groups), 1)
    found = chain.metrics(1)
    # -.4 and .2 of four turns that another one follows
    assert found["igpo/gain_mean"] == pytest.approx(-0.1, abs=1e-6)
    assert found["igpo/gain_abs"] == pytest.approx(0.3, abs=1e-6)
    assert found["igpo/gain_max"] == pytest.approx(0.4, abs=1e-6)
    assert found["igpo/unscored"] == 0.5


def test_without_any_gain_the_outcome_alone_is_credit(played: Callable[..., list[Group]]) -> None:
    chain = chain_of()
    batch = batch_of(chain, played([([math.nan] * 2, 1.0), ([math.nan] * 2, 0.0)]))
    found = of_each_turn(batch, 1, chain)
    assert found == [pytest.approx([1, 1], abs=3e-6), pytest.approx([-1, -1], abs=3e-6)]
    assert chain.metrics(1) == {"igpo/unscored": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_in": "reward"}, "method.kl_in = 'reward'"),
        ({"gamma": 1.5}, "method.gamma = 1.5"),
        ({"normalise": "seperate"}, "method.normalise = 'seperate'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chain_of(**options)


def test_a_group_of_one_is_refused(played: Callable[..., list[Group]]) -> None:
    chain = chain_of()
    with pytest.raises(UsageError, match="group_size"):
        chain.advantages(batch_of(chain, played([([-1.0, -0.5], 1.0)])), 1)
