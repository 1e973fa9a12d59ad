"""What an expert that knows all relations searches for: the article of every step, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agentgym.envs.search_questions import Both, Compared, Expression, Of, Source, evaluate, parts


class Lookup(NamedTuple):
    """One search: what to type, and whose article it is meant to find."""

    query: str
    name: str


def lookups(expression: Expression, source: Source) -> tuple[Lookup, ...]:
    """Return the searches after which the answer to a question has been read.

    What is known by name is searched for by name. A person of whom two things are known is
    searched for by both. Nothing is searched for twice.
    """
    found: dict[str, Lookup] = {}
    for lookup in _steps(expression, source):
        found.setdefault(lookup.name, lookup)
    return tuple(found.values())


def _steps(expression: Expression, source: Source) -> Iterator[Lookup]:
    for part in parts(expression):
        yield from _steps(part, source)
    values = [min(evaluate(part, source)) for part in parts(expression)]
    match expression:
        case Of() | Compared():
            yield from (Lookup(value, value) for value in values)
        case Both():
            yield Lookup(" ".join(values), min(evaluate(expression, source)))
