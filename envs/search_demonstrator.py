"""A player of the search environment that knows what it was asked and what it has read, no more.

It takes the question apart, searches for what it must know next by name, reads what is found,
and answers when it has read enough. Where a search found nothing of use, it says it differently.
Only questions of the generated worlds can it take apart, and only their articles can it read.

It can be taken over: whatever was done between two of its turns, it reads what came of it, and
goes on from there.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from agentgym.envs.draws import pick
from agentgym.envs.search_articles import read_article
from agentgym.envs.search_protocols import protocol_of
from agentgym.envs.search_questions import (
    Both,
    Compared,
    Expression,
    Named,
    Of,
    evaluate,
    inside,
    parts,
    read_question,
)

PATIENCE = 6
"""How often it searches for the same thing before it gives up."""

UNKNOWN = "unknown"
"""What it answers when it has given up."""

_RESPONSE = re.compile(r"<tool_response>(.*)</tool_response>", re.DOTALL)
_BEGIN = r'(?:Doc \d+ ?\(Title: "(?P<title>[^"\n]*)"\)|Page \d+: (?P<page>[^\n]*))\s'
_DOCUMENT = re.compile(rf"{_BEGIN}(?P<text>.*?)(?=\n+(?:Doc|Page) \d|\n---\n|\s*</|\Z)", re.DOTALL)


class Need(NamedTuple):
    """Something to be found: what it is called, and what is to be known of it."""

    name: str
    words: str


class Memory:
    """What was read so far. It answers like :class:`~agentgym.envs.search_facts.Facts`."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str], str] = {}
        self.names: dict[str, None] = {}  # of articles, in the order of reading

    def read(self, observation: str) -> None:
        """Take in the articles in what the environment said."""
        for title, text in documents(observation):
            self.names[title] = None
            for relation, value in read_article(title, text):
                self._facts[title, relation] = value

    def value(self, subject: str, relation: str) -> str | None:
        """Return the object of a subject, or None where it was not read."""
        return self._facts.get((subject, relation))

    def subjects(self, relation: str, value: str) -> Collection[str]:
        """Return all subjects of which it was read that they have this object."""
        return [
            subject
            for (subject, known), found in self._facts.items()
            if (known, found) == (relation, value)
        ]


class Demonstrator:
    """Plays one question.

    Args:
        goal: The question.
        rng: Where its slips come from.
        protocol: The name of the protocol that it writes its actions in.

    Raises:
        UsageError: No such protocol, or the question is not worded as in a generated world.
    """

    def __init__(self, goal: str, rng: random.Random, protocol: str = "search_r1") -> None:
        self.question = read_question(goal)
        self._rng = rng
        self._protocol = protocol_of(protocol)
        self._memory = Memory()
        self._tried: Counter[Need] = Counter()

    def act(self, observation: str, admissible: tuple[str, ...] = ()) -> str:
        """Return the next action.

        Args:
            observation: What the environment said last.
            admissible: Not looked at: a search may say anything.
        """
        self._memory.read(observation)
        need = _need(self.question, self._memory)
        if need is None:
            return self._protocol.write_answer(min(evaluate(self.question, self._memory)))
        if self._tried[need] == PATIENCE:
            return self._protocol.write_answer(UNKNOWN)
        self._tried[need] += 1
        # The name alone finds best; it is tried again, for somebody may have acted in between.
        again = self._tried[need] % 2 == 0
        return self._protocol.write_search(f"{need.name} {need.words}" if again else need.name)

    def slip(self) -> str:
        """Return a mistake that somebody in its place could make: a search that leads astray.

        It is for a name that was read before, or for two names confused.
        """
        named = [one.name for one in inside(self.question) if isinstance(one, Named)]
        names = [*named, *self._memory.names]
        one, two = pick(self._rng, names), pick(self._rng, names)
        confused = f"{one.partition(' ')[0]} {two.rpartition(' ')[2]}"
        return self._protocol.write_search(one if self._rng.random() < 0.5 else confused)


def documents(observation: str) -> Iterator[tuple[str, str]]:
    """Yield title and text of every article that an observation shows, in any protocol."""
    response = _RESPONSE.search(observation)
    shown = str(json.loads(response[1])["result"]) if response else observation
    for found in _DOCUMENT.finditer(shown):
        yield found["title"] or found["page"], found["text"].strip()


def _need(expression: Expression, memory: Memory) -> Need | None:
    """Return what has to be found next for an expression; None where its value is known."""
    for part in parts(expression):
        need = _need(part, memory)
        if need:
            return need
    values = [min(evaluate(part, memory)) for part in parts(expression)]
    match expression:
        case Of(relation) | Compared(relation):
            unread = (one for one in values if memory.value(one, relation) is None)
            return next((Need(one, relation) for one in unread), None)
        case Both() if not evaluate(expression, memory):
            return Need(" ".join(values), "person")
        case _:
            return None
