"""What the search environment is made of: articles that can be found, questions to be answered.

A generated world and every file loader produce these values, and nothing else of theirs is seen
by the environment. The generator, :mod:`agentgym.envs.search_generate`, has its sets in ``SETS``,
by the part of a suite's name after the slash, and makes the world of each with ``generate``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Article:
    """One text that a search can find.

    ``id`` is unique in its corpus and, like ``title``, one line; ``title`` may be empty, ``text``
    stands without the title and is not empty.
    """

    id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        """The article as corpora of the field store, index and serve it.

        The title in double quotes, a line end, the text. The quotes are part of what is shown and
        of what a model reads; an article without a title is its text alone.
        """
        return f'"{self.title}"\n{self.text}' if self.title else self.text


@dataclass(frozen=True, slots=True)
class Hop:
    """One search of an expert: what to type, and the article that it is meant to find."""

    query: str
    article: str  # its id


@dataclass(frozen=True, slots=True)
class Question:
    """One question with an answer that can be checked.

    ``id`` names the task, unique in its suite. ``answers`` are alternatives, any of which is
    right; there is at least one, and the first is the one that experts give and methods score.
    ``kind`` is the task's type: ``bridge``, ``comparison``, or the data set's name where it tells
    no types. ``hops`` lead to the answer in order; empty where nobody wrote them down.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    kind: str
    hops: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """A closed world: questions, and the articles from which they can be answered.

    Suites that search the same articles share one tuple of them, so that it is indexed once.
    """

    articles: tuple[Article, ...]
    questions: tuple[Question, ...]
