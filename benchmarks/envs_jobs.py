"""The measurements of the environment benchmarks, each run in a fresh process by a probe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs_page import (
    ALL_TOLD,
    NONE_TOLD,
    Goal,
    Measured,
    memory_of_a_further_one,
    queries_a_second,
    steps_a_second,
    times_the_published_step,
)
from envs_scripts import Episode

from agentgym.envs.search_generate import generate
from agentgym.envs.webshop_generate import catalogue
from agentgym.envs.webshop_search import searched_text
from agentgym.types import EnvSpec

MANY = 64  # environments
QUERIES = 2000


@dataclass(frozen=True)
class Subject:
    """An environment that is measured, and what it is measured beside."""

    spec: EnvSpec
    tasks: int
    steps: int  # a task, at most
    original: str | None = None  # who plays it as published, by the name of a player
    of_original: tuple[int, int] = (0, 0)  # tasks and steps a task that those play
    variants: tuple[tuple[str, dict[str, object]], ...] = ()  # other options, and what they are
    rehearsals: int = 0  # of the whole script, before it is measured: Java compiles as it goes
    searched: bool = False  # whether search engines are measured too
    goals: tuple[Goal, ...] = ()


SUBJECTS = (
    Subject(
        EnvSpec("alfworld", {"suite": "alfworld/gen-unseen", "max_turns": 10_000}),
        tasks=48,
        steps=100,
        original="textworld",
        of_original=(5, 15),
        goals=(Goal("≥ 1,000 steps a second and core", steps_a_second),),
    ),
    Subject(
        EnvSpec("scienceworld", {"suite": "scienceworld/panel-test", "max_turns": 10_000}),
        tasks=8,
        steps=25,
        original="scienceworld",
        of_original=(8, 25),
        variants=(
            (ALL_TOLD, {"actions": "all"}),
            (NONE_TOLD, {"actions": "none"}),
        ),
        rehearsals=3,
        goals=(
            Goal("a step ≥ 3 times as fast as its own package's", times_the_published_step),
            Goal("≤ 60 MB for a further environment", memory_of_a_further_one),
        ),
    ),
    Subject(
        EnvSpec("webshop", {"suite": "webshop/gen-test"}),
        tasks=520,
        steps=15,
        searched=True,
        goals=(Goal("≥ 2,000 steps a second and core, searches among them", steps_a_second),),
    ),
    Subject(
        EnvSpec("search", {"suite": "search/gen-test"}),
        tasks=360,
        steps=10,
        searched=True,
        goals=(Goal("≥ 500 queries a second on 10,000 articles", queries_a_second),),
    ),
)


def measure_one(
    subject: Subject, episodes: Sequence[Episode], player: str, options: Measured
) -> Measured:
    """Measure one environment."""
    job: Measured = {"kind": "one", "player": player, "name": subject.spec.name}
    job["rehearsals"] = subject.rehearsals
    return _probe(
        {**job, "options": {**subject.spec.options, **options}, "episodes": list(episodes)}
    )


def measure_pool(
    subject: Subject, episodes: Sequence[Episode], workers: int, at_once: int
) -> Measured:
    """Measure environments in a pool of workers; 0 workers play inline."""
    job: Measured = {"kind": "pool", "workers": workers, "at_once": at_once}
    job |= {"name": subject.spec.name, "rehearsals": subject.rehearsals}
    return _probe({**job, "options": dict(subject.spec.options), "episodes": list(episodes)})


def shop_search() -> tuple[list[tuple[str, str]], list[str], int]:
    """Return the texts of the generated shop, wishes to search for, and how many are found."""
    shop = catalogue("gen-test")
    texts = [(name, searched_text(product)) for name, product in shop.products.items()]
    wishes = dict.fromkeys(goal.instruction for goal in shop.goals.values())
    return texts, list(wishes)[:QUERIES], 50


def article_search() -> tuple[list[tuple[str, str]], list[str], int]:
    """Return 10,000 articles, names and questions to search for, and how many are found."""
    world = generate("gen-test")
    texts = [(one.id, one.contents) for one in world.articles]
    asked = [hop.query for one in world.questions for hop in one.hops]
    asked += [one.text for one in world.questions]
    return texts, list(dict.fromkeys(asked))[:QUERIES], 3


def measure_search(
    engine: str, texts: Sequence[tuple[str, str]], queries: Sequence[str], k: int
) -> Measured:
    """Measure a search engine."""
    job = {"kind": "search", "engine": engine, "texts": list(texts), "queries": list(queries)}
    return _probe({**job, "k": k})


def _probe(job: Measured) -> Measured:
    """Run a job; return what it measured."""
    probe = Path(__file__).with_name("envs_probe.py")
    done = subprocess.run(
        [sys.executable, str(probe)], input=json.dumps(job), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return dict(json.loads(done.stdout))
