"""What a step learns from: broken rewards are left out, wishes for more groups are met."""

import math
from dataclasses import replace

import pytest

from agentgym.trainers.collect import collect
from agentgym.trainers.method import Chain, Method, Options, RewardOptions
from agentgym.trainers.selection import Selection
from agentgym.types import Group, Stop

OUTCOME = RewardOptions(outcome="score", format_penalty=0)


class Picky(Method[Options]):
    """Leaves out groups of some tasks and wants others in their place."""

    name = "picky"

    def __init__(self, refused: set[str]) -> None:
        super().__init__(Options(), 10)
        self.refused = refused
        self.seen: list[Selection] = []

    def select(self, selection: Selection, step: int) -> Selection:
        self.seen.append(selection)
        stays = [group.task not in self.refused for group in selection.groups]
        return selection.keep_groups(stays).wanting(stays.count(False))


@pytest.fixture
def play(make_trajectory):
    """Play two episodes a task, of scores 0 and 1, and remember which tasks were asked for."""

    def play(tasks):
        play.asked.append(list(tasks))
        made = [Group(t, tuple(make_trajectory(t, m, score=m) for m in (0, 1))) for t in tasks]
        return made, []

    play.asked = []
    return play


def test_one_round_brings_every_task_of_the_step(play) -> None:
    found = collect(play, Chain("x", [Method(Options(), 10)], OUTCOME), ["a", "b"], ["c"], 1)
    assert play.asked == [["a", "b"]]
    assert [group.task for group in found.groups] == ["a", "b"]
    assert found.rewards["outcome"] == [[0], [1], [0], [1]]
    assert found.metrics() == {
        "rollout/errors": 0,
        "rollout/error_rate": 0,
        "rollout/rounds": 1,
        "rollout/left_out": 0,
    }


def test_what_is_left_out_is_replaced_by_spare_tasks_in_their_order(play) -> None:
    method = Picky({"a", "c", "d"})
    found = collect(play, Chain("x", [method], OUTCOME), ["a", "b"], ["c", "d", "e", "f"], 1)
    assert play.asked == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [group.task for group in found.groups] == ["b", "e"]
    assert [s.rounds for s in method.seen] == [1, 2, 3, 4]
    assert [s.spare for s in method.seen] == [4, 3, 2, 1]
    assert len(found.played) == 10  # the ones that were left out were played too
    assert found.metrics()["rollout/left_out"] == 6


def test_it_ends_where_no_task_is_left(play) -> None:
    found = collect(play, Chain("x", [Picky({"a", "b", "c"})], OUTCOME), ["a", "b"], ["c"], 1)
    assert play.asked == [["a", "b"], ["c"]]
    assert list(found.groups) == []
    assert found.rounds == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_no_number_breaks_its_trajectory_alone(value, make_trajectory) -> None:
    turn = make_trajectory().turns[0]
    bad_score = make_trajectory("a", 1, score=value)
    bad_reward = replace(make_trajectory("a", 2), turns=(turn, replace(turn, reward=value)))
    good = [make_trajectory("a", 0), make_trajectory("a", 3)]
    group = Group("a", (good[0], bad_score, bad_reward, good[1]))
    chain = Chain("x", [Method(Options(), 10)], OUTCOME)
    found = collect(lambda _: ([group], []), chain, ["a"], [], 1)
    assert found.groups[0].trajectories == tuple(good)
    assert found.rewards["outcome"] == [[0], [0]]
    assert found.played == good
    assert [t.stop for t in found.broken] == [Stop.ERROR] * 2
    assert f"the score is {value}" in found.broken[0].error
    assert f"'environment' of turn 1 is {value}" in found.broken[1].error
    assert found.metrics()["rollout/errors"] == 2
    assert found.what_broke().startswith("2 episodes broke, in task a: the score is")


def test_a_part_that_a_method_gave_may_break_too(make_trajectory) -> None:
    class Spoiling(Method[Options]):
        name = "spoiling"

        def turn_rewards(self, groups, rewards, step):
            return {**rewards, "gain": [[0.0], [math.nan], [0.0]]}

    group = Group("a", tuple(make_trajectory("a", m) for m in range(3)))
    chain = Chain("x", [Spoiling(Options(), 1)], OUTCOME)
    found = collect(lambda _: ([group], []), chain, ["a"], [], 1)
    assert [t.key.member for t in found.groups[0].trajectories] == [0, 2]
    assert "'gain'" in found.broken[0].error


@pytest.mark.parametrize(("members", "left"), [(2, 0), (3, 2), (1, 0)])
def test_a_group_left_with_one_of_several_has_nothing_to_compare(
    members, left, make_trajectory
) -> None:
    made = [make_trajectory("a", m, score=math.nan if m == 0 else 0) for m in range(members)]
    chain = Chain("x", [Method(Options(), 10)], OUTCOME)
    found = collect(lambda _: ([Group("a", tuple(made))], []), chain, ["a"], [], 1)
    assert sum(len(group.trajectories) for group in found.groups) == left


def test_errors_are_counted_as_a_share_and_each_reason_is_told_once(make_trajectory) -> None:
    whole = [make_trajectory("a", 0), make_trajectory("a", 1)]
    broken = [
        replace(make_trajectory(task, 2), stop=Stop.ERROR, error=reason)
        for task, reason in (("a", "no page"), ("b", "no power"), ("c", "no page"))
    ]
    chain = Chain("x", [Method(Options(), 10)], OUTCOME)
    found = collect(lambda _: ([Group("a", tuple(whole))], broken), chain, ["a"], [], 1)
    assert found.metrics()["rollout/errors"] == 3
    assert found.metrics()["rollout/error_rate"] == 3 / 5
    assert found.reasons() == ["no page", "no power"]
    assert found.what_broke() == "3 episodes broke, in task a: no page; in task b: no power"
    assert found.what_broke({"no page"}) == "3 episodes broke, in task b: no power"
