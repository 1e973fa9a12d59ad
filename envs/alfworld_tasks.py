"""The six task types of ALFWorld: what each asks for, in PDDL and in words.

Goals and sentences mean and say what the benchmark's do (Shridhar et al., "ALFWorld: Aligning
Text and Embodied Environments for Interactive Learning", ICLR 2021, appendix; two template
sentences a type).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from agentgym.envs.alfworld_rooms import LAMP, FloorPlans, Room, floor_plans

PICK = "pick_and_place_simple"
LOOK = "look_at_obj_in_light"
CLEAN = "pick_clean_then_place_in_recep"
HEAT = "pick_heat_then_place_in_recep"
COOL = "pick_cool_then_place_in_recep"
TWO = "pick_two_obj_and_place"

TASK_TYPES = (PICK, LOOK, CLEAN, HEAT, COOL, TWO)

# What no task of the benchmark puts things into, and what it puts single things into only.
_NO_GOALS = frozenset({"HandTowelHolder", "LaundryHamper", "TVStand", "Toaster", "TowelHolder"})
_SINGLE_GOALS = frozenset({"CoffeeMachine", "StoveBurner", "ToiletPaperHanger"})


@dataclass(frozen=True, slots=True)
class Treatment:
    """Something that is done to an object at a receptacle before it is put where it belongs."""

    verb: str
    station: str  # the type of receptacle that does it
    treatable: Callable[[FloorPlans], frozenset[str]]  # which object types
    able: str  # predicates: can be treated, was treated
    done: str


TREATMENTS = {
    CLEAN: Treatment("clean", "SinkBasin", lambda plans: plans.cleanable, "cleanable", "isClean"),
    HEAT: Treatment("heat", "Microwave", lambda plans: plans.heatable, "heatable", "isHot"),
    COOL: Treatment("cool", "Fridge", lambda plans: plans.coolable, "coolable", "isCool"),
}

SENTENCES = {
    PICK: ("put a {object} in {target}", "put some {object} on {target}"),
    LOOK: ("look at {object} under the {target}", "examine the {object} with the {target}"),
    CLEAN: ("put a clean {object} in {target}", "clean some {object} and put it in {target}"),
    HEAT: ("put a hot {object} in {target}", "heat some {object} and put it in {target}"),
    COOL: ("put a cool {object} in {target}", "cool some {object} and put it in {target}"),
    TWO: ("put two {object} in {target}", "find two {object} and put them in {target}"),
}


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked for. ``target`` is a type of receptacle, or the lamp to look under."""

    type: str
    object: str
    target: str

    @property
    def sentences(self) -> tuple[str, ...]:
        """The ways to say it."""
        words = {"object": self.object.lower(), "target": self.target.lower()}
        return tuple(sentence.format(**words) for sentence in SENTENCES[self.type])

    @property
    def parameters(self) -> dict[str, str | bool]:
        """``pddl_params`` as the benchmark stores them."""
        looking = self.type == LOOK
        return {
            "object_target": self.object,
            "parent_target": "" if looking else self.target,
            "mrecep_target": "",
            "toggle_target": self.target if looking else "",
            "object_sliced": False,
        }

    @property
    def goal(self) -> str:
        """The goal in PDDL."""
        if self.type == LOOK:
            return _LOOK_GOAL.format(object=self.object, lamp=self.target)
        if self.type == TWO:
            return _TWO_GOAL.format(object=self.object, target=self.target)
        state = ""
        if self.type in TREATMENTS:
            treatment = TREATMENTS[self.type]
            state = f"\n      ({treatment.able} ?o)\n      ({treatment.done} ?o)"
        return _PLACE_GOAL.format(object=self.object, target=self.target, state=state)


_PLACE_GOAL = """\
  (exists (?r - receptacle ?o - object)
    (and
      (receptacleType ?r {target}Type)
      (objectType ?o {object}Type)
      (inReceptacle ?o ?r){state}))"""

_TWO_GOAL = """\
  (exists (?r - receptacle ?o1 - object ?o2 - object)
    (and
      (receptacleType ?r {target}Type)
      (objectType ?o1 {object}Type)
      (objectType ?o2 {object}Type)
      (not (= ?o1 ?o2))
      (inReceptacle ?o1 ?r)
      (inReceptacle ?o2 ?r)))"""

_LOOK_GOAL = """\
  (exists (?a - agent ?l - location ?r - receptacle ?lamp - object ?o - object)
    (and
      (objectType ?lamp {lamp}Type)
      (toggleable ?lamp)
      (isToggled ?lamp)
      (inReceptacle ?lamp ?r)
      (receptacleAtLocation ?r ?l)
      (atLocation ?a ?l)
      (objectType ?o {object}Type)
      (holds ?a ?o)))"""


def needed_receptacles(task_type: str) -> frozenset[str]:
    """Return the receptacle types without which no task of this type can be done."""
    return frozenset({TREATMENTS[task_type].station} if task_type in TREATMENTS else ())


def possible_tasks(room: Room, task_type: str) -> dict[str, tuple[Task, ...]]:
    """Return the tasks of one type that can be set in a room, by target.

    Every object can be somewhere else than in the target at the start, so no goal is reached
    before the first step.
    """
    if task_type == LOOK:
        return _looking_tasks(room)
    plans = floor_plans()
    types = frozenset(room.receptacle_types)
    needed = needed_receptacles(task_type)
    if not needed <= types:
        return {}
    barred = needed | _NO_GOALS | (_SINGLE_GOALS if task_type == TWO else frozenset())
    objects = [one for one in room.objects if _is_treatable(one, task_type, plans)]
    found = {
        target: tuple(
            Task(task_type, one, target)
            for one in objects
            if one in plans.holds[target] and stands_for(one, types - {target})
        )
        for target in sorted(types - barred)
    }
    return {target: tasks for target, tasks in found.items() if tasks}


def stands_for(kind: str, receptacle_types: frozenset[str]) -> list[str]:
    """Return those of some receptacle types in or on which an object type may be, sorted."""
    plans = floor_plans()
    if kind == LAMP:
        return sorted(receptacle_types & plans.lamp_stands)
    return [one for one in sorted(receptacle_types) if kind in plans.holds[one]]


def _looking_tasks(room: Room) -> dict[str, tuple[Task, ...]]:
    types = frozenset(room.receptacle_types)
    if not (room.lamp and stands_for(LAMP, types)):
        return {}
    tasks = tuple(Task(LOOK, one, LAMP) for one in room.objects if stands_for(one, types))
    return {LAMP: tasks} if tasks else {}


def _is_treatable(kind: str, task_type: str, plans: FloorPlans) -> bool:
    return task_type not in TREATMENTS or kind in TREATMENTS[task_type].treatable(plans)


@cache
def scenes_for(task_type: str) -> tuple[int, ...]:
    """Return the rooms in which some task of a type can be set."""
    rooms = floor_plans().rooms
    return tuple(scene for scene, room in rooms.items() if possible_tasks(room, task_type))
