"""The tasks of ScienceWorld, their variations, and the named sets of them.

Everything here is counted, not read: the simulator cuts the variations of a task, in order, into
quarters of equal size (rounded down); the first two train, the third is for development, the
last, with what is left over, is the test.

Sources: Wang et al., "ScienceWorld: Is your Agent Smarter than a 5th Grader?", EMNLP 2022. The
L0, L1 and L2 sets are those of the published EPO and RLVMR experiments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

VARIATIONS: Mapping[str, int] = {
    "boil": 30,
    "change-the-state-of-matter-of": 30,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "find-animal": 300,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "freeze": 30,
    "grow-fruit": 126,
    "grow-plant": 126,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
    "inclined-plane-determine-angle": 168,
    "inclined-plane-friction-named-surfaces": 1386,
    "inclined-plane-friction-unnamed-surfaces": 162,
    "lifespan-longest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "lifespan-shortest-lived": 125,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "melt": 30,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 480,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "use-thermometer": 540,
}
"""How many variations each task has, in the simulator's order."""

LEFT_OUT = frozenset({"use-thermometer"})
"""What the L0, L1 and L2 sets do not have."""

UNSEEN = frozenset(
    {
        "change-the-state-of-matter-of",
        "chemistry-mix-paint-tertiary-color",
        "find-plant",
        "grow-plant",
        "identify-life-stages-2",
        "inclined-plane-friction-unnamed-surfaces",
        "lifespan-longest-lived-then-shortest-lived",
        "measure-melting-point-unknown-substance",
        "mendelian-genetics-unknown-plant",
        "test-conductivity-of-unknown-substances",
    }
)
"""The tasks that L2 trains on in no variation, and tests."""

SHORT = frozenset(
    {
        "find-animal",
        "find-living-thing",
        "find-non-living-thing",
        "find-plant",
        "lifespan-longest-lived",
        "lifespan-longest-lived-then-shortest-lived",
        "lifespan-shortest-lived",
    }
)
"""Tasks that take few steps: find something and bring it, or point at it."""

PANEL = 5  # variations a task
SHORT_PANEL = 10

_ALL = frozenset(VARIATIONS)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which variations of which tasks a suite has."""

    split: str  # the simulator's own: train, dev or test
    about: str
    tasks: frozenset[str] = _ALL
    at_most: int | None = None  # variations a task, spread evenly; None takes all
    official: bool = True


SELECTIONS: Mapping[str, Selection] = {
    "train": Selection("train", "the benchmark's training variations"),
    "dev": Selection("dev", "the benchmark's development variations"),
    "test": Selection("test", "the benchmark's test variations"),
    "L0-train": Selection("train", "training variations of 29 tasks", _ALL - LEFT_OUT),
    "L0-test": Selection("dev", "29 tasks in their development variations", _ALL - LEFT_OUT),
    "L1-train": Selection("train", "the same tasks as L0-train", _ALL - LEFT_OUT),
    "L1-test": Selection("test", "29 tasks in their test variations", _ALL - LEFT_OUT),
    "L2-train": Selection("train", "training variations of 19 tasks", _ALL - LEFT_OUT - UNSEEN),
    "L2-test": Selection("test", "the 10 tasks that L2-train has not, test variations", UNSEEN),
    "panel-test": Selection(
        "test", f"{PANEL} test variations a task, spread evenly", at_most=PANEL, official=False
    ),
    "short-train": Selection(
        "train", "training variations of the 7 shortest tasks", SHORT, official=False
    ),
    "short-test": Selection(
        "test", "test variations of the 7 shortest tasks", SHORT, official=False
    ),
    "short-panel-test": Selection(
        "test",
        f"{SHORT_PANEL} test variations of each of the 7 shortest tasks, spread evenly",
        SHORT,
        at_most=SHORT_PANEL,
        official=False,
    ),
}
"""The named sets, without ``scienceworld/``."""


def split_of(task: str, split: str) -> range:
    """Return the variations of a task in ``train``, ``dev`` or ``test``."""
    total = VARIATIONS[task]
    quarter = total // 4
    starts = {"train": 0, "dev": 2 * quarter, "test": 3 * quarter}
    stops = {"train": 2 * quarter, "dev": 3 * quarter, "test": total}
    return range(starts[split], stops[split])


@cache
def task_ids(selection: str) -> tuple[str, ...]:
    """Return the ids of a named set, in the simulator's order: ``find-plant/225``."""
    return tuple(_ids(SELECTIONS[selection]))


def _ids(selection: Selection) -> Iterator[str]:
    for task in VARIATIONS:
        if task not in selection.tasks:
            continue
        there = split_of(task, selection.split)
        count = min(len(there), selection.at_most or len(there))
        for place in range(count):
            yield f"{task}/{there[place * len(there) // count]}"


def parse_id(task_id: str) -> tuple[str, int]:
    """Return the task and the variation of an id."""
    task, _, variation = task_id.rpartition("/")
    return task, int(variation)


def is_electrical(task: str) -> bool:
    """Return whether a task cannot be done without electrical actions."""
    return "power-component" in task or "conductivity" in task
