"""Where everything is when a game begins, and what follows: the PDDL problem and one solution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentgym.envs.alfworld_engine import entity_names
from agentgym.envs.alfworld_rooms import LAMP, Pose, Receptacle, Room, floor_plans
from agentgym.envs.alfworld_tasks import LOOK, TREATMENTS, TWO, Task

_MANGLED = {"-": "_minus_", "|": "_bar_", "+": "_plus_", ".": "_dot_"}

# The domain names these types, so every problem must declare them.
_NAMED_RECEPTACLES = frozenset(treatment.station for treatment in TREATMENTS.values())
_NAMED_OBJECTS = frozenset({"Knife", "ButterKnife"})


@dataclass(frozen=True, slots=True)
class Item:
    """An object that can be picked up, or a lamp. ``id`` is like AI2-THOR's."""

    id: str
    type: str
    place: Receptacle


@dataclass(frozen=True, slots=True)
class Layout:
    """A room with a task and everything in its place."""

    room: Room
    task: Task
    items: tuple[Item, ...]
    start: Pose

    def problem(self) -> str:
        """Return the game's problem in PDDL."""
        return (
            "(define (problem household)\n(:domain alfred)\n"
            f"(:objects\n{_lines(self._objects())})\n"
            f"(:init\n{_lines(self._facts())})\n"
            f"(:goal\n{self.task.goal}))\n"
        )

    def walkthrough(self) -> list[str]:
        """Return commands that win the game, in the words of the package's grammar."""
        walk = _Walk(self)
        if self.task.type == LOOK:
            item = self._target_items()[0]
            lamp = next(one for one in self.items if one.type == LAMP)
            return [*walk.fetch(item), *walk.reach(lamp.place), f"use {walk.names[lamp.id]}"]
        target = self._nearest(self.task.target)
        items = self._target_items()[: 2 if self.task.type == TWO else 1]
        return [command for item in items for command in self._place(walk, item, target)]

    def _place(self, walk: _Walk, item: Item, target: Receptacle) -> Iterator[str]:
        yield from walk.fetch(item)
        if self.task.type in TREATMENTS:
            treatment = TREATMENTS[self.task.type]
            station = self._nearest(treatment.station)
            yield from walk.reach(station)
            yield f"{treatment.verb} {walk.names[item.id]} with {walk.names[station.id]}"
        yield from walk.reach(target)
        yield from walk.open(target)
        yield f"move {walk.names[item.id]} to {walk.names[target.id]}"

    def _target_items(self) -> list[Item]:
        return [item for item in self.items if item.type == self.task.object]

    def _nearest(self, kind: str) -> Receptacle:
        """Return a receptacle of a type; walking costs one turn whatever the way."""
        return next(one for one in self.room.receptacles if one.type == kind)

    def _objects(self) -> Iterator[str]:
        receptacle_types = _NAMED_RECEPTACLES | set(self.room.receptacle_types)
        object_types = _NAMED_OBJECTS | {item.type for item in self.items}
        yield "agent1 - agent"
        yield from (f"{kind}Type - rtype" for kind in sorted(receptacle_types))
        yield from (f"{kind}Type - otype" for kind in sorted(object_types))
        yield from (f"{mangled(one.id)} - receptacle" for one in self.room.receptacles)
        yield from (f"{mangled(item.id)} - object" for item in self.items)
        poses = {self.start, *(one.pose for one in self.room.receptacles)}
        yield from (f"{_location(pose)} - location" for pose in sorted(poses))

    def _facts(self) -> Iterator[str]:
        plans = floor_plans()
        yield f"(atLocation agent1 {_location(self.start)})"
        for one in self.room.receptacles:
            name = mangled(one.id)
            yield f"(receptacleType {name} {one.type}Type)"
            yield f"(receptacleAtLocation {name} {_location(one.pose)})"
            if one.type in plans.openable:
                yield f"(openable {name})"
        for item in self.items:
            yield from _item_facts(item)
        present = {item.type for item in self.items}
        for kind in self.room.receptacle_types:
            for held in sorted(plans.holds[kind] & present):
                yield f"(canContain {kind}Type {held}Type)"


class _Walk:
    """Where the agent has got to on its way through a walkthrough."""

    def __init__(self, layout: Layout) -> None:
        ids = [one.id for one in layout.room.receptacles] + [item.id for item in layout.items]
        names = entity_names(mangled(one).lower() for one in ids)
        self.names = {one: names[mangled(one).lower()] for one in ids}
        self._here = layout.start
        self._opened: set[str] = set()

    def reach(self, receptacle: Receptacle) -> Iterator[str]:
        """Go to a receptacle, unless it is used from where the agent stands."""
        if receptacle.pose != self._here:
            self._here = receptacle.pose
            yield f"go to {self.names[receptacle.id]}"

    def open(self, receptacle: Receptacle) -> Iterator[str]:
        """Open a receptacle, unless there is no need to."""
        if receptacle.type in floor_plans().openable and receptacle.id not in self._opened:
            self._opened.add(receptacle.id)
            yield f"open {self.names[receptacle.id]}"

    def fetch(self, item: Item) -> Iterator[str]:
        """Go where an item is and take it."""
        yield from self.reach(item.place)
        yield from self.open(item.place)
        yield f"take {self.names[item.id]} from {self.names[item.place.id]}"


def mangled(thor_id: str) -> str:
    """Return an AI2-THOR id as PDDL can write it."""
    return "".join(_MANGLED.get(letter, letter) for letter in thor_id)


def _location(pose: Pose) -> str:
    return mangled("loc|" + "|".join(map(str, pose)))


def _item_facts(item: Item) -> Iterator[str]:
    plans = floor_plans()
    name = mangled(item.id)
    yield f"(objectType {name} {item.type}Type)"
    yield f"(inReceptacle {name} {mangled(item.place.id)})"
    yield f"(objectAtLocation {name} {_location(item.place.pose)})"
    properties = {
        "pickupable": item.type != LAMP,
        "toggleable": item.type == LAMP,
        "isReceptacleObject": item.type in plans.containers,
        "cleanable": item.type in plans.cleanable,
        "heatable": item.type in plans.heatable,
        "coolable": item.type in plans.coolable,
        "sliceable": item.type in plans.sliceable,
    }
    yield from (f"({predicate} {name})" for predicate, has in properties.items() if has)


def _lines(entries: Iterator[str]) -> str:
    return "".join(f"  {entry}\n" for entry in entries)
