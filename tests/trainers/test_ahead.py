"""Rounds of play: when they are begun, where they are played, and what becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from agentgym.errors import ServerError
from agentgym.trainers.ahead import Played, Rollouts
from agentgym.types import Group


class World:
    """Plays a round when it is let; remembers what was begun and played, and in which thread."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.played: list[tuple[int, str]] = []
        self.may = threading.Event()
        self.may.set()
        self.started = threading.Event()
        self.stopped = False
        self.fails = False

    def begin(self, step: int, tasks: Sequence[str]):
        assert threading.current_thread() is threading.main_thread()
        self.begun.append(step)

        def play() -> Played:
            self.started.set()
            assert self.may.wait(10)
            if self.fails:
                raise ServerError("gone")
            self.played.append((step, threading.current_thread().name.split("_")[0]))
            return [Group(task, ()) for task in tasks], []

        return play

    def stop(self) -> None:
        self.stopped = True
        self.may.set()

    def rollouts(self, staleness: int, last: int = 3) -> Rollouts:
        return Rollouts(
            self.begin, lambda step: [f"t{step}"], staleness, last, lambda: 0.0, self.stop
        )


def tasks_of(played: Played) -> list[str]:
    return [group.task for group in played[0]]


def test_without_staleness_each_round_is_played_when_it_is_asked_for_in_the_same_thread() -> None:
    world = World()
    with world.rollouts(0) as rollouts:
        for step in (1, 2):
            assert tasks_of(rollouts.of(step)([f"t{step}"])) == [f"t{step}"]
            rollouts.go_on(step)
            assert world.begun == list(range(1, step + 1))
    assert world.played == [(1, "MainThread"), (2, "MainThread")]


@pytest.mark.parametrize("staleness", [1, 2])
def test_so_many_steps_are_begun_ahead_and_none_after_the_last(staleness: int) -> None:
    world = World()
    with world.rollouts(staleness) as rollouts:
        for step in (1, 2, 3):
            assert tasks_of(rollouts.of(step)([f"t{step}"])) == [f"t{step}"]
            rollouts.go_on(step)
            assert world.begun == list(range(1, min(step + staleness, 3) + 1))
    assert world.played == [(step, "agentgym-rollout") for step in (1, 2, 3)]
    assert not world.stopped


def test_the_next_step_is_played_while_the_loop_does_something_else() -> None:
    world = World()
    with world.rollouts(1) as rollouts:
        rollouts.of(1)(["t1"])
        world.started.clear()
        world.may.clear()
        rollouts.go_on(1)  # returns though nothing can be played yet
        assert world.started.wait(10)
        world.may.set()
        assert tasks_of(rollouts.of(2)(["t2"])) == ["t2"]


def test_later_rounds_of_a_step_are_played_when_they_are_asked_for() -> None:
    world = World()
    with world.rollouts(1) as rollouts:
        rollouts.of(1)(["t1"])
        rollouts.go_on(1)
        play = rollouts.of(2)
        assert [tasks_of(play([task])) for task in ("t2", "spare")] == [["t2"], ["spare"]]
    assert world.begun == [1, 2, 2]
    assert {thread for _, thread in world.played} == {"agentgym-rollout"}


def test_what_was_played_ahead_is_thrown_away_where_the_run_ends_early() -> None:
    world = World()

    def run_that_is_interrupted() -> None:
        with world.rollouts(2) as rollouts:
            rollouts.of(1)(["t1"])
            world.started.clear()
            world.may.clear()
            rollouts.go_on(1)
            assert world.started.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_that_is_interrupted()
    assert world.stopped
    assert [step for step, _ in world.played] == [1, 2]  # the third was not even started
    assert not any(t.name.startswith("agentgym-rollout") for t in threading.enumerate())


def test_what_goes_wrong_ahead_is_told_where_it_is_asked_for() -> None:
    world = World()
    with world.rollouts(1) as rollouts:
        rollouts.of(1)(["t1"])
        world.fails = True
        rollouts.go_on(1)
        with pytest.raises(ServerError, match="gone"):
            rollouts.of(2)(["t2"])


def test_what_a_step_took_is_the_sum_of_its_rounds() -> None:
    world = World()
    sampled = iter(range(0, 100, 10))
    rollouts = Rollouts(
        world.begin, lambda _: ["t"], 1, 3, lambda: float(next(sampled)), world.stop
    )
    with rollouts:
        play = rollouts.of(1)
        play(["a"])
        play(["b"])
    took = rollouts.took(1)
    assert took.generated == 20
    assert took.seconds > 0
    assert rollouts.took(1).seconds == 0
