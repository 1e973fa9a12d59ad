"""Demonstrations that are played once and learnt many times, by a demonstrator or by somebody else.

For environments in which an episode takes longer to play than to learn. What was played is kept in
a file, a line of JSON a demonstration, so that a run which goes on does not play it again.

A file may also come from elsewhere: what ``agentgym play`` saved, or the trajectories of an
evaluation, of which the won ones are learnt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agentgym.envs.registry import env_of_suite, make_env
from agentgym.errors import DataError, UsageError
from agentgym.files import write_atomic
from agentgym.trainers.demonstrations import Demonstration, Demonstrations, Shown
from agentgym.trajectory_line import Line, read_lines
from agentgym.types import EnvSpec, View


class Recorded:
    """The first demonstrations of a sequence, again and again.

    Args:
        played: What is recorded, in its order, when it is first asked for.
        count: How many there are.
        path: The file that keeps them; what is in it already is taken from there.

    Raises:
        DataError: The file cannot be read.
    """

    def __init__(self, played: Demonstrations, count: int, path: Path) -> None:
        self._played = played
        self._count = count
        self._path = path
        self._kept = list(_read(path)) if path.exists() else []

    def __getitem__(self, number: int) -> Demonstration:
        """Return the demonstration of that number; after the last comes the first.

        Raises:
            DataError: It cannot be written down.
        """
        wanted = number % self._count
        while len(self._kept) <= wanted:
            self._record(self._played[len(self._kept)])
        return self._kept[wanted]

    def _record(self, demonstration: Demonstration) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(demonstration))
        except OSError as error:
            raise DataError(f"cannot write {self._path}: {error}") from error
        self._kept.append(demonstration)


def _line(demonstration: Demonstration) -> str:
    turns = [
        {"observation": shown.view.observation, "action": shown.action, "slip": shown.slip}
        for shown in demonstration.turns
    ]
    record = {
        "task": demonstration.task,
        "goal": demonstration.turns[0].view.goal,
        "won": demonstration.won,
        "turns": turns,
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


class FromFile:
    """The demonstrations of a file that somebody else wrote, again and again.

    Args:
        path: A demonstration a line, as ``agentgym play`` saves them or as an evaluation keeps its
            trajectories. Only won ones are taken.

    Raises:
        DataError: The file cannot be read, or holds no won demonstration.
        UsageError: They are of a held-out suite, or of several environments.

    Attributes:
        env: The name of their environment.
        tasks: Of the demonstrations, in their order.
    """

    def __init__(self, path: Path) -> None:
        lines = [line for line in _checked(path) if line["won"] and line["turns"]]
        if not lines:
            raise DataError(f"{path} holds no won demonstration; there is nothing to learn from it")
        suites = sorted({line["suite"] for line in lines})
        self.env = env_of_suite(suites[0])
        for suite in suites:
            _refuse_unfit(suite, self.env, path)
        self._kept = [_demonstration(line) for line in lines]
        self.tasks = tuple(line["task"] for line in lines)

    def __getitem__(self, number: int) -> Demonstration:
        """Return the demonstration of that number; after the last comes the first."""
        return self._kept[number % len(self._kept)]


def _checked(path: Path) -> Iterator[Line]:
    for number, line in enumerate(read_lines(path), 1):
        wrong = [name for name in ("task", "suite", "goal") if not isinstance(line.get(name), str)]
        turns = line.get("turns")
        fits = isinstance(turns, list) and all(
            isinstance(turn, dict)
            and isinstance(turn.get("observation"), str)
            and isinstance(turn.get("action"), str)
            for turn in turns
        )
        if wrong or not fits or not isinstance(line.get("won"), bool):
            raise DataError(
                f"{path}, line {number} is no demonstration: it needs task, suite, goal, won, and"
                " turns with an observation and an action each"
            )
        yield line


def _refuse_unfit(suite: str, env: str, path: Path) -> None:
    if env_of_suite(suite) != env:
        raise UsageError(f"{path} has demonstrations of {suite} beside those of {env}; learn one")
    with closing(make_env(EnvSpec(env, {"suite": suite}))) as made:
        if made.suite.held_out:
            raise UsageError(f"{suite} is held out: nothing is learnt from it; see {path}")


def _demonstration(line: Mapping[str, Any]) -> Demonstration:
    turns = tuple(
        Shown(
            View(turn["observation"], line["goal"], number, None, None),
            turn["action"],
            # What a model said against its format is as little to be learnt as a slip.
            turn.get("slip", turn.get("parse_error") is not None),
        )
        for number, turn in enumerate(line["turns"])
    )
    return Demonstration(line["task"], turns, line["won"])


def _read(path: Path) -> Iterator[Demonstration]:
    """Yield what a file holds; a last line that was cut off by a kill is taken away."""
    try:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            write_atomic(path, whole)
        for line in whole.decode().splitlines():
            yield _demonstration(json.loads(line))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"cannot read the demonstrations in {path}: {error!r}; remove it, and they are played"
            " again"
        ) from error
