"""Questions as expressions over relations: what they mean, how they read, what answers them.

An expression is a name; an object of a relation (*the author of …*); the elder or younger of two
(comparison); or the one person who meets two conditions (intersection). Expressions nest.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from agentgym.envs.draws import pick
from agentgym.envs.search_names import NAME
from agentgym.envs.search_relations import AGES, RELATIONS
from agentgym.errors import UsageError


@dataclass(frozen=True, slots=True)
class Named:
    """Something that the question calls by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Of:
    """The object of a relation: *the author of …*."""

    relation: str
    subject: Expression


@dataclass(frozen=True, slots=True)
class Compared:
    """Of two, the one whose year is smaller, or greater if ``later``."""

    year: str  # the relation that tells the year
    later: bool
    one: Expression
    two: Expression


@dataclass(frozen=True, slots=True)
class Clause:
    """A condition on a person: that this is the object of the relation."""

    relation: str
    object: Expression


@dataclass(frozen=True, slots=True)
class Both:
    """The person who meets two conditions."""

    one: Clause
    two: Clause


Expression = Named | Of | Compared | Both


class Source(Protocol):
    """What is known: all of a world, or what somebody has read of it."""

    def value(self, subject: str, relation: str) -> str | None:
        """Return the object of a subject, or None."""

    def subjects(self, relation: str, value: str) -> Collection[str]:
        """Return all subjects that have this object."""


def evaluate(expression: Expression, source: Source) -> frozenset[str]:
    """Return everything that fits an expression: exactly one thing if it is a fair question."""
    match expression:
        case Named(name):
            return frozenset({name})
        case Of(relation, subject):
            found = (source.value(one, relation) for one in evaluate(subject, source))
            return frozenset(one for one in found if one is not None)
        case Both(one, two):
            return _meeting(one, source) & _meeting(two, source)
        case Compared(year, later, one, two):
            both = evaluate(one, source) | evaluate(two, source)
            years = {name: source.value(name, year) for name in both}
            dated = {name: int(known) for name, known in years.items() if known is not None}
            if len(dated) < 2 or len(dated) < len(both):
                return frozenset()
            wanted = (max if later else min)(dated.values())
            return frozenset(name for name, known in dated.items() if known == wanted)


def _meeting(clause: Clause, source: Source) -> frozenset[str]:
    objects = evaluate(clause.object, source)
    return frozenset(one for each in objects for one in source.subjects(clause.relation, each))


def parts(expression: Expression) -> tuple[Expression, ...]:
    """Return the expressions that an expression is directly made of."""
    match expression:
        case Of(_, subject):
            return (subject,)
        case Compared(_, _, one, two):
            return (one, two)
        case Both(one, two):
            return (one.object, two.object)
        case _:
            return ()


def inside(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and everything that it is made of."""
    yield expression
    for part in parts(expression):
        yield from inside(part)


# Wording --------------------------------------------------------------------------------------


def write_question(expression: Of | Both, rng: random.Random | None = None) -> str:
    """Return the question that an expression asks.

    Args:
        expression: What is asked for.
        rng: Draws the wordings; None takes the plain ones.

    Raises:
        UsageError: A relation that cannot be asked for stands outermost, or one that cannot
            stand inside a question does.
    """
    match expression:
        case Both():
            return f"Who {_clauses(expression, rng)}?"
        case Of(relation, subject):
            asks = RELATIONS[relation].asks
            return _wording(relation, asks, rng).format(x=_phrase(subject, rng))


def _phrase(expression: Expression, rng: random.Random | None) -> str:
    match expression:
        case Named(name):
            return name
        case Of(relation, subject):
            nouns = RELATIONS[relation].nouns
            return _wording(relation, nouns, rng).format(x=_phrase(subject, rng))
        case Compared(year, later, one, two):
            return AGES[year][later].format(x=_phrase(one, rng), y=_phrase(two, rng))
        case Both():
            return f"the person who {_clauses(expression, rng)}"


def _clauses(both: Both, rng: random.Random | None) -> str:
    said = (
        _wording(one.relation, RELATIONS[one.relation].clauses, rng).format(
            x=_phrase(one.object, rng)
        )
        for one in (both.one, both.two)
    )
    return " and ".join(said)


def _wording(relation: str, wordings: tuple[str, ...], rng: random.Random | None) -> str:
    if not wordings:
        raise UsageError(f"the relation {relation!r} has no wording for this place in a question")
    return wordings[0] if rng is None else pick(rng, wordings)


# Reading --------------------------------------------------------------------------------------


def read_question(text: str) -> Of | Both:
    """Return what a question asks for.

    Raises:
        UsageError: It is none of the world's wordings.
    """
    question = text.strip()
    for relation, inside in _matches("asks", question):
        for subject in _readings(inside):
            return Of(relation, subject)
    if question.startswith("Who ") and question.endswith("?"):
        for both in _read_both(question[4:-1]):
            return both
    raise UsageError(
        f"cannot read the question {text!r}; expected one of the generated world's, such as"
        f" {RELATIONS['author'].asks[0].format(x='Silent Harbour')!r}"
    )


def _readings(phrase: str) -> Iterator[Expression]:
    """Yield every way to read a phrase."""
    if re.fullmatch(NAME, phrase):
        yield Named(phrase)
    for relation, inside in _matches("nouns", phrase):
        yield from (Of(relation, subject) for subject in _readings(inside))
    for year, later, pattern in _age_patterns():
        match = pattern.fullmatch(phrase)
        for left, right in _halves(match["both"] if match else ""):
            yield from (
                Compared(year, later, one, two)
                for one in _readings(left)
                for two in _readings(right)
            )
    if phrase.startswith("the person who "):
        yield from _read_both(phrase.removeprefix("the person who "))


def _read_both(text: str) -> Iterator[Both]:
    for left, right in _halves(text):
        yield from (Both(one, two) for one in _read_clause(left) for two in _read_clause(right))


def _read_clause(text: str) -> Iterator[Clause]:
    for relation, inside in _matches("clauses", text):
        yield from (Clause(relation, one) for one in _readings(inside))


def _halves(text: str) -> Iterator[tuple[str, str]]:
    """Yield every way to part a text at an ``and``."""
    for found in re.finditer(" and ", text):
        yield text[: found.start()], text[found.end() :]


def _matches(where: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the relations that have a wording like the text, and what it is asked of."""
    for relation, pattern in _wordings(where):
        match = pattern.fullmatch(text)
        if match:
            yield relation, match["x"]


@cache
def _wordings(where: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (relation.name, _compiled(wording, x="(?P<x>.+)"))
        for relation in RELATIONS.values()
        for wording in {
            "asks": relation.asks,
            "nouns": relation.nouns,
            "clauses": relation.clauses,
        }[where]
    )


@cache
def _age_patterns() -> tuple[tuple[str, bool, re.Pattern[str]], ...]:
    return tuple(
        (year, later, _compiled(wording.replace("{x} and {y}", "{both}"), both="(?P<both>.+)"))
        for year, wordings in AGES.items()
        for later, wording in zip((False, True), wordings, strict=True)
    )


def _compiled(wording: str, **groups: str) -> re.Pattern[str]:
    return re.compile(re.escape(wording).replace(r"\{", "{").replace(r"\}", "}").format(**groups))
