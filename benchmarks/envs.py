"""What the environments cost, beside the published software where that can be installed.

    make benchmark-envs                              # everything, and writes benchmarks/envs.md
    python benchmarks/envs.py --only webshop search  # some of it, to look at

Every figure comes from a fresh process, and everybody plays the same tasks with the same random
actions. Times are of the processor, of all processes and Java machines together, so that a busy
machine does not change what a core can do; what is of the clock is called so, and depends on
what else the machine does. Two that stand side by side are measured in turn, several times, and
the median is told. Memory is proportional: of what n processes share, each has an nth. Linux only.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from envs_jobs import (
    MANY,
    SUBJECTS,
    Measured,
    Scripts,
    Subject,
    article_search,
    measure_one,
    measure_pool,
    measure_search,
    shop_search,
)

TIMES = 3  # that each of a pair is measured

OURS = "here"


def alternately(*jobs: Callable[[], Measured]) -> list[Measured]:
    """Do jobs in turn, several times; return the median of each figure of each job."""
    rounds = [[job() for job in jobs] for _ in range(TIMES)]
    return [_medians(runs) for runs in zip(*rounds, strict=True)]


def _medians(runs: Sequence[Measured]) -> Measured:
    return {
        name: median(run[name] for run in runs) if isinstance(value, int | float) else value
        for name, value in runs[0].items()
    }


def beside_the_original(subject: Subject, scripts: Scripts) -> Iterator[str]:
    """Yield the table of one environment, beside whoever else plays it."""
    episodes = scripts.of(subject)
    tasks, steps = subject.of_original
    fewer = [(task, actions[:steps]) for task, actions in episodes[:tasks]]
    columns = {OURS: lambda: measure_one(subject, episodes, "ours", {})}
    for name, options in subject.variants:
        columns[name] = lambda options=options: measure_one(subject, episodes, "ours", options)  # type: ignore[misc]
    if subject.original is not None:
        player = subject.original
        columns["as published"] = lambda: measure_one(subject, fewer, player, {})
    measured = dict(zip(columns, alternately(*columns.values()), strict=True))
    original = measured.get("as published")
    yield f"| one environment | {' | '.join(columns)} |{' ratio |' if original else ''}"
    yield "|---|" + "---:|" * (len(columns) + bool(original))
    for name, label, form in _ONE:
        cells = [format(one[name], form) for one in measured.values()]
        if original:
            cells.append(f"{original[name] / measured[OURS][name]:,.1f}x")
        yield f"| {label} | {' | '.join(cells)} |"
    rates = [f"{1e3 / one['step_ms']:,.0f}" for one in measured.values()]
    yield f"| steps a second and core | {' | '.join(rates)} |{' |' if original else ''}"
    yield ""
    searches = sum(one.startswith("search[") for _, actions in episodes for one in actions)
    mixed = f", {searches:,} of them searches" if searches else ""
    yield f"{measured[OURS]['steps']:,.0f} random steps in {len(episodes) - 1} episodes{mixed}."
    yield ""


_ONE = (
    ("start_s", "start of Python, environment and first episode, s", ".2f"),
    ("reset_ms", "reset to another task, ms", ",.1f"),
    ("step_ms", "step, ms", ",.3f"),
    ("step_wall_ms", "step, ms of the clock", ",.3f"),
    ("memory_mb", "memory, MB", ",.0f"),
)


def in_processes(subject: Subject, scripts: Scripts) -> Iterator[str]:
    """Yield the table of one and many environments, inline and in processes."""
    episodes = scripts.of(subject)
    settings = [(0, 1), (0, MANY), (1, 1), (2, 2), (2, MANY)]
    measured = {one: measure_pool(subject, episodes, *one) for one in settings}
    inline = measured[0, 1]["cpu_ms"]
    yield (
        "| played | a step, ms | of it the player's process, ms | steps a second of the clock |"
        " memory, MB | a further environment, MB |"
    )
    yield "|---|---:|---:|---:|---:|---:|"
    for (workers, asked), one in measured.items():
        where = f"in {workers} process{'es' * (workers > 1)}" if workers else "inline"
        there, few = one["environments"], measured[workers, max(1, workers)]
        more = there - few["environments"]
        further = f"{(one['memory_mb'] - few['memory_mb']) / more:.1f}" if more else ""
        held = "" if there == asked else f", {there} held"
        cells = [
            f"{asked} {where}{held}",
            f"{one['cpu_ms']:.3f}",
            f"{one['own_ms']:.3f}",
            f"{one['steps_a_second']:,.0f}",
            f"{one['memory_mb']:,.0f}",
            further,
        ]
        yield f"| {' | '.join(cells)} |"
    hop = measured[1, 1]["cpu_ms"] - inline
    yield ""
    yield _verdict(hop, inline, measured[1, 1]["own_ms"])
    yield ""


def _verdict(hop: float, inline: float, own: float) -> str:
    """Say what a process costs, and what two could give at best."""
    # Two cores share the work of a step and of its hop; the player's part is not divided.
    best = min(2 * inline / (inline + hop), inline / own)
    worth = "is worth it" if best > 1.2 else "costs more than it gives"
    return (
        f"A hop to a process and back costs {hop:.3f} ms beside a step of {inline:.3f} ms: two"
        f" processes on two free cores would give {best:.1f} times the steps of one core inline, at"
        f" best; a second process {worth}."
    )


def engines(
    what: tuple[list[tuple[str, str]], list[str], int], names: Sequence[str]
) -> Iterator[str]:
    """Yield the table of search engines over the same texts."""
    texts, queries, k = what
    jobs = [lambda name=name: measure_search(name, texts, queries, k) for name in names]  # type: ignore[misc]
    measured = dict(zip(names, alternately(*jobs), strict=True))
    ours = measured[names[0]]
    asked = len(ours["found"])
    yield (
        f"{len(texts):,} documents, {asked:,} different queries, the best {k} of each; as many"
        " queries before, to warm up:"
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
    yield ""


def page(names: Sequence[str]) -> Iterator[str]:
    """Yield the whole report."""
    scripts = Scripts()
    load = os.getloadavg()[0]
    yield "# What the environments cost"
    yield ""
    yield (
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `python benchmarks/envs.py` on"
        f" {os.cpu_count()} cores with a load of {load:.1f} at the start, Python"
        f" {platform.python_version()}. How it is measured: see the script."
    )
    yield ""
    for subject in SUBJECTS:
        name = subject.spec.name
        if name not in names:
            continue
        yield f"## {name}: {subject.spec.options['suite']}"
        yield ""
        yield from beside_the_original(subject, scripts)
        yield from in_processes(subject, scripts)
        if name == "webshop":
            yield from engines(shop_search(), ("ours, exact", "Lucene", "rank_bm25", "bm25s"))
        if name == "search":
            yield from engines(article_search(), ("ours, fast", "bm25s", "rank_bm25", "Lucene"))


def main() -> None:
    """Measure, print, and write if asked to."""
    known = [subject.spec.name for subject in SUBJECTS]
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    lines = []
    for line in page(given.only):
        print(line, flush=True)
        lines.append(line)
    if given.write:
        text = "\n".join(lines).rstrip() + "\n"
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    sys.exit(0)


if __name__ == "__main__":
    main()
