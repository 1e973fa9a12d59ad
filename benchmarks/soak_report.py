"""What a soak has shown: its rounds added up, what has become more, and what failed."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

Line = dict[str, Any]
"""A round as it was recorded."""

GROWTH = {"memory_mb": (1.10, 20.0), "handles": (1.0, 2.0), "threads": (1.0, 2.0)}
"""What the last quarter may hold of what the second held: a factor, and so much more."""

LIVE_GROWTH_MB = 8.0
"""What more of the spared Java's heap may be alive, which only episodes that go on account for.

Its memory above may move by more: a heap grows into garbage that nobody has collected yet.
"""


def report(
    options: Line, rounds: Sequence[Line], left_over: Sequence[str]
) -> tuple[str, list[str]]:
    """Return a page of Markdown, and what failed."""
    failures = [*_failures(rounds, left_over)]
    killed = _sum(rounds, "killed")
    seconds = sum(one["seconds"] for one in rounds)
    command = f"python benchmarks/soak.py --episodes {options['episodes']}"
    lines = [
        "# Soak: episodes while their processes are killed",
        "",
        f"`{command} --rounds {options['rounds']} --kill-every {options['kill_every_s']:g}`,"
        f" {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}:"
        f" {_sum(rounds, 'played').total():,} episodes in {seconds / 60:.0f} minutes, during which"
        f" {_told(killed)} were killed. What is asked and how: see the script.",
        "",
        "**Nothing failed.**" if not failures else "**Failed:**",
        *(f"- {one}" for one in failures),
        "",
        *_episodes(rounds),
        "",
        *_processes(rounds, left_over),
        "",
    ]
    errors = [error for one in rounds for error in one["errors"]]
    if errors:
        lines += ["Episodes that ended by an error, with the reason:", ""]
        lines += [f"- {count} x {why}" for why, count in Counter(errors).most_common(20)]
        lines.append("")
    return "\n".join(lines), failures


def _told(killed: Counter[str]) -> str:
    kinds = [
        f"{killed[kind] + killed[f'starting {kind}']:,} {name}"
        f" ({killed[f'starting {kind}']:,} while they started)"
        for kind, name in (("worker", "workers"), ("Java", "Java processes"))
    ]
    return " and ".join(kinds)


def _sum(rounds: Sequence[Line], name: str) -> Counter[str]:
    return sum((Counter(one[name]) for one in rounds), Counter())


def _episodes(rounds: Sequence[Line]) -> Iterator[str]:
    names = ("asked", "played", "steps", "won", "healed", "replayed")
    counts = {name: _sum(rounds, name) for name in names}
    different = Counter(one.split(" ")[0] for each in rounds for one in each["different"])
    yield "| environment | asked | came back | steps | won | faults healed | replayed | different |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for env in counts["asked"]:
        cells = [f"{counts[name][env]:,}" for name in names]
        yield f"| {env} | {' | '.join(cells)} | {different[env]} |"
    totals = [f"{counts[name].total():,}" for name in names]
    yield f"| **all** | {' | '.join(totals)} | {different.total()} |"
    yield ""
    stops = ", ".join(f"{stop} {n:,}" for stop, n in sorted(_sum(rounds, "stops").items()))
    yield f"Ended by: {stops}."


def _processes(rounds: Sequence[Line], left_over: Sequence[str]) -> Iterator[str]:
    first, last = rounds[0]["health"], rounds[-1]["health"]
    yield "| when nothing is played | after the first round | after the last |"
    yield "|---|---:|---:|"
    for what in ("workers", "javas", "orphans"):
        yield f"| {_NAMES[what]} | {first[what]} | {last[what]} |"
    yield f"| outlive the pools | | {len(left_over)} |"
    yield ""
    yield "Means over the second and the last quarter of the rounds:"
    yield ""
    yield "| process | memory, MB | open files | threads |"
    yield "|---|---:|---:|---:|"
    for who in _series(rounds):
        cells = []
        for what in GROWTH:
            early, late = _quarters(_series(rounds)[who], what)
            cells.append(f"{early:.1f} → {late:.1f}")
        yield f"| {who} | {' | '.join(cells)} |"
    yield ""
    early, late = _live_heap(rounds)
    yield f"Of the heap of that Java {early:.1f} → {late:.1f} MB outlive a collection."


_NAMES = {"workers": "workers", "javas": "Java processes", "orphans": "of them, serving nobody"}


def _series(rounds: Sequence[Line]) -> dict[str, list[Line]]:
    """Return what each long-lived process held after each round."""
    found = {"this one, with the replays": [one["health"]["own"] for one in rounds]}
    for env in rounds[0]["health"]["spared"]:
        found[f"spared worker of {env}"] = [one["health"]["spared"][env] for one in rounds]
    found["its Java"] = [one["health"]["spared_java"] for one in rounds]
    return found


def _quarters(held: Sequence[Line], what: str) -> tuple[float, float]:
    """Return the means of the second and of the last quarter: caches fill in the first."""
    size = max(1, len(held) // 4)
    values = [one[what] for one in held]
    return fmean(values[size : 2 * size] or values[:1]), fmean(values[-size:])


def _live_heap(rounds: Sequence[Line]) -> tuple[float, float]:
    return _quarters([one["health"] for one in rounds], "spared_java_live_mb")


def _failures(rounds: Sequence[Line], left_over: Sequence[str]) -> Iterator[str]:
    lost = _sum(rounds, "asked") - _sum(rounds, "played")
    if lost:
        yield f"episodes that did not come back: {dict(lost)}"
    unexplained = sum("NO REASON" in error for one in rounds for error in one["errors"])
    if unexplained:
        yield f"{unexplained} episodes ended by an error without a reason"
    for one in rounds:
        yield from (f"played again, not the same: {name}" for name in one["different"])
        if one["health"]["orphans"]:
            yield f"round {one['number']}: {one['health']['orphans']} Java processes serve nobody"
    if left_over:
        yield f"{len(left_over)} processes outlive the pools: {left_over[0][:60]}"
    for who, held in _series(rounds).items():
        for what, (factor, more) in GROWTH.items():
            early, late = _quarters(held, what)
            if late > early * factor + more:
                yield f"{who}: {what} went from {early:.1f} to {late:.1f}"
    early, late = _live_heap(rounds)
    if late > early + LIVE_GROWTH_MB:
        yield f"its Java: the live heap went from {early:.1f} to {late:.1f} MB"
