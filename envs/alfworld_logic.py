"""Facts, and questions asked of them: the logic under the native ALFWorld engine.

A fact is a predicate with its arguments, all strings. A :class:`Query` is a conjunction; it
answers with every way to bind its variables. Both the planning domain (preconditions, goal) and
the text grammar (conditions, lists) ask their questions through it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from agentgym.errors import DataError

Arguments = tuple[str, ...]
Binding = dict[str, str]
"""What each variable stands for. Variables begin with ``?``, constants never do."""

ROOT_TYPE = "object"
"""The type that every PDDL type derives from: it restricts nothing."""


_NO_FACTS: frozenset[Arguments] = frozenset()
_MOST = 100_000
"""Bindings of a question; games of the benchmark have some hundreds. More is no game but a trap."""


class Literal(NamedTuple):
    """A predicate over terms; a term is a variable (``?o``) or a constant."""

    predicate: str
    terms: Arguments


def ground(literal: Literal, binding: Mapping[str, str]) -> Literal:
    """Return ``literal`` with its bound variables replaced by what they stand for."""
    return Literal(literal.predicate, tuple([binding.get(term, term) for term in literal.terms]))


class Facts:
    """The facts that hold, with the members of each type.

    Facts are found by any one argument in constant time; those indexes are built when they are
    first needed and kept up to date from then on.
    """

    def __init__(
        self,
        facts: Mapping[str, AbstractSet[Arguments]],
        members: Mapping[str, AbstractSet[str]],
    ) -> None:
        self.members = members
        self._facts = defaultdict(set, {name: set(found) for name, found in facts.items()})
        self._indexes: dict[str, dict[int, defaultdict[str, set[Arguments]]]] = defaultdict(dict)

    def all(self, predicate: str) -> set[Arguments]:
        """Return the arguments of every fact of ``predicate``; not to be changed."""
        return self._facts[predicate]

    def holds(self, predicate: str, arguments: Arguments) -> bool:
        """Return whether a fact holds."""
        return arguments in self._facts[predicate]

    def index(self, predicate: str, position: int) -> Mapping[str, set[Arguments]]:
        """Return the facts of ``predicate`` by their argument at ``position``."""
        indexes = self._indexes[predicate]
        if position not in indexes:
            indexes[position] = defaultdict(set)
            for arguments in self._facts[predicate]:
                _refuse_short(predicate, arguments, position + 1)
                indexes[position][arguments[position]].add(arguments)
        return indexes[position]

    def add(self, predicate: str, arguments: Arguments) -> None:
        """Make a fact hold."""
        self._facts[predicate].add(arguments)
        for position, index in self._indexes[predicate].items():
            index[arguments[position]].add(arguments)

    def remove(self, predicate: str, arguments: Arguments) -> None:
        """Make a fact no longer hold."""
        self._facts[predicate].discard(arguments)
        for position, index in self._indexes[predicate].items():
            index[arguments[position]].discard(arguments)


class Step(Protocol):
    """One step of a plan to answer a query."""

    def extend(self, facts: Facts, bindings: Sequence[Binding]) -> list[Binding]:
        """Return what becomes of ``bindings``: some fall away, some gain variables."""


@dataclass(frozen=True, slots=True)
class Match:
    """Binds new variables by the facts of one predicate."""

    predicate: str
    known: tuple[tuple[int, str], ...]  # (position, term) that is bound before this step
    new: tuple[tuple[int, str, str], ...]  # (position, variable, type) that this step binds
    in_order: bool
    distinct: bool

    def extend(self, facts: Facts, bindings: Sequence[Binding]) -> list[Binding]:
        """Return each binding once for every fact that fits it."""
        extended: list[Binding] = []
        for arguments in islice(facts.all(self.predicate), 1):  # all have as many
            _refuse_short(self.predicate, arguments, len(self.known) + len(self.new))
        for binding in bindings:
            _refuse_many(len(extended))
            found = self._candidates(facts, binding)
            for arguments in sorted(found) if self.in_order else found:
                grown = self._unify(facts, binding, arguments)
                if grown is not None:
                    extended.append(grown)
        return extended

    def _candidates(self, facts: Facts, binding: Binding) -> Iterable[Arguments]:
        if not self.known:
            return facts.all(self.predicate)
        (position, term), *others = self.known
        found = facts.index(self.predicate, position).get(binding.get(term, term), _NO_FACTS)
        if others:
            wanted = [(position, binding.get(term, term)) for position, term in others]
            return [fact for fact in found if all(fact[at] == value for at, value in wanted)]
        return found

    def _unify(self, facts: Facts, binding: Binding, arguments: Arguments) -> Binding | None:
        grown = binding.copy()
        for position, variable, kind in self.new:
            value = arguments[position]
            if variable in grown:  # twice in one literal
                if grown[variable] != value:
                    return None
                continue
            if kind != ROOT_TYPE and value not in facts.members.get(kind, ()):
                return None
            if self.distinct and value in grown.values():
                return None
            grown[variable] = value
        return grown


@dataclass(frozen=True, slots=True)
class Check:
    """Keeps the bindings under which a fact holds, or does not."""

    predicate: str
    terms: Arguments
    wanted: bool

    def extend(self, facts: Facts, bindings: Sequence[Binding]) -> list[Binding]:
        """Return the bindings that pass."""
        true, terms, wanted = facts.all(self.predicate), self.terms, self.wanted
        return [
            binding
            for binding in bindings
            if (tuple([binding.get(term, term) for term in terms]) in true) is wanted
        ]


@dataclass(frozen=True, slots=True)
class Compare:
    """Keeps the bindings under which two terms are the same thing, or are not."""

    terms: Arguments
    wanted: bool

    def extend(self, facts: Facts, bindings: Sequence[Binding]) -> list[Binding]:
        """Return the bindings that pass."""
        one, other = self.terms
        return [
            binding
            for binding in bindings
            if (binding.get(one, one) == binding.get(other, other)) is self.wanted
        ]


@dataclass(frozen=True, slots=True)
class Enumerate:
    """Binds a variable that no literal binds to every member of its type."""

    variable: str
    kind: str

    def extend(self, facts: Facts, bindings: Sequence[Binding]) -> list[Binding]:
        """Return each binding once for every member."""
        members = sorted(facts.members.get(self.kind, ()))
        _refuse_many(len(bindings) * len(members))
        return [{**binding, self.variable: one} for binding in bindings for one in members]


@dataclass(frozen=True)
class Query:
    """A conjunction of conditions over typed variables.

    The order of the answers is that of ``positive`` with the facts of each sorted when
    ``in_order``; otherwise literals are taken in the order that leaves the fewest bindings, and
    the order of the answers means nothing. With ``distinct``, different variables stand for
    different things.
    """

    positive: tuple[Literal, ...]
    negative: tuple[Literal, ...] = ()
    equal: tuple[Arguments, ...] = ()
    unequal: tuple[Arguments, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    in_order: bool = False
    distinct: bool = False
    _plans: dict[frozenset[str], tuple[Step, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def predicates(self) -> frozenset[str]:
        """Which predicates the answer depends on."""
        return frozenset(literal.predicate for literal in self.positive + self.negative)

    def solutions(self, facts: Facts, binding: Binding) -> list[Binding]:
        """Return every way to extend ``binding`` so that all conditions hold."""
        bound = frozenset(binding)
        plan = self._plans.get(bound)
        if plan is None:
            plan = self._plans[bound] = tuple(self._plan(facts, set(bound)))
        bindings = [binding]
        for step in plan:
            if not bindings:
                break
            bindings = step.extend(facts, bindings)
        return bindings

    def _plan(self, facts: Facts, bound: set[str]) -> list[Step]:
        steps: list[Step] = []
        waiting = list(self.positive)
        while waiting:
            literal = (
                waiting[0]
                if self.in_order
                else min(waiting, key=lambda literal: _expected(facts, literal, bound))
            )
            waiting.remove(literal)
            steps.append(self._positive_step(literal, bound))
            bound.update(_variables(literal.terms))
        for variable, kind in self.types.items():
            if variable not in bound:
                steps.append(Enumerate(variable, kind))
        steps += [Check(predicate, terms, wanted=False) for predicate, terms in self.negative]
        steps += [Compare(terms, wanted=True) for terms in self.equal]
        steps += [Compare(terms, wanted=False) for terms in self.unequal]
        return steps

    def _positive_step(self, literal: Literal, bound: AbstractSet[str]) -> Step:
        free = [
            (position, term)
            for position, term in enumerate(literal.terms)
            if term.startswith("?") and term not in bound
        ]
        if not free:
            return Check(literal.predicate, literal.terms, wanted=True)
        taken = {position for position, _ in free}
        known = tuple((at, term) for at, term in enumerate(literal.terms) if at not in taken)
        new = tuple((at, term, self.types.get(term, ROOT_TYPE)) for at, term in free)
        return Match(literal.predicate, known, new, self.in_order, self.distinct)


def _refuse_short(predicate: str, arguments: Arguments, wanted: int) -> None:
    if len(arguments) < wanted:
        raise DataError(
            f"a question asks for {wanted} arguments of {predicate}, and its facts have"
            f" {len(arguments)}"
        )


def _refuse_many(count: int) -> None:
    if count > _MOST:
        raise DataError(f"a question has more than {_MOST:,} answers, which no game has")


def _variables(terms: Arguments) -> list[str]:
    return [term for term in terms if term.startswith("?")]


def _expected(facts: Facts, literal: Literal, bound: AbstractSet[str]) -> float:
    """Return about how many facts fit a literal once ``bound`` is bound; 0 for a mere check."""
    size = len(facts.all(literal.predicate))
    known = [
        position
        for position, term in enumerate(literal.terms)
        if not term.startswith("?") or term in bound
    ]
    if len(known) == len(literal.terms) or not size:
        return 0
    if not known:
        return size
    return size / len(facts.index(literal.predicate, known[0]))
