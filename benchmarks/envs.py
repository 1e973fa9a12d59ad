"""What the environments cost, beside the published software where that can be installed.

    make benchmark-envs                              # everything, and writes benchmarks/envs.md
    python benchmarks/envs.py --only webshop search  # some of it, to look at
    python benchmarks/envs.py --only webshop --write # and takes its place in the page
    python benchmarks/envs.py --short                # a small part of it, to see that it runs

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
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from envs_jobs import (
    MANY,
    SUBJECTS,
    Measured,
    Subject,
    article_search,
    measure_one,
    measure_pool,
    measure_search,
    shop_search,
)
from envs_page import OURS, PUBLISHED, Figures, page, section, sections
from envs_scripts import Episode, script, spread

from agentgym.envs.registry import env_class

TIMES = 3  # that each of a pair is measured
PAGE = Path(__file__).with_suffix(".md")
_SEARCHES = {
    "webshop": (shop_search, ("ours, exact", "Lucene", "rank_bm25", "bm25s")),
    "search": (article_search, ("ours, fast", "bm25s", "rank_bm25", "Lucene")),
}
"""What is searched in an environment, and what can search it; ours first."""


def alternately(times: int, *jobs: Callable[[], Measured]) -> list[Measured]:
    """Do jobs in turn, several times; return the median of each figure of each job."""
    rounds = [[job() for job in jobs] for _ in range(times)]
    return [_medians(runs) for runs in zip(*rounds, strict=True)]


def _medians(runs: Sequence[Measured]) -> Measured:
    return {
        name: median(run[name] for run in runs) if isinstance(value, int | float) else value
        for name, value in runs[0].items()
    }


def single(subject: Subject, episodes: Sequence[Episode], times: int) -> dict[str, Measured]:
    """Measure one environment, beside whoever else plays it."""
    tasks, steps = subject.of_original
    fewer = [(task, actions[:steps]) for task, actions in episodes[:tasks]]
    columns = {OURS: lambda: measure_one(subject, episodes, "ours", {})}
    for name, options in subject.variants:
        columns[name] = lambda options=options: measure_one(subject, episodes, "ours", options)  # type: ignore[misc]
    if subject.original is not None:
        player = subject.original
        columns[PUBLISHED] = lambda: measure_one(subject, fewer, player, {})
    return dict(zip(columns, alternately(times, *columns.values()), strict=True))


def pooled(
    subject: Subject, episodes: Sequence[Episode], many: int
) -> dict[tuple[int, int], Measured]:
    """Measure one and many environments, inline and in processes: so many that all are held."""
    copies = env_class(subject.spec.name).copies_per_process or many
    most = max(2, -(-many // copies))
    settings = [(0, 1), (0, many), (1, 1), (2, 2), (most, many)]
    return {one: measure_pool(subject, episodes, *one) for one in settings}


def searched(name: str, times: int) -> dict[str, Measured]:
    """Measure search engines over the same texts; none where the environment has no search."""
    if name not in _SEARCHES:
        return {}
    what, engines = _SEARCHES[name]
    texts, queries, k = what()
    jobs = [lambda name=name: measure_search(name, texts, queries, k) for name in engines]  # type: ignore[misc]
    measured = dict(zip(engines, alternately(times, *jobs), strict=True))
    return {name: {**one, "documents": len(texts), "k": k} for name, one in measured.items()}


def measure(subject: Subject, load: float, times: int = TIMES, many: int = MANY) -> str:
    """Measure all of one environment; return its section of the page."""
    name = subject.spec.name
    episodes = script(subject.spec, spread(subject.spec, subject.tasks), subject.steps)
    figures = Figures(
        single(subject, episodes, times),
        pooled(subject, episodes, many),
        searched(name, times) if subject.searched else {},
    )
    title = f"{name}: {subject.spec.options['suite']}"
    played = _played(episodes, figures.one[OURS]["steps"])
    return section(title, _told(name, load), subject.goals, figures, played)


def _told(name: str, load: float) -> str:
    cores = os.cpu_count() or 1
    busy = ", which had other work to do: what is of the clock says little" if load > 0.5 else ""
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `python benchmarks/envs.py --only"
        f" {name}`, Python {platform.python_version()}, with a load of {load:.1f} beforehand on"
        f" {cores} cores{busy}."
    )


def _played(episodes: Sequence[Episode], steps: float) -> str:
    searches = sum(one.startswith("search[") for _, actions in episodes for one in actions)
    mixed = f", {searches:,} of them searches" if searches else ""
    return f"{steps:,.0f} random steps in {len(episodes) - 1} episodes{mixed}."


def _short(subject: Subject) -> Subject:
    """Return the part of a subject that needs nothing else to be installed, and little time."""
    goals = subject.goals if subject.original is None and not subject.searched else ()
    return replace(
        subject, tasks=3, steps=5, original=None, rehearsals=0, searched=False, goals=goals
    )


def main() -> None:
    """Measure, print, and write if asked to."""
    subjects = {subject.spec.name: subject for subject in SUBJECTS}
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=subjects, default=list(subjects))
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--short", action="store_true", help="to see that it runs; not written")
    given = parser.parse_args()
    if given.short and given.write:
        parser.error("--short is too little to be written")
    kept = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    load = os.getloadavg()[0]  # of others: later ours is part of it
    for name in given.only:
        subject = subjects[name]
        short = measure(_short(subject), load, 1, 4) if given.short else None
        kept[name] = short or measure(subject, load)
        print(kept[name], flush=True)
        if given.write:  # after each: what was measured is not lost if the next one fails
            whole = page({name: kept[name] for name in subjects if name in kept})
            PAGE.write_text(whole, encoding="utf-8")
    sys.exit(0)


if __name__ == "__main__":
    main()
