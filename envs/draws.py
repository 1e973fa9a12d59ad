"""Draws that are the same on every machine and in every Python.

They ask a generator for ``random()`` only, whose sequence for a seed Python promises to keep; that
of ``choice``, ``sample`` and ``shuffle`` has changed before.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def pick(rng: random.Random, items: Sequence[_Item]) -> _Item:
    """Return one of ``items``, each with the same probability."""
    return items[int(rng.random() * len(items))]


def between(rng: random.Random, least: int, most: int) -> int:
    """Return an integer from ``least`` to ``most``, both included."""
    return least + int(rng.random() * (most - least + 1))


def shuffled(rng: random.Random, items: Iterable[_Item]) -> list[_Item]:
    """Return all of ``items`` in a random order."""
    left = list(items)
    return [left.pop(int(rng.random() * len(left))) for _ in range(len(left))]


def some(rng: random.Random, items: Sequence[_Item], number: int) -> list[_Item]:
    """Return ``number`` of ``items``, or all if there are fewer, in the order that they have."""
    drawn = sorted(shuffled(rng, range(len(items)))[:number])
    return [items[place] for place in drawn]
