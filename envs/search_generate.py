"""The generated worlds of the search environment, which need no download.

Fictional people, places, works and organisations, what holds between them, an article about each,
and questions that take one to four articles to answer. Of three people in ten nothing is asked in
training: not as an answer, not by name and not on the way from one to the other. Articles about
them are in the corpus like all others.

Everything is a function of the name of the set, on every machine and in every Python.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from agentgym.envs.search_articles import write_articles
from agentgym.envs.search_compose import KINDS, Composer
from agentgym.envs.search_data import Article, Hop, Question, World
from agentgym.envs.search_expert import lookups
from agentgym.envs.search_facts import Facts
from agentgym.envs.search_population import draw_facts
from agentgym.envs.search_questions import evaluate
from agentgym.errors import unknown


@dataclass(frozen=True, slots=True)
class Corpus:
    """A world: its size, and whether its sentences and questions are in plain wording."""

    name: str
    articles: int
    plain: bool


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions about one side of a world: so many of each kind."""

    corpus: Corpus
    kinds: tuple[str, ...]
    each: int
    held_out: bool

    @property
    def task_ids(self) -> tuple[str, ...]:
        """The ids of the questions: the kinds in turn, each with its number."""
        return tuple(f"{kind}-{number:04d}" for number in range(self.each) for kind in self.kinds)


_LARGE = Corpus("gen", 10_000, plain=False)
_SMALL = Corpus("gen-easy", 1_000, plain=True)
_WIDE = Corpus("gen-plain-wide", 10_000, plain=True)  # too large to be learnt by heart
_HARD_KINDS = tuple(kind for kind in KINDS if kind != "comparison-2")  # one search finds both
_EASY_KINDS = ("bridge-1", "bridge-2", "comparison-2")

SETS: Mapping[str, QuestionSet] = {
    "gen-train": QuestionSet(_LARGE, _HARD_KINDS, 400, held_out=False),
    "gen-test": QuestionSet(_LARGE, _HARD_KINDS, 40, held_out=True),
    "gen-easy-train": QuestionSet(_SMALL, _EASY_KINDS, 600, held_out=False),
    "gen-easy-test": QuestionSet(_SMALL, _EASY_KINDS, 100, held_out=True),
    "gen-plain-train": QuestionSet(_WIDE, _EASY_KINDS, 4000, held_out=False),
}
"""The sets of generated questions, by name."""


@cache
def generate(set_name: str) -> World:
    """Make the world of a set: its articles, which sets may share, and its questions.

    Raises:
        UsageError: No such set.
    """
    if set_name not in SETS:
        raise unknown("set of generated questions", set_name, SETS)
    wanted = SETS[set_name]
    facts, articles = facts_of(wanted.corpus), articles_of(wanted.corpus)
    ids = {one.title: one.id for one in articles}
    composer = Composer(facts, wanted.held_out, wanted.corpus.plain)
    return World(
        articles,
        tuple(_question(set_name, task, composer, facts, ids) for task in wanted.task_ids),
    )


@cache
def facts_of(corpus: Corpus) -> Facts:
    """Return what holds in a world."""
    return draw_facts(f"search/{corpus.name}", corpus.articles)


@cache
def articles_of(corpus: Corpus) -> tuple[Article, ...]:
    """Return the articles about a world; they are made once."""
    return write_articles(facts_of(corpus), f"search/{corpus.name}/articles", corpus.plain)


def _question(
    set_name: str, task: str, composer: Composer, facts: Facts, ids: Mapping[str, str]
) -> Question:
    kind = task.rpartition("-")[0]
    expression, text = composer.draw(kind, random.Random(f"search/{set_name}/{task}"))
    hops = tuple(Hop(query, ids[name]) for query, name in lookups(expression, facts))
    return Question(task, text, tuple(evaluate(expression, facts)), kind, hops)
