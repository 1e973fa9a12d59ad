"""Drawing questions about a generated world: as hard as asked for, and with one answer.

A question is drawn as an expression and kept only if it is fair: one thing answers it; every one
of its steps is needed; no article tells the answer before the last step; and all people on the
way, of whom there is at least one, are of the wanted side.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from agentgym.envs.draws import pick
from agentgym.envs.search_expert import lookups
from agentgym.envs.search_facts import Facts
from agentgym.envs.search_questions import (
    Both,
    Clause,
    Compared,
    Expression,
    Named,
    Of,
    evaluate,
    inside,
    write_question,
)
from agentgym.envs.search_relations import AGES, HOUSES, PERSON, RELATIONS, WORKS
from agentgym.errors import UsageError

_Item = TypeVar("_Item")

KINDS = (
    "bridge-1",
    "bridge-2",
    "bridge-3",
    "bridge-4",
    "comparison-2",
    "comparison-3",
    "comparison-4",
    "intersection-2",
    "intersection-3",
    "intersection-4",
)
"""The kinds of questions: what they make one do, and how many articles one has to find."""

_ATTEMPTS = 3000  # for one question
_TO_PEOPLE = tuple(name for name, one in RELATIONS.items() if one.to == PERSON)
_CLAUSES = tuple(name for name, one in RELATIONS.items() if one.clauses)
_ASKED_OF = frozenset({PERSON, *WORKS, *HOUSES})


class _NoQuestionError(Exception):
    """What was drawn leads to no question."""


class Composer:
    """Draws questions about one side of a world, none of them twice.

    Args:
        facts: The world.
        held_out: Which side.
        plain: Whether questions are in plain wording.
    """

    def __init__(self, facts: Facts, held_out: bool, plain: bool = False) -> None:
        self._facts = facts
        self._plain = plain
        self._asked: set[str] = set()
        everything = facts.entities.values()
        self._people = frozenset(one.name for one in everything if one.kind == PERSON)
        self._barred = frozenset(
            one.name for one in everything if one.kind == PERSON and one.held_out != held_out
        )
        self._names: defaultdict[str, list[str]] = defaultdict(list)  # by kind
        for one in everything:
            if one.kind in _ASKED_OF and one.name not in self._barred:
                self._names[one.kind].append(one.name)
        self._all = [name for names in self._names.values() for name in names]

    def draw(self, kind: str, rng: random.Random) -> tuple[Of | Both, str]:
        """Return a question of a kind, as an expression and in words.

        Raises:
            UsageError: No such kind, or the world is too small for one more.
        """
        if kind not in KINDS:
            raise UsageError(f"no questions are called {kind!r}; known: {', '.join(KINDS)}")
        form, _, hops = kind.rpartition("-")
        forms: Mapping[str, Callable[[random.Random, int], Of | Both]] = {
            "bridge": self._bridge,
            "comparison": self._comparison,
            "intersection": self._intersection,
        }
        for _ in range(_ATTEMPTS):
            try:
                expression = forms[form](rng, int(hops))
            except _NoQuestionError:
                continue
            if self._is_fair(expression, int(hops)):
                text = write_question(expression, None if self._plain else rng)
                if text not in self._asked:
                    self._asked.add(text)
                    return expression, text
        raise UsageError(
            f"found no further {kind} question in {_ATTEMPTS} draws after {len(self._asked)}"
            " questions; ask for fewer, or of a larger world"
        )

    # Forms ------------------------------------------------------------------------------------

    def _bridge(self, rng: random.Random, hops: int) -> Of:
        return self._walk(rng, Named(pick(rng, self._all)), hops)

    def _comparison(self, rng: random.Random, hops: int) -> Of:
        """Compare two things of a kind, or for four hops two people that others lead to."""
        if hops == 4:
            one, two = (self._person_by(rng, pick(rng, self._all)) for _ in range(2))
            return self._walk(rng, Compared("born", rng.random() < 0.5, one, two), 1)
        name = pick(rng, self._all)
        kind = self._facts.entities[name].kind
        other = pick(rng, self._names[kind])
        year = next(age for age in AGES if kind in RELATIONS[age].of)
        older = Compared(year, rng.random() < 0.5, Named(name), Named(other))
        return self._walk(rng, older, hops - 1)

    def _intersection(self, rng: random.Random, hops: int) -> Both:
        """Describe a person by what others share with them."""
        name = pick(rng, self._names[PERSON])
        known = [one for one in _CLAUSES if one in self._facts.about(name)]
        first = _pick(rng, known)
        second = _pick(rng, [one for one in known if one != first])
        clauses = [
            Clause(first, self._shared(rng, name, first, through=hops == 4)),
            Clause(second, self._shared(rng, name, second))
            if hops > 2
            else Clause(second, Named(self._facts.about(name)[second])),
        ]
        if rng.random() < 0.5:
            clauses.reverse()
        return Both(*clauses)

    def _walk(self, rng: random.Random, start: Expression, steps: int) -> Of:
        """Follow relations from the start, none of them twice."""
        expression, taken = start, {start.year} if isinstance(start, Compared) else set()
        for left in range(steps, 0, -1):
            here = _only(evaluate(expression, self._facts))
            open_ = [
                name
                for name, value in self._facts.about(here).items()
                if name not in taken
                and value not in self._barred
                and (RELATIONS[name].asks if left == 1 else RELATIONS[name].nouns)
            ]
            relation = _pick(rng, open_)
            taken.add(relation)
            expression = Of(relation, expression)
        assert isinstance(expression, Of)
        return expression

    def _person_by(self, rng: random.Random, name: str) -> Of:
        """Return a person that something else leads to: *the author of …*."""
        about = self._facts.about(name)
        leads = [by for by in _TO_PEOPLE if by in about and about[by] not in self._barred]
        return Of(_pick(rng, leads), Named(name))

    def _shared(
        self, rng: random.Random, name: str, relation: str, through: bool = False
    ) -> Expression:
        """Return what someone has in common with another person, named after that one.

        ``through`` names that other person after something that leads to them.
        """
        value = self._facts.about(name)[relation]
        alike = self._facts.subjects(relation, value)
        other = _pick(rng, [one for one in alike if one != name and one not in self._barred])
        if not through:
            return Of(relation, Named(other))
        leads = [
            (by, one)
            for by in _TO_PEOPLE
            for one in self._facts.subjects(by, other)
            if one not in self._barred
        ]
        by, one = _pick(rng, leads)
        return Of(relation, Of(by, Named(one)))

    # Fairness ---------------------------------------------------------------------------------

    def _is_fair(self, expression: Of | Both, hops: int) -> bool:
        facts = self._facts
        answers = evaluate(expression, facts)
        if len(answers) != 1:
            return False
        answer = min(answers)
        needed = lookups(expression, facts)
        if len(needed) != hops or not self._is_about_people(expression):
            return False
        last = _last(expression, answer, facts)
        told = {
            value for one in needed if one.name != last for value in facts.about(one.name).values()
        }
        named = {one.name for one in inside(expression) if isinstance(one, Named)}
        return answer not in named | told and self._needs_both(expression)

    def _is_about_people(self, expression: Expression) -> bool:
        """Return whether people are on the way, and only such as may be asked about."""
        on_the_way = {name for one in inside(expression) for name in evaluate(one, self._facts)}
        return bool(on_the_way & self._people) and not on_the_way & self._barred

    def _needs_both(self, expression: Expression) -> bool:
        """Return whether no condition alone would do."""
        return not isinstance(expression, Both) or all(
            len(self._facts.subjects(one.relation, min(evaluate(one.object, self._facts)))) > 1
            for one in (expression.one, expression.two)
        )


def _last(expression: Of | Both, answer: str, facts: Facts) -> str:
    """Return whose article gives the answer."""
    return min(evaluate(expression.subject, facts)) if isinstance(expression, Of) else answer


def _only(found: frozenset[str]) -> str:
    if len(found) != 1:
        raise _NoQuestionError
    return min(found)


def _pick(rng: random.Random, items: Sequence[_Item]) -> _Item:
    if not items:
        raise _NoQuestionError
    return pick(rng, items)
