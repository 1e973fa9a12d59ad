"""What the texts of an ALFWorld game are made of, and how they are said.

A :class:`Phrase` is a row of parts: words as they stand, references to rules, values of
expressions, and lists over all that answers a question about the facts. A :class:`Grammar` knows
the rules and the wording of every action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agentgym.envs.alfworld_logic import Binding, Facts, Query
from agentgym.errors import DataError


@dataclass(frozen=True, slots=True)
class Scene:
    """What texts speak of: the facts, and the name of every entity."""

    facts: Facts
    names: Mapping[str, str]


class Part(Protocol):
    """A piece of text that still has to be said about something."""

    def items(self, grammar: Grammar, scene: Scene, binding: Binding) -> list[str]:
        """Return the texts that this piece stands for, one for each thing it speaks of."""

    def predicates(self, grammar: Grammar) -> frozenset[str]:
        """Return which predicates the text depends on."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Pieces of text, said one after the other."""

    parts: tuple[Part, ...]

    def predicates(self, grammar: Grammar) -> frozenset[str]:
        """Return which predicates the text depends on."""
        return frozenset().union(*(part.predicates(grammar) for part in self.parts))


@dataclass(frozen=True, slots=True)
class Words:
    """Text as it stands."""

    text: str

    def items(self, grammar: Grammar, scene: Scene, binding: Binding) -> list[str]:
        """Return the text."""
        return [self.text]

    def predicates(self, grammar: Grammar) -> frozenset[str]:
        """Return none."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class Reference:
    """What a rule says."""

    rule: str

    def items(self, grammar: Grammar, scene: Scene, binding: Binding) -> list[str]:
        """Return the text of the rule's first alternative that applies."""
        for alternative in grammar.alternatives(self.rule):
            condition = alternative.condition
            if condition is None or condition.solutions(scene.facts, binding):
                return [grammar.say(alternative.phrase, scene, binding)]
        raise DataError(f"the grammar's rule {self.rule!r} has no alternative that applies")

    def predicates(self, grammar: Grammar) -> frozenset[str]:
        """Return those of every alternative and its condition."""
        found: frozenset[str] = frozenset()
        for alternative in grammar.alternatives(self.rule):
            found |= alternative.phrase.predicates(grammar)
            found |= alternative.condition.predicates if alternative.condition else frozenset()
        return found


Value = Callable[[Scene, Binding], str]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The value of an expression such as ``o.indefinite + ' ' + o.name``."""

    value: Value

    def items(self, grammar: Grammar, scene: Scene, binding: Binding) -> list[str]:
        """Return the value."""
        return [self.value(scene, binding)]

    def predicates(self, grammar: Grammar) -> frozenset[str]:
        """Return none: names do not change."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class ForEach:
    """A piece said once for every answer to a query."""

    part: Part
    query: Query

    def items(self, grammar: Grammar, scene: Scene, binding: Binding) -> list[str]:
        """Return the texts in the order of the answers."""
        return [
            text
            for answer in self.query.solutions(scene.facts, binding)
            for text in self.part.items(grammar, scene, answer)
        ]

    def predicates(self, grammar: Grammar) -> frozenset[str]:
        """Return those of the query and of the piece."""
        return self.query.predicates | self.part.predicates(grammar)


@dataclass(frozen=True, slots=True)
class Listing:
    """The items of a piece as an enumeration: ``a cup 2, and a mug 1``, or ``nothing``."""

    part: Part

    def items(self, grammar: Grammar, scene: Scene, binding: Binding) -> list[str]:
        """Return the enumeration; its separators are rules of the grammar."""
        items = self.part.items(grammar, scene, binding)
        if len(items) == 1:
            return items
        if not items:
            return Reference("list_empty").items(grammar, scene, binding)
        separator = "".join(Reference("list_separator").items(grammar, scene, binding))
        last = "".join(Reference("list_last_separator").items(grammar, scene, binding))
        return [separator.join(items[:-1]) + last + items[-1]]

    def predicates(self, grammar: Grammar) -> frozenset[str]:
        """Return those of the items."""
        return self.part.predicates(grammar)


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to say a rule, and when."""

    phrase: Phrase
    condition: Query | None


@dataclass(frozen=True, slots=True)
class Wording:
    """The command of an action, and what is said when it was done."""

    template: Phrase
    feedback: Phrase


@dataclass(frozen=True)
class Grammar:
    """All wordings of a game, by lower-case action name, and the rules that they use."""

    actions: Mapping[str, Wording]
    rules: Mapping[str, tuple[Alternative, ...]] = field(repr=False)

    def alternatives(self, rule: str) -> tuple[Alternative, ...]:
        """Return the alternatives of a rule.

        Raises:
            DataError: There is no such rule.
        """
        if rule not in self.rules:
            raise DataError(f"the grammar has no rule {rule!r}")
        return self.rules[rule]

    def say(self, phrase: Phrase, scene: Scene, binding: Binding) -> str:
        """Return the text of ``phrase``, its variables bound by ``binding``."""
        return "".join([text for part in phrase.parts for text in part.items(self, scene, binding)])
