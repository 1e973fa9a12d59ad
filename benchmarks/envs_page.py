"""The page of the environment benchmarks: tables of what was measured, put together from sections.

Each environment has a section that stands by itself: when it was measured, its tables, and its
goals in lines of their own. What the page says above the sections is read from them, so that one
environment can be measured again without the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Measured = dict[str, Any]

OURS, PUBLISHED = "here", "as published"
ALL_TOLD, NONE_TOLD = "every valid action told", "no action told"

_GOAL = re.compile(r"^Goal: (.*)\. Measured: (.*)\.$", re.MULTILINE)
_WORTH_IT = "a second process may be worth it"
_NOT_WORTH_IT = "a second process costs more than it gives"
_ONE = (
    ("start_s", "start of Python, environment and first episode, s", ".2f"),
    ("reset_ms", "reset to another task, ms", ",.1f"),
    ("step_ms", "step, ms", ",.3f"),
    ("step_wall_ms", "step, ms of the clock", ",.3f"),
    ("memory_mb", "memory, MB", ",.0f"),
)


@dataclass(frozen=True)
class Figures:
    """All that was measured of one environment.

    Attributes:
        one: A single environment, by who plays it: :data:`OURS`, :data:`PUBLISHED`, variants.
        pools: Environments in workers, by how many workers (0 is inline) and how many were asked
            for at once.
        engines: What searches, by engine, ours first; empty where nothing is searched.
    """

    one: Mapping[str, Measured]
    pools: Mapping[tuple[int, int], Measured]
    engines: Mapping[str, Measured]


@dataclass(frozen=True)
class Goal:
    """What an environment should reach, and how it is read from figures."""

    text: str
    measured: Callable[[Figures], str]


def steps_a_second(figures: Figures) -> str:
    """Return the steps a second and core of one environment."""
    return f"{1e3 / figures.one[OURS]['step_ms']:,.0f}"


def queries_a_second(figures: Figures) -> str:
    """Return the queries a second and core of our search."""
    ours, *_ = figures.engines.values()
    return f"{1e3 / ours['query_ms']:,.0f}"


def times_the_published_step(figures: Figures) -> str:
    """Return how many times as fast as the published software a step is."""
    published = figures.one[PUBLISHED]["step_ms"]
    told, silent = (published / figures.one[name]["step_ms"] for name in (OURS, NONE_TOLD))
    return f"{told:.1f} times, {silent:.1f} where no actions are told"


def memory_of_a_further_one(figures: Figures) -> str:
    """Return what a further environment in a process adds."""
    few, *_, many = sorted(
        (one for (workers, _), one in figures.pools.items() if workers == 0),
        key=lambda one: one["environments"],
    )
    return f"{_further(few, many):.0f} MB"


def _further(few: Measured, many: Measured) -> float:
    return float(many["memory_mb"] - few["memory_mb"]) / (
        many["environments"] - few["environments"]
    )


# A section ----------------------------------------------------------------------------------------


def section(title: str, told: str, goals: Sequence[Goal], figures: Figures, played: str) -> str:
    """Return the section of an environment.

    Args:
        title: Its heading.
        told: When and how it was measured.
        goals: What it should reach.
        figures: What was measured.
        played: How much was played, in words.
    """
    lines = [f"## {title}", "", told, ""]
    for goal in goals:
        lines += [f"Goal: {goal.text}. Measured: {goal.measured(figures)}.", ""]
    lines += [*_one_environment(figures.one), "", played, ""]
    lines += [*_in_processes(figures.pools), "", _verdict(figures.pools), ""]
    if figures.engines:
        lines += [*_search_engines(figures.engines), ""]
    return "\n".join(lines)


def _one_environment(measured: Mapping[str, Measured]) -> Iterator[str]:
    original = measured.get(PUBLISHED)
    end = " ratio |" if original else ""
    yield f"| one environment | {' | '.join(measured)} |{end}"
    yield "|---|" + "---:|" * (len(measured) + bool(original))
    for name, label, form in _ONE:
        cells = [format(one[name], form) for one in measured.values()]
        if original:
            cells.append(f"{original[name] / measured[OURS][name]:,.1f}x")
        yield f"| {label} | {' | '.join(cells)} |"
    rates = [f"{1e3 / one['step_ms']:,.0f}" for one in measured.values()]
    yield f"| steps a second and core | {' | '.join(rates)} |{' |' if original else ''}"


def _in_processes(measured: Mapping[tuple[int, int], Measured]) -> Iterator[str]:
    yield (
        "| played | a step, ms | of it the player's process, ms | steps a second of the clock |"
        " memory, MB | a further environment, MB |"
    )
    yield "|---|---:|---:|---:|---:|---:|"
    for (workers, asked), one in measured.items():
        where = f"in {workers} process{'es' * (workers > 1)}" if workers else "inline"
        few = measured.get((workers, max(1, workers)))
        more = few is not None and one["environments"] > few["environments"]
        held = "" if one["environments"] == asked else f", {one['environments']} held"
        cells = [
            f"{asked} {where}{held}",
            f"{one['cpu_ms']:.3f}",
            f"{one['own_ms']:.3f}",
            f"{one['steps_a_second']:,.0f}",
            f"{one['memory_mb']:,.0f}",
            f"{_further(few, one):.1f}" if few is not None and more else "",
        ]
        yield f"| {' | '.join(cells)} |"


def _verdict(measured: Mapping[tuple[int, int], Measured]) -> str:
    """Say what a process costs, and what two could give at best."""
    inline, own = measured[0, 1]["cpu_ms"], measured[1, 1]["own_ms"]
    hop = max(0.0, measured[1, 1]["cpu_ms"] - inline)
    cost = f"costs {hop:.3f} ms" if hop else "costs less than can be measured"
    # Two cores share the work of a step and of its hop; the player's part is not divided.
    best = min(2 * inline / (inline + hop), inline / own)
    worth = _WORTH_IT if best > 1.2 else _NOT_WORTH_IT
    return (
        f"A hop to a process and back {cost} beside a step of {inline:.3f} ms: two"
        f" processes on two free cores would give {best:.1f} times the steps of one core inline, at"
        f" best; {worth}."
    )


def _search_engines(measured: Mapping[str, Measured]) -> Iterator[str]:
    ours, *_ = measured.values()
    asked = len(ours["found"])
    yield (
        f"{ours['documents']:,} documents, {asked:,} different queries, the best {ours['k']} of"
        " each; as many queries before, to warm up:"
    )
    yield ""
    yield "| engine | index, s | query, ms | queries a second and core | ratio | same lists |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, one in measured.items():
        same = sum(a == b for a, b in zip(one["found"], ours["found"], strict=True))
        cells = [
            name,
            f"{one['build_s']:.2f}",
            f"{one['query_ms']:.3f}",
            f"{1e3 / one['query_ms']:,.0f}",
            f"{one['query_ms'] / ours['query_ms']:.1f}x",
            f"{same} of {asked}",
        ]
        yield f"| {' | '.join(cells)} |"


# The page -----------------------------------------------------------------------------------------


def sections(page: str) -> dict[str, str]:
    """Return the sections of a page by the name of their environment, which begins the heading."""
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {re.findall(r"[^\s:]+", part)[1]: part for part in parts}


def page(by_name: Mapping[str, str]) -> str:
    """Return the page with these sections, in this order."""
    lines = [
        "# What the environments cost",
        "",
        "By `make benchmark-envs`, or `python benchmarks/envs.py --only NAME --write` for one of",
        "them; how it is measured: see the script. Times are of the processor unless they say *of",
        "the clock*. Processor times, and ratios of what was measured side by side, hold on a busy",
        "machine too; times of the clock do not, so each section says how busy the machine was.",
        "",
        "| environment | goal | measured |",
        "|---|---|---|",
        *(
            f"| {name} | {goal} | {measured} |"
            for name, text in by_name.items()
            for goal, measured in _GOAL.findall(text)
        ),
        "",
        *_processes_or_inline(by_name),
        "",
    ]
    return "\n".join(lines) + "\n" + "\n".join(f"{text.strip()}\n" for text in by_name.values())


def _processes_or_inline(by_name: Mapping[str, str]) -> Iterator[str]:
    gives = [name for name, text in by_name.items() if _WORTH_IT in text]
    costs = [name for name, text in by_name.items() if _NOT_WORTH_IT in text]
    yield "**Processes or inline.** Each section says what a hop to a worker process and back costs"
    yield "beside a step, and what two processes would give at best."
    if costs:
        yield f"A process costs more than it gives in {', '.join(costs)}: inline stepping"
        yield "(`--workers 0`, the default) is right there on any number of cores."
    if gives:
        yield f"It may be worth its cost, where cores are free, in {', '.join(gives)}."
    yield "Processes are also for what blocks or may be lost: an environment of your own that"
    yield "computes for milliseconds, or one that can hang."
