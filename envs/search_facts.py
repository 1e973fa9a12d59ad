"""A generated world as facts: what there is, and what holds between it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that an article is about. No two have the same name, whatever their kinds."""

    name: str
    kind: str  # person, novel, university, city …
    role: str  # what a sentence calls it: a person's trade, else its kind
    possessive: str = "its"
    held_out: bool = False  # a person of whom nothing is asked in training


@dataclass(slots=True)
class Facts:
    """All entities and all that is known of them: for a subject and a relation, one object."""

    entities: dict[str, Entity] = field(default_factory=dict)
    _about: dict[str, dict[str, str]] = field(default_factory=dict)
    _subjects: defaultdict[tuple[str, str], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add_entity(self, entity: Entity) -> None:
        """Add an entity of whom nothing is known yet."""
        self.entities[entity.name] = entity
        self._about[entity.name] = {}

    def add(self, subject: str, relation: str, value: str) -> None:
        """Add what was not known before: that ``value`` is the object of ``subject``."""
        self._about[subject][relation] = value
        self._subjects[relation, value].append(subject)

    def about(self, subject: str) -> Mapping[str, str]:
        """Return the objects of a subject by relation."""
        return self._about[subject]

    def value(self, subject: str, relation: str) -> str | None:
        """Return the object of a subject, or None."""
        return self._about[subject].get(relation)

    def subjects(self, relation: str, value: str) -> Collection[str]:
        """Return all subjects that have this object."""
        return self._subjects.get((relation, value), ())
