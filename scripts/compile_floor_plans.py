"""Compile ALFWorld's floor plans into the facts that the game generator needs.

    python scripts/compile_floor_plans.py alfworld-0.4.2-py3-none-any.whl

Reads the layout files and the compatibility tables of an alfworld wheel and writes
``agentgym/data/alfworld/floor_plans.json``: of each room, which receptacles stand where, which
types of objects are found there, and where the agent may start; of all rooms together, which
receptacle types hold which object types and what can be done to those. No code is taken over.

The layouts name some fixed receptacles (stove burners, coffee machines, bins, holders) without
saying where they stand. They get *synthetic* positions on reachable points, marked as such.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

OUTPUT = Path(__file__).resolve().parents[1] / "agentgym" / "data" / "alfworld" / "floor_plans.json"

ROOM_KINDS = {0: "kitchen", 2: "living room", 3: "bedroom", 4: "bathroom"}  # by scene // 100

# How many there are where a layout names the type only; one unless said here.
SYNTHETIC_COUNTS = {"StoveBurner": 4, "HandTowelHolder": 2}

LAMP = "DeskLamp"
# The tables do not say where lamps stand, for nobody picks one up.
LAMP_STANDS = ["CoffeeTable", "Desk", "DiningTable", "Dresser", "Shelf", "SideTable"]

GRID = 0.25  # metres between reachable points
START_POINTS = 12
FACING = {0: (0, 1), 1: (1, 0), 2: (0, -1), 3: (-1, 0)}  # rotation: unit vector (x, z)

Pose = tuple[int, int, int, int]  # x and z in grid units, rotation in quarter turns, horizon


class Tables:
    """The compatibility tables of the benchmark."""

    def __init__(self, source: str) -> None:
        values = dict(_literals(source))
        holds: dict[str, set[str]] = values["VAL_RECEPTACLE_OBJECTS"]
        for table in ("DiningTable", "CoffeeTable", "SideTable"):  # aliases of one entry
            holds[table] = holds["TableTop"]
        movable = set(values["MOVABLE_RECEPTACLES"])
        self.movable = sorted(movable)
        self.fixed = set(values["RECEPTACLES"]) - movable
        self.openable = set(values["OPENABLE_CLASS_LIST"])
        self.actions: dict[str, set[str]] = values["VAL_ACTION_OBJECTS"]
        whole = {t for types in holds.values() for t in types if not t.endswith("Sliced")}
        self.holds = {r: sorted(holds[r] & whole) for r in sorted(self.fixed & set(holds))}
        self.portable = {t for types in self.holds.values() for t in types}


def _literals(source: str) -> Iterator[tuple[str, Any]]:
    """Yield the module's constants that are plain literals, without running it."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                yield node.targets[0].id, ast.literal_eval(node.value)
            except ValueError:
                continue


def receptacle_type(thor_id: str) -> str:
    """Return the type of a receptacle: ``Sink|…|SinkBasin`` is a SinkBasin."""
    first, *_, last = thor_id.split("|")
    return last if last.endswith("Basin") else first


def compile_room(scene: int, layouts: Layouts, tables: Tables) -> dict[str, Any]:
    """Return the facts of one room."""
    types = set(layouts.objects(scene))
    known = {
        thor_id: pose
        for thor_id, pose in layouts.poses(scene).items()
        if receptacle_type(thor_id) in tables.fixed
    }
    missing = sorted(
        (types & tables.fixed & set(tables.holds)) - {receptacle_type(one) for one in known}
    )
    free = spread(layouts.reachable(scene), {pose[:2] for pose in known.values()})
    synthetic = dict(_synthetic(missing, free))
    receptacles = [
        [one, receptacle_type(one), list(pose)] for one, pose in sorted((known | synthetic).items())
    ]
    present = {kind for _, kind, _ in receptacles}
    portable = {t for kind in present & set(tables.holds) for t in tables.holds[kind]}
    return {
        "kind": ROOM_KINDS[scene // 100],
        "receptacles": receptacles,
        "synthetic": sorted(synthetic),
        "objects": sorted(types & portable),
        "lamp": LAMP in types,
        "starts": [list(next(free)) for _ in range(START_POINTS)],
    }


def spread(points: list[tuple[int, int]], taken: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield reachable points, each as far as possible from those taken before it."""
    left = sorted(set(points) - taken)
    chosen = set(taken)
    while left:
        best = max(left, key=lambda p: min(_distance(p, other) for other in chosen))
        left.remove(best)
        chosen.add(best)
        yield best


def _distance(one: tuple[int, int], other: tuple[int, int]) -> int:
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2


def _synthetic(missing: list[str], free: Iterator[tuple[int, int]]) -> Iterator[tuple[str, Pose]]:
    """Yield receptacles on free points. Those of one type stand side by side, before one pose."""
    for number, kind in enumerate(missing):
        x, z = next(free)
        rotation = number % 4
        dx, dz = FACING[rotation]
        for place in range(SYNTHETIC_COUNTS.get(kind, 1)):
            at = (x + 2 * dx + place * dz, z + 2 * dz + place * dx)
            position = "|".join(f"{value * GRID:+06.2f}" for value in (at[0], 4, at[1]))
            name = f"Sink|{position}|{kind}" if kind == "SinkBasin" else f"{kind}|{position}"
            yield name, (x, z, rotation, 30)


class Layouts:
    """The layout files of one wheel."""

    def __init__(self, wheel: zipfile.ZipFile) -> None:
        self._wheel = wheel

    def scenes(self) -> list[int]:
        """Return the numbers of all rooms."""
        pattern = re.compile(r".*/FloorPlan(\d+)-objects\.json")
        found = (pattern.fullmatch(name) for name in self._wheel.namelist())
        return sorted(int(match[1]) for match in found if match)

    def objects(self, scene: int) -> list[str]:
        """Return the types of everything in a room."""
        types: list[str] = json.loads(self._read(scene, "objects.json"))
        return types

    def poses(self, scene: int) -> dict[str, Pose]:
        """Return from where each receptacle is used."""
        poses = json.loads(self._read(scene, "openable.json"))
        return {
            thor_id: (round(x / GRID), round(z / GRID), round(rotation / 90), round(horizon))
            for thor_id, (x, z, rotation, horizon) in poses.items()
        }

    def reachable(self, scene: int) -> list[tuple[int, int]]:
        """Return the points where the agent can stand, in grid units."""
        points = np.load(io.BytesIO(self._read(scene, "layout.npy")))
        return [(round(x / GRID), round(z / GRID)) for x, z in points.tolist()]

    def _read(self, scene: int, what: str) -> bytes:
        return self._wheel.read(f"alfworld/gen/layouts/FloorPlan{scene}-{what}")


def compile_all(wheel: zipfile.ZipFile) -> dict[str, Any]:
    """Return the whole content of the output file."""
    tables = Tables(wheel.read("alfworld/gen/constants.py").decode())
    layouts = Layouts(wheel)
    rooms = {str(scene): compile_room(scene, layouts, tables) for scene in layouts.scenes()}
    tables_out = {
        "holds": tables.holds,
        "containers": [t for t in tables.movable if t in tables.portable],
        "lamp_stands": LAMP_STANDS,
        "openable": sorted(tables.openable & tables.fixed),
    }
    for action in ("Cleanable", "Heatable", "Coolable", "Sliceable"):
        tables_out[action.lower()] = sorted(tables.actions[action] & tables.portable)
    return {
        "source": "ALFWorld 0.4.2 (https://github.com/alfworld/alfworld): layouts and tables of"
        " alfworld.gen, which go back to ALFRED and AI2-THOR; facts only, compiled by"
        " scripts/compile_floor_plans.py",
        "licence": "MIT, Copyright (c) 2020 Mohit Shridhar and others",
        "units": "pose: x and z in 0.25 m, rotation in quarter turns, horizon in degrees;"
        " start: x and z",
        **tables_out,
        "rooms": rooms,
    }


def main() -> None:
    """Compile the wheel named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path, help="alfworld-0.4.2-py3-none-any.whl")
    with zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        content = compile_all(wheel)
    rooms = content.pop("rooms")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    inner = ",\n".join(f"{json.dumps(scene)}: {json.dumps(room)}" for scene, room in rooms.items())
    OUTPUT.write_text("{\n" + ",\n".join(lines) + ',\n"rooms": {\n' + inner + "\n}\n}\n")
    print(f"{OUTPUT}: {len(rooms)} rooms, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
