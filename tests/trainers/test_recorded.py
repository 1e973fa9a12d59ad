"""Demonstrations that are played once and learnt many times."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agentgym.envs.base import TextEnv
from agentgym.envs.corridor import CorridorEnv
from agentgym.errors import DataError, UsageError
from agentgym.trainers.demonstrations import Demonstration, Demonstrations
from agentgym.trainers.recorded import FromFile, Recorded


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


# From elsewhere -----------------------------------------------------------------------------------


def line(**changed: Any) -> dict[str, Any]:
    turns = [{"observation": "doors red blue", "action": "red", "parse_error": None}]
    whole = {"task": "train-000", "suite": "corridor/train", "goal": "follow red", "won": True}
    return {**whole, "turns": turns, **changed}


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_won_demonstrations_of_a_file_are_learnt_again_and_again(tmp_path: Path) -> None:
    lost = line(task="train-001", won=False)
    path = written(tmp_path / "d.jsonl", line(), lost, line(task="train-002"), line(turns=[]))
    found = FromFile(path)
    assert (found.env, found.tasks) == ("corridor", ("train-000", "train-002"))
    assert [found[number].task for number in range(3)] == ["train-000", "train-002", "train-000"]
    (shown,) = found[0].turns
    assert (shown.view.observation, shown.action, shown.slip) == ("doors red blue", "red", False)


def test_what_was_said_against_the_format_is_not_learnt(tmp_path: Path) -> None:
    turns = [
        {"observation": "a", "action": "", "parse_error": "there is no <action>"},
        {"observation": "b", "action": "red", "parse_error": None},
        {"observation": "c", "action": "red", "slip": True},
    ]
    (demonstration,) = [FromFile(written(tmp_path / "d.jsonl", line(turns=turns)))[0]]
    assert [shown.slip for shown in demonstration.turns] == [True, False, True]


@pytest.mark.parametrize(
    "wrong",
    [{}, line(goal=None), line(won="yes"), line(turns=None), line(turns=[{"action": "red"}])],
)
def test_a_line_that_is_no_demonstration_is_told(tmp_path: Path, wrong: object) -> None:
    path = written(tmp_path / "d.jsonl", line(), wrong)
    with pytest.raises(DataError, match=r"d\.jsonl, line 2 is no demonstration: it needs task"):
        FromFile(path)


def test_a_file_without_a_won_demonstration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no won demonstration"):
        FromFile(written(tmp_path / "d.jsonl", line(won=False)))


def test_nothing_is_learnt_from_what_is_held_out_or_of_two_environments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="corridor/test is held out"):
        FromFile(written(tmp_path / "d.jsonl", line(), line(suite="corridor/test")))
    with pytest.raises(UsageError, match="beside those of alfworld"):
        FromFile(written(tmp_path / "d.jsonl", line(), line(suite="alfworld/gen-train")))
