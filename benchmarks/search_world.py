"""How hard the generated search questions are, and how long their worlds take to make.

    python benchmarks/search_world.py            # measure and print
    python benchmarks/search_world.py --write    # and write search_world.md beside this file

Over every held-out question, by kind: whether the answer stands anywhere in the first three
articles that BM25 finds for the question itself; and how often four players are right. The
expert knows the relations; the demonstrator reads what it finds; *one search* searches for the
question and answers with something named in what it found; *guess* answers with a title of the
corpus. The last two draw from a seed; all play through the environment with its defaults. Times
are of the processor.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from agentgym.envs.draws import pick
from agentgym.envs.search import SearchEnv
from agentgym.envs.search_articles import read_article, write_articles
from agentgym.envs.search_demonstrator import Demonstrator, documents
from agentgym.envs.search_generate import SETS, generate
from agentgym.envs.search_index import BM25Index
from agentgym.envs.search_population import draw_facts
from agentgym.envs.search_retrieval import retriever_over

Player = Callable[[str, int], str]
"""From an observation and the turn to an action."""

HELD_OUT = tuple(name for name, one in SETS.items() if one.held_out)


def demonstrator(env: SearchEnv, goal: str, rng: random.Random) -> Player:
    """Read and reason."""
    player = Demonstrator(goal, rng)
    return lambda observation, _: player.act(observation)


def expert(env: SearchEnv, goal: str, rng: random.Random) -> Player:
    """Know the relations."""
    return lambda *_: str(env.expert())


def one_search(env: SearchEnv, goal: str, rng: random.Random) -> Player:
    """Search once, for the question; answer with a title or an object that was found."""

    def act(observation: str, turn: int) -> str:
        if turn == 0:
            return f"<search>{goal}</search>"
        found = list(documents(observation))
        things = [value for one in found for _, value in read_article(*one)]
        return f"<answer>{pick(rng, [*things, *(title for title, _ in found)])}</answer>"

    return act


def guess(env: SearchEnv, goal: str, rng: random.Random) -> Player:
    """Answer with a title at once."""
    articles = generate(env.suite.name.removeprefix("search/")).articles
    return lambda *_: f"<answer>{pick(rng, articles).title}</answer>"


PLAYERS = (expert, demonstrator, one_search, guess)


def play(env: SearchEnv, task: str, kind: Callable[..., Player]) -> bool:
    """Return whether a player wins a task."""
    observation, info = env.reset(seed=0, options={"task": task})
    player = kind(env, info["goal"], random.Random(task))
    over, turn = False, 0
    while not over:
        observation, _, terminated, truncated, info = env.step(player(observation, turn))
        over, turn = terminated or truncated, turn + 1
    return bool(info["won"])


def hardness(name: str) -> list[str]:
    """Return the lines of a set's table."""
    world, env = generate(name), SearchEnv(f"search/{name}")
    retriever = retriever_over(world.articles)
    rows: defaultdict[str, list[list[bool]]] = defaultdict(list)
    for question in world.questions:
        top = retriever.search(question.text, 3)
        shown = any(question.answers[0] in hit.article.contents for hit in top)
        row = [shown, *(play(env, question.id, player) for player in PLAYERS)]
        rows[question.kind].append(row)
        rows["all"].append(row)
    head = ["kind", "questions", "in top 3", *(one.__name__.replace("_", " ") for one in PLAYERS)]
    lines = [f"## search/{name}: {len(world.articles):,} articles", "", _row(head)]
    lines.append(_row(["---"] * len(head)))
    for kind in (*SETS[name].kinds, "all"):
        shares = [f"{fmean(column):.3f}" for column in zip(*rows[kind], strict=True)]
        lines.append(_row([kind, str(len(rows[kind])), *shares]))
    return [*lines, ""]


def times() -> list[str]:
    """Return how long it takes to make a world of 10,000 articles, and to index it."""
    spent = [time.process_time()]
    facts = draw_facts("time", 10_000)
    spent.append(time.process_time())
    articles = write_articles(facts, "time")
    spent.append(time.process_time())
    BM25Index.build(one.contents for one in articles)  # not one that a cache has
    spent.append(time.process_time())
    drawn, written, indexed = (after - before for before, after in pairwise(spent))
    return [
        f"10,000 articles: {drawn + written:.2f} s (facts {drawn:.2f}, sentences {written:.2f});"
        f" BM25 index over them: {indexed:.2f} s.",
        "",
    ]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    lines = [
        "# How hard the generated search questions are",
        "",
        f"`python benchmarks/search_world.py --write`, {datetime.now(UTC):%Y-%m-%d},"
        f" Python {platform.python_version()}. Columns: see the script.",
        "",
        *times(),
    ]
    for name in HELD_OUT:
        lines += hardness(name)
    text = "\n".join(lines)
    print(text)
    if write:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
