"""The rooms of ALFWorld as facts: what stands where, what is found there, what goes where.

Read from package data; where they come from and under which licence is said in the file itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

UNSEEN_SCENES = (10, 219, 308, 424)
"""The rooms that the benchmark keeps for ``valid_unseen``: one of each kind."""

LAMP = "DeskLamp"

Pose = tuple[int, int, int, int]
"""x and z in units of 0.25 m, rotation in quarter turns, horizon in degrees."""


@dataclass(frozen=True, slots=True)
class Receptacle:
    """A fixed receptacle. ``id`` is AI2-THOR's: type and position, parted by bars."""

    id: str
    type: str
    pose: Pose  # from where it is used


@dataclass(frozen=True, slots=True)
class Room:
    """One room. ``starts`` are poses at which no receptacle is used."""

    scene: int
    kind: str
    receptacles: tuple[Receptacle, ...]
    objects: tuple[str, ...]  # types of what can be picked up
    lamp: bool
    starts: tuple[Pose, ...]

    @property
    def receptacle_types(self) -> tuple[str, ...]:
        """The types of receptacles that stand here, sorted."""
        return tuple(sorted({receptacle.type for receptacle in self.receptacles}))


@dataclass(frozen=True, slots=True)
class FloorPlans:
    """All rooms, and what holds of types in every room."""

    rooms: Mapping[int, Room]
    holds: Mapping[str, frozenset[str]]  # receptacle type: object types that it can hold
    lamp_stands: frozenset[str]
    openable: frozenset[str]
    containers: frozenset[str]  # objects that could hold others: cups, plates
    cleanable: frozenset[str]
    heatable: frozenset[str]
    coolable: frozenset[str]
    sliceable: frozenset[str]


@cache
def floor_plans() -> FloorPlans:
    """Return the floor plans of all 120 rooms."""
    content = json.loads(read_data("floor_plans.json"))
    return FloorPlans(
        rooms={int(scene): _room(int(scene), room) for scene, room in content["rooms"].items()},
        holds={kind: frozenset(held) for kind, held in content["holds"].items()},
        lamp_stands=frozenset(content["lamp_stands"]),
        openable=frozenset(content["openable"]),
        containers=frozenset(content["containers"]),
        cleanable=frozenset(content["cleanable"]),
        heatable=frozenset(content["heatable"]),
        coolable=frozenset(content["coolable"]),
        sliceable=frozenset(content["sliceable"]),
    )


@cache
def read_data(name: str) -> str:
    """Return the text of one of ALFWorld's files in the package data."""
    return (files("agentgym") / "data" / "alfworld" / name).read_text(encoding="utf-8")


def _room(scene: int, facts: dict[str, Any]) -> Room:
    return Room(
        scene,
        facts["kind"],
        tuple(Receptacle(one, kind, _pose(*at)) for one, kind, at in facts["receptacles"]),
        tuple(facts["objects"]),
        facts["lamp"],
        tuple(_pose(x, z, 0, 30) for x, z in facts["starts"]),
    )


def _pose(x: int, z: int, rotation: int, horizon: int) -> Pose:
    return x, z, rotation, horizon
