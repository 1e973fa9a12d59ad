import pytest
import torch

from agentgym.errors import UsageError
from agentgym.trainers.aggregate import Aggregation
from agentgym.trainers.collect import collect
from agentgym.trainers.dapo import DAPO, DAPOOptions, turn_lengths
from agentgym.trainers.method import Chain, Forward, Loss, MiniBatchWeights, RewardOptions
from agentgym.trainers.registry import build_chain
from agentgym.trainers.selection import Selection
from agentgym.types import Group


def dapo(**options) -> DAPO:
    return DAPO(DAPOOptions(**options), 10)


@pytest.fixture
def select(make_trajectory):
    """Select among groups of given outcomes (and penalties), after a round of play."""

    def select(method: DAPO, outcomes, penalties=None, rounds=1, spare=99) -> Selection:
        groups = [
            Group(str(g), tuple(make_trajectory(str(g), m) for m in range(len(found))))
            for g, found in enumerate(outcomes)
        ]
        rewards = {"outcome": [[float(x)] for found in outcomes for x in found]}
        if penalties is not None:
            rewards["format"] = [[float(x)] for found in penalties for x in found]
        return method.select(Selection(groups, rewards, rounds, spare), 1)

    return select


def names(selection: Selection) -> list[str]:
    return [group.task for group in selection.groups]


def test_groups_without_a_signal_are_left_out_and_as_many_are_wanted(select) -> None:
    found = select(dapo(), [(1, 1), (1, 0), (0, 0), (0, 1)])
    assert names(found) == ["1", "3"]
    assert found.wanted == 2
    assert found.rewards["outcome"] == [[1], [0], [0], [1]]


def test_no_more_are_wanted_than_are_left(select) -> None:
    assert select(dapo(), [(1, 1), (1, 0), (0, 0)], spare=1).wanted == 1


def test_a_selection_with_a_signal_everywhere_is_untouched(make_trajectory) -> None:
    group = Group("t", (make_trajectory("t", 0), make_trajectory("t", 1)))
    selection = Selection([group], {"outcome": [[1.0], [0.0]]}, 1, 9)
    assert dapo().select(selection, 1) is selection
    flat = Selection([group], {"outcome": [[1.0], [1.0]]}, 1, 9)
    assert dapo(signal="any").select(flat, 1) is flat


def test_penalties_are_a_signal_only_where_one_asks_for_the_return(select) -> None:
    outcomes, penalties = [(0, 0), (1, 0)], [(0, -0.1), (0, 0)]
    assert names(select(dapo(), outcomes, penalties)) == ["1"]
    assert names(select(dapo(signal="return"), outcomes, penalties)) == ["0", "1"]


def test_the_last_round_wants_nothing_more(select) -> None:
    found = select(dapo(max_rounds=3), [(1, 1), (1, 0)], rounds=3)
    assert names(found) == ["1"]
    assert found.wanted == 0
    assert select(dapo(max_rounds=3), [(1, 1), (1, 0)], rounds=2).wanted == 1


@pytest.mark.parametrize(("rounds", "spare"), [(10, 99), (1, 0)])
def test_where_nothing_has_a_signal_at_the_end_the_step_goes_on(rounds, spare, select) -> None:
    assert names(select(dapo(), [(1, 1), (1, 1)], rounds=rounds, spare=spare)) == ["0", "1"]


def test_a_step_is_refilled_until_all_its_groups_have_a_signal(make_trajectory) -> None:
    flat = {"a", "c", "d"}
    rounds = []

    def play(tasks):
        rounds.append(list(tasks))
        made = [
            Group(t, tuple(make_trajectory(t, m, won=t in flat or m == 0) for m in (0, 1)))
            for t in tasks
        ]
        return made, []

    chain = Chain("x", [dapo()], RewardOptions())
    found = collect(play, chain, ["a", "b", "c"], ["d", "e", "f", "g"], 1)
    assert rounds == [["a", "b", "c"], ["d", "e"], ["f"]]
    assert [group.task for group in found.groups] == ["b", "e", "f"]
    assert found.metrics() == {
        "rollout/errors": 0,
        "rollout/error_rate": 0,
        "rollout/rounds": 3,
        "rollout/left_out": 6,
    }


@pytest.mark.parametrize(("name", "value"), [("dapo", -1.28), ("grpo", -1.2)])
def test_a_ratio_may_rise_further(name, value, make_trajectory, make_batch) -> None:
    # ratio 1.5 at A = 1: clipped at 1.28; the mean is over tokens
    batch = make_batch([make_trajectory("t", 0, (2,)), make_trajectory("t", 1, (1,))])
    batch = batch.with_(
        old_logprob_BT=torch.zeros_like(batch.mask_BT), advantage_BT=batch.mask_BT.clone()
    )
    logprob_BT = torch.full(batch.mask_BT.shape, 1.5).double().log()
    forward = Forward(batch, logprob_BT, logprob_BT, 1, MiniBatchWeights(batch), torch.arange(2))
    (base,) = build_chain({"name": name}, 1).links
    assert base.loss(forward, Loss()).terms["policy"].value.item() == pytest.approx(value)
    assert base.options.aggregation is Aggregation.TOKEN_MEAN


def test_overlong_turns_cost_by_how_far_they_reach_into_the_buffer(make_trajectory) -> None:
    # free up to 6 tokens, then a quarter a token, the whole from 10 on
    lengths = (3, 6, 7, 9, 10, 14)
    group = Group("t", (make_trajectory("t", 0, lengths), make_trajectory("t", 1, (8,))))
    rewards = {"outcome": [[0.0] * 6, [0.0]]}
    found = dapo(overlong_limit=10, overlong_buffer=4).turn_rewards([group], rewards, 1)
    assert found["overlong"] == [[0, 0, -0.25, -0.75, -1, -1], [-0.5]]
    assert found["outcome"] is rewards["outcome"]
    assert dapo().turn_rewards([group], rewards, 1) is rewards


@pytest.mark.parametrize("layout", ["full", "window"])
def test_lengths_are_of_turns_in_both_layouts(layout, make_trajectory) -> None:
    assert turn_lengths(make_trajectory("t", 0, (3, 1, 2), layout=layout)) == [3, 1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlong_limit": 8, "overlong_buffer": 9}, "the buffer ends at the limit"),
        ({"signal": "outcom"}, "method.signal = 'outcom'"),
        ({"max_rounds": 0}, "method.max_rounds = 0"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        build_chain({"name": "dapo", **settings}, 1)
