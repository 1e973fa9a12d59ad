"""Demonstrations that are played once and learnt many times.

For environments in which an episode takes longer to play than to learn. What was played is kept in
a file, a line of JSON a demonstration, so that a run which goes on does not play it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from agentgym.errors import DataError
from agentgym.trainers.demonstrations import Demonstration, Demonstrations, Shown
from agentgym.types import View


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


def _read(path: Path) -> Iterator[Demonstration]:
    """Yield what a file holds; a last line that was cut off by a kill is taken away."""
    try:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            path.write_bytes(whole)
        for line in whole.decode().splitlines():
            record = json.loads(line)
            yield Demonstration(
                task=record["task"],
                turns=tuple(
                    Shown(
                        View(turn["observation"], record["goal"], number, None, None),
                        turn["action"],
                        turn["slip"],
                    )
                    for number, turn in enumerate(record["turns"])
                ),
                won=record["won"],
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the demonstrations in {path}: {error!r}; remove it, and they are played"
            " again"
        ) from error
