"""Demonstrations that are played once and learnt many times."""

import random
from pathlib import Path

import pytest

from agentgym.envs.base import TextEnv
from agentgym.envs.corridor import CorridorEnv
from agentgym.errors import DataError
from agentgym.trainers.demonstrations import Demonstration, Demonstrations
from agentgym.trainers.recorded import Recorded


class Walker:
    """Takes the first of the admissible actions, or any."""

    def __init__(self, goal: str, rng: random.Random) -> None:
        self.rng = rng

    def act(self, observation: str, admissible: tuple[str, ...]) -> str:
        return self.rng.choice(admissible)


class Counting(CorridorEnv):
    """A corridor that counts its episodes."""

    episodes = 0

    def begin(self, task: str, seed: int):
        self.episodes += 1
        return super().begin(task, seed)


def played(env: TextEnv) -> Demonstrations:
    return Demonstrations(env, Walker, env.suite.tasks[:4], seed=0, slips=(0.3,))


def told(demonstration: Demonstration) -> object:
    """Return what of a demonstration can be learnt."""
    turns = [
        (one.view.observation, one.view.turn, one.action, one.slip) for one in demonstration.turns
    ]
    return demonstration.task, demonstration.won, demonstration.turns[0].view.goal, turns


def test_after_the_last_comes_the_first_and_none_is_played_twice(tmp_path: Path) -> None:
    env = Counting()
    recorded = Recorded(played(env), 3, tmp_path / "d.jsonl")
    taken = [told(recorded[number]) for number in range(7)]
    assert taken == [told(played(CorridorEnv())[number % 3]) for number in range(7)]
    assert env.episodes == 3


def test_what_was_recorded_is_not_played_again(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    before = told(Recorded(played(CorridorEnv()), 2, path)[1])
    env = Counting()
    recorded = Recorded(played(env), 3, path)
    assert told(recorded[1]) == before
    assert env.episodes == 0
    assert told(recorded[2]) == told(played(CorridorEnv())[2])
    assert env.episodes == 1


def test_a_line_that_was_cut_off_is_played_again(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    whole = told(Recorded(played(CorridorEnv()), 2, path)[1])
    path.write_bytes(path.read_bytes()[:-9])
    recorded = Recorded(played(CorridorEnv()), 2, path)
    assert told(recorded[1]) == whole
    assert told(Recorded(played(CorridorEnv()), 2, path)[1]) == whole


@pytest.mark.parametrize("line", ["{}\n", "[1]\n", "no json\n", "\xff\n"])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(line.encode("latin-1"))
    with pytest.raises(DataError, match="remove it"):
        Recorded(played(CorridorEnv()), 2, path)
