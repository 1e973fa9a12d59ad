"""A corridor of coloured doors: a free, instant, deterministic environment for tests and docs.

The goal names a colour, once, in the first observation. Each room then shows three doors, one of
them of that colour, in an order that tells nothing; naming a colour takes that door. The right
door leads into the next room, the last one out. A wrong door leads to a dead end, from which
there is only the way back; a second wrong door loses. An agent wins if it remembers the goal
against the distractors for as many turns as there are rooms::

    follow red              -> green    (wrong)
    doors blue red green
    dead end                -> back
    doors blue red green    -> red
    doors red grey blue     -> red
    out

Rooms are 2, 3 or 4 in ``corridor/train`` and ``corridor/test``. One who chooses among the
admissible actions at random, with p = 1/3 a door and one mistake allowed, wins n rooms with
probability ``p^n (1 + n (1 - p))``: 0.26, 0.11 and 0.05, on average 0.14. The expert always wins.
``corridor/short`` has one room and allows no mistake: an episode of a single turn, won at random
with probability 1/3.

All text is lower-case words of :data:`WORDS` separated by white space, so that a tokenizer with
one entry a word, and a model of a few thousand parameters, can play.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import ClassVar

from agentgym.envs.base import Outcome, TextEnv
from agentgym.types import Info, Suite

COLOURS = ("red", "blue", "green", "grey", "pink", "gold")
BACK = "back"
WORDS = (*COLOURS, BACK, "follow", "doors", "dead", "end", "what", "out", "lost")
"""Every word that the environment says, or understands."""

_DOORS = 3  # in a room


@dataclass(frozen=True, slots=True)
class Corridor:
    """One task: the colour to follow, the doors of each room, the mistakes that are forgiven."""

    colour: str
    rooms: tuple[tuple[str, ...], ...]
    forgiven: int


def _draw(stream: str, lengths: tuple[int, ...], forgiven: int) -> Iterator[Corridor]:
    """Yield corridors without end, no two alike, with the lengths in turn."""
    rng = random.Random(stream)
    seen: set[Corridor] = set()
    while True:
        colour = rng.choice(COLOURS)
        others = [other for other in COLOURS if other != colour]
        rooms = []
        for _ in range(lengths[len(seen) % len(lengths)]):
            doors = [colour, *rng.sample(others, _DOORS - 1)]
            rng.shuffle(doors)
            rooms.append(tuple(doors))
        corridor = Corridor(colour, tuple(rooms), forgiven)
        if corridor not in seen:
            seen.add(corridor)
            yield corridor


@cache
def _tasks(suite: str) -> dict[str, Corridor]:
    """Return the corridors of a suite by task id; train and test are cut from one stream."""
    if suite == "short":
        drawn = list(islice(_draw("corridor/short", (1,), forgiven=0), 64))
    else:
        start, stop = (0, 256) if suite == "train" else (256, 320)
        drawn = list(islice(_draw("corridor", (2, 3, 4), forgiven=1), start, stop))
    return {f"{suite}-{number:03}": corridor for number, corridor in enumerate(drawn)}


_ABOUT = {
    "train": "two to four rooms of three doors, one mistake forgiven",
    "test": "two to four rooms of three doors, one mistake forgiven; none is in corridor/train",
    "short": "one room of three doors, no mistake forgiven: episodes of one turn",
}


class CorridorEnv(TextEnv):
    """The corridor of coloured doors; the module says how it plays.

    The task alone decides everything: the seed of an episode changes nothing.
    """

    name: ClassVar[str] = "corridor"
    default_suite: ClassVar[str] = "corridor/train"
    default_max_turns: ClassVar[int] = 8
    has_expert: ClassVar[bool] = True
    has_answer: ClassVar[bool] = True

    @classmethod
    def suite_names(cls) -> tuple[str, ...]:
        """Return the three suites."""
        return tuple(f"corridor/{short}" for short in _ABOUT)

    def load_suite(self, name: str) -> Suite:
        """Return a suite; it is drawn, always the same, when it is first asked for."""
        if name not in self.suite_names():
            raise self.unknown_suite(name)
        short = name.removeprefix("corridor/")
        return Suite(
            name=name,
            tasks=tuple(_tasks(short)),
            official=False,
            held_out=short == "test",
            about=_ABOUT[short],
        )

    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        """Enter the first room; only this observation tells the goal."""
        self._id = task
        self._corridor = self._find(task)
        self._room = 0
        self._mistakes = 0
        self._dead_end = False
        return f"{self._goal()}\n{self._view()}", self._info(admissible=True)

    def act(self, action: str) -> Outcome:
        """Take a door or the way back; any other action changes nothing."""
        action = action.strip().lower()
        admissible = action in self._choices()
        if not admissible:
            observation = f"what\n{self._view()}"
        else:
            self._move(action)
            observation = self._view()
        won = self._won()
        return Outcome(observation, float(won), won or self._lost(), self._info(admissible))

    def task_type(self, task: str) -> str:
        """Return how many rooms a task has, as ``3 rooms``."""
        rooms = len(self._find(task).rooms)
        return f"{rooms} room{'s' if rooms > 1 else ''}"

    def expert(self) -> str | None:
        """Return the colour to follow, or the way back out of a dead end; None when it is over."""
        if self._won() or self._lost():
            return None
        return BACK if self._dead_end else self._corridor.colour

    def _find(self, task: str) -> Corridor:
        return _tasks(self.suite.name.removeprefix("corridor/"))[task]

    def _move(self, action: str) -> None:
        if action == BACK:
            self._dead_end = False
        elif action == self._corridor.colour:
            self._room += 1
        else:
            self._mistakes += 1
            self._dead_end = True

    def _won(self) -> bool:
        return self._room == len(self._corridor.rooms)

    def _lost(self) -> bool:
        return self._mistakes > self._corridor.forgiven

    def _choices(self) -> tuple[str, ...]:
        if self._won() or self._lost():
            return ()
        return (BACK,) if self._dead_end else self._corridor.rooms[self._room]

    def _goal(self) -> str:
        return f"follow {self._corridor.colour}"

    def _view(self) -> str:
        if self._won():
            return "out"
        if self._lost():
            return "lost"
        if self._dead_end:
            return "dead end"
        return f"doors {' '.join(self._corridor.rooms[self._room])}"

    def _info(self, admissible: bool) -> Info:
        return Info(
            task_id=self._id,
            task_type=self.task_type(self._id),
            goal=self._goal(),
            won=self._won(),
            score=float(self._won()),
            admissible=admissible,
            admissible_actions=self._choices(),
            anchor=self._view(),
            answer=" ".join([self._corridor.colour] * len(self._corridor.rooms)),
        )
