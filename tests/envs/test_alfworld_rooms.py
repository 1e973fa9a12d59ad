"""Floor plans: facts that fit together, from a source that is named, compiled by a script."""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from agentgym.envs.alfworld_rooms import LAMP, floor_plans, read_data
from agentgym.envs.alfworld_tasks import TASK_TYPES, possible_tasks, scenes_for, stands_for

ROOT = Path(__file__).resolve().parents[2]


def test_there_are_thirty_rooms_of_each_of_four_kinds() -> None:
    rooms = floor_plans().rooms.values()
    kinds = [room.kind for room in rooms]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("kitchen", "living room", "bedroom", "bathroom"), 30
    )


def test_source_and_licence_are_named_in_the_data_and_in_the_notice() -> None:
    content = json.loads(read_data("floor_plans.json"))
    assert "ALFWorld 0.4.2" in content["source"]
    assert content["licence"].startswith("MIT, Copyright")
    notice = (ROOT / "NOTICE").read_text()
    assert "ALFWorld 0.4.2" in notice
    assert "MIT License" in notice


def test_nobody_starts_where_a_receptacle_is_used() -> None:
    for room in floor_plans().rooms.values():
        used = {receptacle.pose for receptacle in room.receptacles}
        assert room.starts
        assert not used & set(room.starts)


def test_every_object_of_a_room_can_be_somewhere_in_it() -> None:
    for room in floor_plans().rooms.values():
        types = frozenset(room.receptacle_types)
        assert all(stands_for(kind, types) for kind in room.objects)
        assert len({receptacle.id for receptacle in room.receptacles}) == len(room.receptacles)


def test_kitchens_have_what_heating_cooling_and_cleaning_need() -> None:
    for scene in range(1, 31):
        types = floor_plans().rooms[scene].receptacle_types
        assert {"Microwave", "Fridge", "SinkBasin"} <= set(types)


@pytest.mark.parametrize(
    ("task_type", "rooms"), list(zip(TASK_TYPES, (120, 27, 60, 30, 30, 120), strict=True))
)
def test_tasks_can_be_set_in_the_rooms_that_have_what_they_need(task_type: str, rooms: int) -> None:
    # every room; rooms with a desk lamp; kitchens and bathrooms; kitchens; kitchens; every room
    assert len(scenes_for(task_type)) == rooms


def test_a_task_asks_for_what_its_target_can_hold_and_something_else_can_too() -> None:
    plans = floor_plans()
    room = plans.rooms[10]
    types = frozenset(room.receptacle_types)
    for task_type in TASK_TYPES:
        for target, tasks in possible_tasks(room, task_type).items():
            for task in tasks:
                assert task.object in plans.holds[target]
                assert stands_for(task.object, types - {target})


# The script that compiles them ----------------------------------------------------------------


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "compile_floor_plans", ROOT / "scripts" / "compile_floor_plans.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONSTANTS = """
import os
RECEPTACLES = {'Desk', 'GarbageCan', 'StoveBurner', 'Mug', 'SinkBasin', 'Drawer'}
MOVABLE_RECEPTACLES = ['Mug']
VAL_RECEPTACLE_OBJECTS = {
    'Desk': {'Mug', 'Apple', 'AppleSliced'}, 'GarbageCan': {'Apple'}, 'StoveBurner': {'Mug'},
    'SinkBasin': {'Mug'}, 'Drawer': {'Pen'}, 'TableTop': {'Apple'}, 'Mug': {'Pen'},
}
VAL_RECEPTACLE_OBJECTS['DiningTable'] = VAL_RECEPTACLE_OBJECTS['TableTop']
OPENABLE_CLASS_LIST = ['Drawer', 'Box']
VAL_ACTION_OBJECTS = {
    'Heatable': {'Apple', 'AppleSliced'}, 'Coolable': {'Apple'}, 'Cleanable': {'Mug'},
    'Sliceable': {'Apple'}, 'Toggleable': {'DeskLamp'},
}
OTHER = os.sep
"""


def wheel_of_one_room() -> zipfile.ZipFile:
    points = io.BytesIO()
    np.save(points, np.array([(x * 0.25, z * 0.25) for x in range(6) for z in range(6)]))
    poses = {
        "Desk|+00.10|+00.20|-00.30": [0.25, -0.5, 270, 30],
        "Sink|+01.00|+00.90|+01.00|SinkBasin": [0.0, 0.0, 90, -30],
    }
    types = ["Desk", "GarbageCan", "StoveBurner", "SinkBasin", "Mug", "Apple", "Window", LAMP]
    files = {
        "constants.py": CONSTANTS.encode(),
        "layouts/FloorPlan7-objects.json": json.dumps(types).encode(),
        "layouts/FloorPlan7-openable.json": json.dumps(poses).encode(),
        "layouts/FloorPlan7-layout.npy": points.getvalue(),
    }
    wheel = zipfile.ZipFile(io.BytesIO(), "w")
    for name, content in files.items():
        wheel.writestr(f"alfworld/gen/{name}", content)
    return wheel


def test_the_script_compiles_a_room_from_a_wheel(script: ModuleType) -> None:
    content = script.compile_all(wheel_of_one_room())
    room = content["rooms"]["7"]
    found = {one: (kind, pose) for one, kind, pose in room["receptacles"]}
    # 0.25 m and -0.5 m are 1 and -2 steps of the grid; 270 degrees are 3 quarter turns
    assert found["Desk|+00.10|+00.20|-00.30"] == ("Desk", [1, -2, 3, 30])
    assert found["Sink|+01.00|+00.90|+01.00|SinkBasin"] == ("SinkBasin", [0, 0, 1, -30])
    assert room["kind"] == "kitchen"
    assert room["lamp"] is True
    assert room["objects"] == ["Apple", "Mug"]  # windows go nowhere
    assert content["holds"]["Desk"] == ["Apple", "Mug"]  # nothing is sliced at the start
    assert content["heatable"] == ["Apple"]
    assert content["openable"] == ["Drawer"]


def test_the_script_marks_positions_that_the_layout_does_not_give(script: ModuleType) -> None:
    room = script.compile_all(wheel_of_one_room())["rooms"]["7"]
    kinds = sorted(one.partition("|")[0] for one in room["synthetic"])
    assert kinds == ["GarbageCan", *["StoveBurner"] * 4]
    poses = {one: tuple(pose) for one, _, pose in room["receptacles"]}
    burners = {pose for one, pose in poses.items() if one.startswith("StoveBurner")}
    assert len(burners) == 1  # side by side, used from one place
    taken = {pose[:2] for pose in poses.values()}
    assert not taken & {tuple(start) for start in room["starts"]}


def test_the_shipped_floor_plans_are_small() -> None:
    assert len(read_data("floor_plans.json")) < 400_000
