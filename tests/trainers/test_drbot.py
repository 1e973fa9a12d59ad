"""Which trajectories and groups Dr.BoT learns from, and that its loss is what it says."""

from dataclasses import replace
from math import inf

import pytest
import torch

from agentgym.errors import UsageError
from agentgym.trainers.drbot import repetitive, turn_ids, unreadable, widest
from agentgym.trainers.registry import build_chain
from agentgym.trainers.selection import Selection
from agentgym.types import Group, Stop, Trajectory


def drbot(**options: object):
    return build_chain({"name": "drbot", **options}, 10).links[0]


def selection(*groups: list[Trajectory]) -> Selection:
    made = [Group(f"task{g}", tuple(group)) for g, group in enumerate(groups)]
    outcome = [[float(t.won)] + [0.0] * (len(t.turns) - 1) for group in groups for t in group]
    return Selection(made, {"outcome": outcome})


def kept(found: Selection) -> list[tuple[str, list[int]]]:
    return [(g.task, [t.key.member for t in g.trajectories]) for g in found.groups]


@pytest.fixture
def pair(make_trajectory):
    """Build a group of one that won and others that lost, all sound."""

    def make(count: int = 3) -> list[Trajectory]:
        return [make_trajectory("t", i, (2, 3), won=i == 0) for i in range(count)]

    return make


def said(trajectory: Trajectory, text: str) -> Trajectory:
    first, *others = trajectory.turns
    return replace(trajectory, turns=(replace(first, text=text), *others))


# Filters ----------------------------------------------------------------------------------------


def test_a_step_without_a_fault_is_left_as_it_is(pair) -> None:
    before = selection(pair())
    assert drbot().select(before, 1) is before


@pytest.mark.parametrize("fault", ["overlong", "incomplete", "repetitive", "unreadable"])
def test_each_fault_costs_a_trajectory_its_place_if_its_filter_is_on(fault, pair) -> None:
    group = pair(4)
    bad = group[2]
    if fault == "overlong":
        group[2] = replace(bad, stop=Stop.TOKENS)
    elif fault == "incomplete":
        turns = (bad.turns[0], replace(bad.turns[1], parse_error="no action"))
        group[2] = replace(bad, turns=turns)
    elif fault == "unreadable":
        group[2] = said(bad, "go to \ufffd\ufffd")
    else:
        ids = tuple([1, 2] * 12)
        row = replace(
            bad.rows[0], ids=ids, turns=(0,) * 24, logprobs=(0.0,) * 24, versions=(0,) * 24
        )
        group[2] = replace(bad, rows=(row,))
    method = drbot(ngram=4)
    found = method.select(selection(group, pair()), 1)
    # The second group goes by its deviation: .47 of (1, 0, 0) in both, and the first ones stay.
    assert kept(found) == [("task0", [0, 1, 3])]
    assert found.rewards["outcome"] == [[1, 0], [0, 0], [0, 0]]
    assert method.metrics(1)[f"drbot/{fault}"] == pytest.approx(1 / 7)
    others = [one for one in ("overlong", "incomplete", "repetitive", "unreadable") if one != fault]
    assert kept(drbot(ngram=4, filters=others).select(selection(group), 1))[0][1] == [0, 1, 2, 3]


def test_a_turn_of_the_limit_is_overlong(pair) -> None:
    group = pair()  # turns of 2 and 3 tokens
    assert len(drbot(overlong_limit=4).select(selection(group), 1).trajectories) == 3
    assert drbot(overlong_limit=4)._faults(group[0]) == set()
    assert drbot(overlong_limit=3)._faults(group[0]) == {"overlong"}


def test_a_group_of_which_one_stays_goes(pair) -> None:
    mute = [replace(t, stop=Stop.TOKENS) for t in pair(3)[1:]]
    found = drbot(keep_groups=1).select(selection([pair()[0], *mute], pair()), 1)
    assert kept(found) == [("task1", [0, 1, 2])]


def test_where_no_group_would_stay_all_do(pair) -> None:
    mute = [replace(t, stop=Stop.TOKENS) for t in pair()]
    before = selection(mute)
    assert drbot().select(before, 1) is before


def test_a_repetition_is_an_ngram_that_stands_there_often() -> None:
    assert repetitive([1, 2, 3] * 10, ngram=3, times=10)
    assert not repetitive([1, 2, 3] * 10, ngram=3, times=11)
    assert not repetitive([*range(200)], ngram=20, times=2)
    assert repetitive([7] * 29, ngram=20, times=10)  # 29 - 20 + 1 = 10 places
    assert not repetitive([7] * 28, ngram=20, times=10)
    assert not repetitive([], ngram=20, times=10)


def test_repetitions_are_counted_within_a_turn(make_trajectory) -> None:
    trajectory = make_trajectory("t", 0, (2, 3))
    ids = turn_ids(trajectory)
    assert [len(of_turn) for of_turn in ids] == [2, 3]
    assert ids[0] == list(trajectory.rows[0].ids[3:5])


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("go to the café\n\tthen «left» 😀 👩‍🚀", False),
        ("", False),
        ("half a \ufffd byte", True),
        ("bell \x07", True),
        ("private \ue000", True),
    ],
)
def test_a_text_is_unreadable_if_it_holds_what_is_no_character(text, bad) -> None:
    assert unreadable(text) is bad


def test_the_groups_that_differ_most_stay() -> None:
    groups = [[1, 1], [0, 1], [0, 0.5], [0, 10]]  # deviations 0, .5, .25, 5
    assert widest(groups, 0.75) == [False, True, True, True]
    assert widest(groups, 0.5) == [False, True, False, True]
    assert widest(groups, 0.1) == [False, False, False, True]  # at least one
    assert widest([[0, 1]] * 4, 0.5) == [True, True, False, False]
    assert widest([], 0.75) == []


# Credit and loss --------------------------------------------------------------------------------


def test_its_advantage_is_the_return_less_the_groups_mean(two_groups) -> None:
    # Group one won 1, 0, 0, 1, group two 0, 0, 1, 0.
    batch = drbot().advantages(two_groups, 1)
    first_M = [batch.advantage_BT[batch.trajectory_B == n].max().item() for n in (0, 6)]
    assert first_M == [0.5, 0.75]


def test_with_omega_it_is_on_gigpo(two_groups) -> None:
    on_gigpo = build_chain({"name": "gigpo", "normalise": False}, 10).links[0]
    found = drbot(omega=1.0).advantages(two_groups, 1)
    assert torch.equal(found.advantage_BT, on_gigpo.advantages(two_groups, 1).advantage_BT)
    assert not torch.equal(found.advantage_BT, drbot().advantages(two_groups, 1).advantage_BT)


def test_the_released_preset_counts_turns_and_sums_rows() -> None:
    options = build_chain({"name": "drbot:released"}, 10).options()["drbot"]
    assert (options["unit"], options["sequence"], options["sum_norm"]) == ("turn", "row", 512)
    assert (options["clip_low"], options["clip_high"], options["dual_clip"]) == (0.2, 0.28, inf)


def test_an_unknown_filter_is_refused() -> None:
    with pytest.raises(UsageError, match=r"method\.filters"):
        drbot(filters=["overlong", "ugly"])
