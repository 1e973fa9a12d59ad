"""A soak fails where something has become more, and says what."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def report(load: Callable[[str], ModuleType]) -> Callable[..., tuple[str, list[str]]]:
    return load("soak_report").report


OPTIONS = {"episodes": 8, "rounds": 8, "kill_every_s": 3.0}
HELD = {"memory_mb": 100.0, "handles": 9.0, "threads": 2.0}


def round_(number: int, live_mb: float, memory_mb: float = 100.0) -> dict[str, Any]:
    counts = {name: {"maze": 1} for name in ("asked", "played", "steps", "won", "replayed")}
    health = {
        "own": HELD, "spared": {"maze": HELD}, "spared_java": {**HELD, "memory_mb": memory_mb},
        "spared_java_live_mb": live_mb, "workers": 2, "javas": 1, "orphans": 0,
    }  # fmt: skip
    return {
        "number": number, "seconds": 1.0, "killed": {}, "healed": {}, "stops": {"terminated": 1},
        "errors": [], "different": [], "health": health, **counts,
    }  # fmt: skip


def test_a_heap_that_grows_behind_steady_memory_fails(report: Callable[..., Any]) -> None:
    text, failures = report(OPTIONS, [round_(n, 20.0 + 2 * n) for n in range(8)], [])
    # rounds 2 and 3 beside 6 and 7: 25 and 33, which is 8 more and just allowed
    assert failures == []
    assert "Of the heap of that Java 25.0 → 33.0 MB outlive a collection." in text
    _, failures = report(OPTIONS, [round_(n, 20.0 + 2.1 * n) for n in range(8)], [])
    assert failures == ["its Java: the live heap went from 25.2 to 33.7 MB"]


def test_garbage_that_comes_and_goes_is_no_failure(report: Callable[..., Any]) -> None:
    rounds = [round_(n, 20.0, 100.0 + 20 * (n > 3)) for n in range(8)]
    assert report(OPTIONS, rounds, [])[1] == []
