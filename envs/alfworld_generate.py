"""Games of ALFWorld made from floor plans, in the benchmark's own file format.

Rooms, receptacles, compatibilities, goals and sentences are the benchmark's; where things lie at
the start is drawn here, so results on these games are not comparable with published ones. The
sets follow the benchmark's: training rooms, the same rooms with other placements, and four rooms
that training never sees.

A game is a function of its set and task id alone, on every machine and Python: all draws come
from one generator seeded with a string, by ``random()`` only, whose sequence Python keeps.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

from agentgym.envs.alfworld_files import GameFiles
from agentgym.envs.alfworld_layout import Item, Layout
from agentgym.envs.alfworld_rooms import (
    LAMP,
    UNSEEN_SCENES,
    Pose,
    Receptacle,
    Room,
    floor_plans,
    read_data,
)
from agentgym.envs.alfworld_tasks import (
    TASK_TYPES,
    TWO,
    Task,
    needed_receptacles,
    possible_tasks,
    scenes_for,
    stands_for,
)
from agentgym.envs.draws import pick, shuffled
from agentgym.errors import UsageError, unknown

_SIZES = {"gen-train": 3600, "gen-seen": 300, "gen-unseen": 300}

SETS = tuple(_SIZES)
"""``gen-train``; ``gen-seen``: its rooms, other placements; ``gen-unseen``: rooms it never has."""

_TASK_MARK = "UNKNOWN GOAL"
_NUMBERS = (1, 1, 1, 2, 2, 3)  # how many there may be of a type of object
_ATTEMPTS = 200  # to cut a room down so that a task is left in it


@cache
def task_ids(set_name: str) -> tuple[str, ...]:
    """Return the ids of a set's games: the task types in turn, each with its number.

    Raises:
        UsageError: No such set.
    """
    if set_name not in _SIZES:
        raise unknown("set of generated ALFWorld games", set_name, SETS)
    per_type = _SIZES[set_name] // len(TASK_TYPES)
    return tuple(f"{kind}-{number:04d}" for number in range(per_type) for kind in TASK_TYPES)


def generate(set_name: str, task_id: str) -> GameFiles:
    """Make one game of a set.

    Raises:
        UsageError: No such set or game.
    """
    if task_id not in _members(set_name):
        raise unknown(f"game of {set_name}", task_id, task_ids(set_name))
    task_type, _, number = task_id.rpartition("-")
    seed = f"alfworld/{set_name}/{task_id}"
    scenes = [
        scene
        for scene in scenes_for(task_type)
        if (scene in UNSEEN_SCENES) == (set_name == "gen-unseen")
    ]
    scene = pick(random.Random(f"{seed}/scene"), scenes)
    return make_game(seed, task_type, scene, trial=f"{set_name}_{number}")


def make_game(
    seed: str,
    task_type: str,
    scene: int,
    *,
    trial: str = "made",
    domain: str | None = None,
    grammar: str | None = None,
    max_receptacles: int | None = None,
    max_objects: int | None = None,
) -> GameFiles:
    """Make a game in a given room.

    Args:
        seed: Where every draw comes from.
        task_type: One of :data:`~agentgym.envs.alfworld_tasks.TASK_TYPES`.
        scene: The room's number in AI2-THOR.
        trial: The last part of the game's name.
        domain: A planning domain to use instead of the package's.
        grammar: A text grammar to use instead of the package's; ``UNKNOWN GOAL`` in it is
            replaced by the task. Such a game carries no walkthrough, whose words are the
            package's.
        max_receptacles: Keep at most so many receptacles, for slow engines.
        max_objects: Keep at most so many types of objects, for slow engines.

    Returns:
        The game. It can be won, for the task was chosen so that it can be done and every
        receptacle can be reached; the walkthrough shows one way.

    Raises:
        UsageError: No such task type or room, or no task of this type can be set in it.
    """
    if task_type not in TASK_TYPES:
        raise unknown("ALFWorld task type", task_type, TASK_TYPES)
    if scene not in scenes_for(task_type):
        raise UsageError(
            f"no task {task_type} can be set in room {scene}; rooms that have one:"
            f" {', '.join(map(str, scenes_for(task_type)))}"
        )
    rng = random.Random(seed)
    room, task = _room_and_task(rng, task_type, scene, max_receptacles, max_objects)
    layout = _place(rng, room, task)
    sentence = pick(rng, task.sentences)
    return _game_files(layout, sentence, seed, trial, domain, grammar)


def _room_and_task(
    rng: random.Random,
    task_type: str,
    scene: int,
    max_receptacles: int | None,
    max_objects: int | None,
) -> tuple[Room, Task]:
    whole = floor_plans().rooms[scene]
    for _ in range(_ATTEMPTS):
        room = _cut_down(rng, whole, task_type, max_receptacles, max_objects)
        tasks = possible_tasks(room, task_type)
        if tasks:
            return room, pick(rng, tasks[pick(rng, sorted(tasks))])
    raise UsageError(
        f"found no task {task_type} in room {scene} with {max_receptacles} receptacles and"
        f" {max_objects} types of objects; allow more"
    )


def _cut_down(
    rng: random.Random,
    room: Room,
    task_type: str,
    max_receptacles: int | None,
    max_objects: int | None,
) -> Room:
    """Return the room with some of its receptacles and object types only."""
    receptacles, objects = list(room.receptacles), list(room.objects)
    if max_receptacles is not None:
        drawn = shuffled(rng, receptacles)
        needed = [pick(rng, _of_type(drawn, kind)) for kind in needed_receptacles(task_type)]
        others = [one for one in drawn if one not in needed]
        receptacles = [*needed, *others][:max_receptacles]
    if max_objects is not None:
        objects = shuffled(rng, objects)[:max_objects]
    return replace(
        room,
        receptacles=tuple(sorted(receptacles, key=lambda one: one.id)),
        objects=tuple(sorted(objects)),
    )


# Placement ------------------------------------------------------------------------------------


def _place(rng: random.Random, room: Room, task: Task) -> Layout:
    """Put one to three of every type of object somewhere they can be, and a lamp."""
    taken: set[str] = set()
    types = [*room.objects, *([LAMP] if _has_lamp(room) else [])]
    items = tuple(item for kind in types for item in _items(rng, room, task, kind, taken))
    return Layout(room, task, items, pick(rng, room.starts))


def _items(
    rng: random.Random, room: Room, task: Task, kind: str, taken: set[str]
) -> Iterator[Item]:
    """Yield the objects of a type. What the task asks for is nowhere where it belongs."""
    wanted = kind == task.object
    barred = {task.target} if wanted else set()
    places = stands_for(kind, frozenset(room.receptacle_types) - barred)
    if not places:
        return
    number = 1 if kind == LAMP else pick(rng, _NUMBERS)
    for _ in range(max(number, 2) if wanted and task.type == TWO else number):
        receptacle = pick(rng, _of_type(room.receptacles, pick(rng, places)))
        yield Item(_new_id(rng, kind, receptacle.pose, taken), kind, receptacle)


def _new_id(rng: random.Random, kind: str, pose: Pose, taken: set[str]) -> str:
    """Return an id of AI2-THOR's form: the type and a position, here near a receptacle."""
    while True:
        x, y, z = (
            centre + int(rng.random() * 100) - 50 for centre in (25 * pose[0], 90, 25 * pose[1])
        )
        name = "|".join([kind, *(f"{value / 100:+06.2f}" for value in (x, y, z))])
        if name not in taken:
            taken.add(name)
            return name


def _has_lamp(room: Room) -> bool:
    return room.lamp and bool(stands_for(LAMP, frozenset(room.receptacle_types)))


def _of_type(receptacles: Iterable[Receptacle], kind: str) -> list[Receptacle]:
    return [one for one in receptacles if one.type == kind]


# Files ----------------------------------------------------------------------------------------


def _game_files(
    layout: Layout,
    sentence: str,
    seed: str,
    trial: str,
    domain: str | None,
    grammar: str | None,
) -> GameFiles:
    task, scene = layout.task, layout.room.scene
    words = read_data("grammar.twl2") if grammar is None else grammar
    game = {
        "pddl_domain": read_data("domain.pddl") if domain is None else domain,
        "grammar": words.replace(_TASK_MARK, sentence),
        "pddl_problem": layout.problem(),
        "solvable": True,
        "walkthrough": layout.walkthrough() if grammar is None else None,
    }
    trajectory = {
        "task_id": f"trial_{trial}",
        "task_type": task.type,
        "pddl_params": task.parameters,
        "scene": {"floor_plan": f"FloorPlan{scene}", "scene_num": scene, "random_seed": seed},
        "turk_annotations": {"anns": [{"task_desc": sentence}]},
    }
    folder = f"{task.type}-{task.object}-None-{task.target}-{scene}"
    return GameFiles(f"{folder}/trial_{trial}", game, trajectory)


@cache
def _members(set_name: str) -> frozenset[str]:
    return frozenset(task_ids(set_name))
