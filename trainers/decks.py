"""Which tasks a step plays: shuffled decks, one an environment, each dealt by its share."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from agentgym.errors import UsageError


@dataclass(frozen=True, slots=True)
class Deck:
    """The tasks of an environment, and its share of a step beside those of other decks."""

    tasks: tuple[str, ...]
    share: float = 1.0


def refuse_shared_tasks(decks: Mapping[str, Deck]) -> None:
    """Refuse decks that have a task of the same name: its episodes would be one group.

    Raises:
        UsageError: Two of them have; the message names both, by their names here, and the task.
    """
    for (one, ours), (other, theirs) in combinations(decks.items(), 2):
        both = set(ours.tasks).intersection(theirs.tasks)
        if both:
            raise UsageError(
                f"{one} and {other} both have a task called {min(both)!r}, and tasks of a run are"
                " told apart by name; train in one of them, or in another suite"
            )


def draw_tasks(decks: Sequence[Deck], count: int, seed: int, step: int) -> list[str]:
    """Return the tasks of a step, those of one deck together.

    A deck is dealt whole before it is shuffled anew; a step that reaches over its end draws no
    task twice. A function of the arguments alone, so that a resumed run plays what an unbroken one
    plays.

    Args:
        decks: With different tasks.
        count: How many tasks a step has; fewer where a deck has fewer than its share of them.
        seed: Of the run.
        step: Counted from 1.
    """
    places = list(islice(turns_of(decks), count * step))
    drawn: list[str] = []
    for number, deck in enumerate(decks):
        asked = [places[n * count : (n + 1) * count].count(number) for n in range(step)]
        dealt = [min(wanted, len(deck.tasks)) for wanted in asked]
        drawn += _deal(deck.tasks, sum(dealt[:-1]), dealt[-1], seed)
    return drawn


def spare_tasks(decks: Sequence[Deck], drawn: Sequence[str], seed: int, step: int) -> list[str]:
    """Return the tasks that a step did not draw, by shares, in an order that is the step's own."""
    taken = set(drawn)
    left = [[task for task in deck.tasks if task not in taken] for deck in decks]
    for tasks in left:
        random.Random(f"{seed}:{step}:refill").shuffle(tasks)
    spare: list[str] = []
    places = turns_of(decks)
    waiting = [iter(tasks) for tasks in left]
    while len(spare) < sum(map(len, left)):
        spare += islice(waiting[next(places)], 1)
    return spare


def turns_of(decks: Sequence[Deck]) -> Iterator[int]:
    """Yield without end which deck is next: the one that is furthest behind its share."""
    whole = sum(deck.share for deck in decks)
    given = [0] * len(decks)
    place = 0
    while True:
        place += 1
        behind = [place * deck.share / whole - had for deck, had in zip(decks, given, strict=True)]
        next_one = behind.index(max(behind))
        given[next_one] += 1
        yield next_one


def _deal(tasks: Sequence[str], position: int, count: int, seed: int) -> list[str]:
    """Return so many tasks from a place in the endless row of shuffled decks."""
    drawn: list[str] = []
    while len(drawn) < count:
        deck, index = divmod(position, len(tasks))
        order = list(tasks)
        random.Random(f"{seed}:deck:{deck}").shuffle(order)
        drawn += [task for task in order[index : index + count - len(drawn)] if task not in drawn]
        position = (deck + 1) * len(tasks)
    return drawn
