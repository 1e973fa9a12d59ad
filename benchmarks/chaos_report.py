"""The page of the chaos job."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol


class Line(Protocol):
    """What became of a run."""

    fault: str
    scenario: str
    moment: str
    told: str
    ended: int
    resumed: bool
    healed: int
    bitwise: bool
    failures: list[str]
    seconds: float


def report(results: Sequence[Line], full_by: str) -> tuple[str, bool]:
    """Return a page of Markdown, and whether anything failed.

    Args:
        results: Of all runs.
        full_by: How disks were made full.
    """
    failed = [one for one in results if one.failures]
    minutes = sum(one.seconds for one in results) / 60
    lines = [
        "# Chaos: training runs that are hit once, and resumed",
        "",
        f"`make test-chaos`, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}:"
        f" {len(results)} runs in {minutes:.0f} minutes on a machine that did other things too."
        " What is asked and how: see `benchmarks/chaos.py`. The full disk was"
        f" {full_by}.",
        "",
        "**Nothing failed.**" if not failed else f"**{len(failed)} failed.**",
        "",
        "| fault | run | runs | resumed | faults healed | ended as undisturbed | bit for bit |",
        "|---|---|---:|---:|---:|---:|---:|",
        *_rows(results),
        "",
        "A run that was not resumed lived through its fault, or had ended before it could matter.",
        "Of runs that a server sampled for, the tasks and members of every step and evaluation",
        "must be the same; that all else was is told in the last column.",
        "",
        *_runs(results),
    ]
    return "\n".join(lines), bool(failed)


def _rows(results: Sequence[Line]) -> Iterator[str]:
    kinds = sorted({(one.fault, one.scenario) for one in results})
    for fault, scenario in [*kinds, ("**all**", "")]:
        those = [one for one in results if (one.fault, one.scenario) == (fault, scenario)]
        those = those or list(results)
        cells = (
            len(those),
            sum(one.resumed for one in those),
            sum(one.healed for one in those),
            sum(not one.failures for one in those),
            sum(one.bitwise for one in those),
        )
        yield f"| {fault} | {scenario} | {' | '.join(map(str, cells))} |"


def _runs(results: Sequence[Line]) -> Iterator[str]:
    yield "| fault | run | hit | what | exit code | |"
    yield "|---|---|---|---|---:|---|"
    for one in results:
        how = "; ".join(one.failures) or "the same"
        cells = (one.fault, one.scenario, one.moment, one.told, str(one.ended), how)
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    yield ""
