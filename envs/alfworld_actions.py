"""What can be done in an ALFWorld game and what it changes: actions, their domain, a problem.

The domain is the same in all games of a release; the problem says where one game starts and when
it is won.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property

from agentgym.envs.alfworld_logic import Arguments, Binding, Facts, Literal, Query, ground


@dataclass(frozen=True)
class Effect:
    """A literal that an action makes true, or false, if one of ``when`` has a solution."""

    literal: Literal
    adds: bool
    when: tuple[Query, ...]


@dataclass(frozen=True)
class Action:
    """An action of the domain: when it is possible, and what it changes."""

    name: str
    parameters: tuple[str, ...]
    when: tuple[Query, ...]
    effects: tuple[Effect, ...]

    @cached_property
    def predicates(self) -> frozenset[str]:
        """Which predicates decide whether the action is possible."""
        return frozenset().union(*(query.predicates for query in self.when))

    def possible(self, facts: Facts) -> list[Arguments]:
        """Return the arguments with which the action is possible and changes anything, sorted."""
        found = {
            tuple(binding[parameter] for parameter in self.parameters)
            for query in self.when
            for binding in query.solutions(facts, {})
            if not (self._may_be_idle and self._is_idle(query, binding))
        }
        return sorted(found)

    def changes(self, facts: Facts, arguments: Arguments) -> list[tuple[Literal, bool]]:
        """Return the facts that the action makes true or false; what it adds stays added."""
        binding = dict(zip(self.parameters, arguments, strict=True))
        done = [
            (ground(effect.literal, binding), effect.adds)
            for effect in self.effects
            if not effect.when or any(query.solutions(facts, binding) for query in effect.when)
        ]
        added = {literal for literal, adds in done if adds}
        return [(literal, adds) for literal, adds in done if adds or literal not in added]

    @cached_property
    def _may_be_idle(self) -> bool:
        required = self.predicates
        return all(effect.literal.predicate in required for effect in self.effects)

    def _is_idle(self, query: Query, binding: Binding) -> bool:
        """Return whether the precondition already says everything that the effects say.

        The planner drops such operators: going to where one stands is no action.
        """
        true = {ground(literal, binding) for literal in query.positive}
        false = {ground(literal, binding) for literal in query.negative}
        effects = [(ground(effect.literal, binding), effect.adds) for effect in self.effects]
        added = {literal for literal, adds in effects if adds}
        return all(
            literal in true if adds else literal in added or literal in false
            for literal, adds in effects
        )


@dataclass(frozen=True)
class Domain:
    """Types (each with its supertype), constants (each with its type) and actions."""

    types: Mapping[str, str]
    constants: Mapping[str, str]
    actions: tuple[Action, ...]

    @property
    def fluents(self) -> frozenset[str]:
        """The predicates that some action changes."""
        return frozenset(
            effect.literal.predicate for action in self.actions for effect in action.effects
        )


@dataclass(frozen=True)
class Problem:
    """Where a game starts and when it is won."""

    members: Mapping[str, AbstractSet[str]]
    facts: Mapping[str, AbstractSet[Arguments]]
    goal: tuple[Query, ...]

    @property
    def entities(self) -> frozenset[str]:
        """Everything that some fact speaks of."""
        return frozenset(
            one for found in self.facts.values() for arguments in found for one in arguments
        )
