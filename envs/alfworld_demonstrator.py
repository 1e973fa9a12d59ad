"""A player of ALFWorld that searches: it knows what it was told and what it has seen, no more.

It goes from receptacle to receptacle until it sees what the task asks for, and remembers what it
saw on the way. Half of the time it goes where such a thing is usually kept, half of the time
anywhere; so it is neither perfect nor wasteful, and what it does can be learnt from what it has
read. Within a type it takes the lowest number first, and it opens what it finds closed.

It can be taken over: whatever happened between two of its turns, it learns of it by reading, and
goes on from there.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import cache

from agentgym.envs.alfworld_rooms import LAMP, floor_plans
from agentgym.envs.alfworld_tasks import LOOK, SENTENCES, TREATMENTS, TWO, Task
from agentgym.errors import UsageError

PLAUSIBLE = 0.5
"""How often it goes where the thing it looks for is usually kept."""

_THING = r"(\w+ \d+)"
_CONTENTS = re.compile(rf"(?:On the {_THING}|The {_THING} is open\. In it), you see ([^.]*)\.")
_CLOSED = re.compile(rf"(?:The {_THING} is closed|You close the {_THING})\.")
_TAKEN = re.compile(rf"You pick up the {_THING} from the {_THING}\.")
_PUT = re.compile(rf"You move the {_THING} to the {_THING}\.")
_TREATED = re.compile(rf"You (clean|heat|cool) the {_THING} using the {_THING}\.")
_LISTED = re.compile(rf"\ba {_THING}")

_UNDOES = {"heat": "cool", "cool": "heat"}


class Memory:
    """What has been read so far.

    Attributes:
        contents: What was last seen in each receptacle that was seen inside; what was moved
            since is accounted for.
        closed: The receptacles last seen closed.
        held: What is in the hand.
        treated: What was done to each object and still holds: clean, heat, cool.
    """

    def __init__(self) -> None:
        self.contents: dict[str, list[str]] = {}
        self.closed: set[str] = set()
        self.held: str | None = None
        self.treated: defaultdict[str, set[str]] = defaultdict(set)

    def read(self, observation: str) -> None:
        """Take in what the game said."""
        for on, inside, listed in _CONTENTS.findall(observation):
            self.contents[on or inside] = _LISTED.findall(listed)
            self.closed.discard(on or inside)
        for found, shut in _CLOSED.findall(observation):
            self.closed.add(found or shut)
        for thing, place in _TAKEN.findall(observation):
            self.held = thing
            if thing in self.contents.get(place, ()):
                self.contents[place].remove(thing)
        for thing, place in _PUT.findall(observation):
            self.held = None
            self.contents.setdefault(place, []).append(thing)
        for verb, thing, _ in _TREATED.findall(observation):
            self.treated[thing].discard(_UNDOES.get(verb, ""))
            self.treated[thing].add(verb)

    def forget(self, thing: str, place: str) -> None:
        """Strike out what turned out not to be there."""
        self.contents[place].remove(thing)

    def seen(self, kind: str) -> Iterator[tuple[str, str]]:
        """Yield every object of a type that was seen, with its place, lowest number first."""
        found = [(o, r) for r, inside in self.contents.items() for o in inside if _type(o) == kind]
        yield from sorted(found, key=lambda pair: (_number(pair[0]), pair[0], pair[1]))


class Demonstrator:
    """Plays one game.

    Args:
        goal: The task's sentence.
        rng: Where its choices come from; only ``random()`` is asked.
        plausible: How often it goes where the thing it looks for is usually kept.

    Raises:
        UsageError: The sentence is none of the benchmark's templates.
    """

    def __init__(self, goal: str, rng: random.Random, plausible: float = PLAUSIBLE) -> None:
        self.task = read_task(goal)
        self._rng = rng
        self._plausible = plausible
        self._memory = Memory()
        self._receptacles: set[str] = set()
        self._can: Collection[str] = ()

    def act(self, observation: str, admissible: tuple[str, ...]) -> str:
        """Return the next command.

        Args:
            observation: What the game said last.
            admissible: The commands that do something now.
        """
        self._memory.read(observation)
        self._can = frozenset(admissible)
        self._receptacles |= {c.removeprefix("go to ") for c in admissible if c[:6] == "go to "}
        held = self._memory.held
        if held is None:
            return self._find(self.task.object)
        if _type(held) != self.task.object:
            return self._put_down(held)
        if self.task.type == LOOK:
            return self._look(held)
        treatment = TREATMENTS.get(self.task.type)
        if treatment and treatment.verb not in self._memory.treated[held]:
            return self._treat(held, treatment.verb, treatment.station.lower())
        return self._put(held, self._home())

    def _find(self, kind: str) -> str:
        """Take an object of a type, or go on looking for one."""
        home = self._home() if self.task.type == TWO else None
        for thing, place in list(self._memory.seen(kind)):
            if place == home:
                continue
            step = self._first(f"take {thing} from {place}", f"open {place}", f"go to {place}")
            if step:
                return step
            self._memory.forget(thing, place)
        return self._search(kind)

    def _look(self, held: str) -> str:
        """Turn on a lamp beside which one stands, or go on looking for one."""
        for lamp, place in self._memory.seen(self.task.target):
            step = self._first(f"use {lamp}", f"go to {place}")
            if step:
                return step
        return self._search(self.task.target)

    def _treat(self, held: str, verb: str, station: str) -> str:
        for place in self._of_type(station):
            step = self._first(f"go to {place}", f"{verb} {held} with {place}")
            if step:
                return step
        return self._search(station)

    def _put(self, held: str, place: str | None) -> str:
        if place is None:
            return "look"
        return self._first(f"move {held} to {place}", f"open {place}", f"go to {place}") or "look"

    def _put_down(self, held: str) -> str:
        """Get rid of something that the task does not ask for: at hand if that can be."""
        here = sorted(command for command in self._can if command.startswith(f"move {held} to "))
        if here:
            return here[0]
        usual = _places(_type(held))
        able = [one for one in self._in_order() if _type(one) in usual]
        return self._put(held, able[0] if able else None)

    def _home(self) -> str | None:
        """Return where to put things: where most of them are already, or the lowest number."""
        places = self._of_type(self.task.target)

        def there(place: str) -> int:
            inside = self._memory.contents.get(place, ())
            return sum(_type(thing) == self.task.object for thing in inside)

        return max(places, key=there, default=None) if self.task.type == TWO else next(places, None)

    def _search(self, kind: str) -> str:
        """Look into the next receptacle that was not looked into yet."""
        memory = self._memory
        unseen = [one for one in self._in_order() if one not in memory.contents]
        if not unseen:  # what was sought has moved unseen: begin again
            memory.contents.clear()
            unseen = self._in_order()
        for place in unseen:
            if place in memory.closed and f"open {place}" in self._can:
                return f"open {place}"
        away = [one for one in unseen if f"go to {one}" in self._can]
        if away:
            return f"go to {self._choose(away, kind)}"
        return self._first(*(f"examine {one}" for one in unseen)) or "look"

    def _choose(self, places: list[str], kind: str) -> str:
        """Draw a type, likely one where such things are kept, and take its lowest number."""
        types = list(dict.fromkeys(map(_type, places)))
        if self._rng.random() < self._plausible:
            usual = _places(kind)
            types = [one for one in types if one in usual] or types
        drawn = types[int(self._rng.random() * len(types))]
        return next(one for one in places if _type(one) == drawn)

    def _first(self, *commands: str) -> str | None:
        return next((command for command in commands if command in self._can), None)

    def _of_type(self, kind: str) -> Iterator[str]:
        return (one for one in self._in_order() if _type(one) == kind)

    def _in_order(self) -> list[str]:
        return sorted(self._receptacles, key=lambda one: (_type(one), _number(one)))


def read_task(goal: str) -> Task:
    """Return the task that a sentence names, its types in lower case.

    Raises:
        UsageError: The sentence is none of the benchmark's templates.
    """
    sentence = goal.strip().rstrip(".")
    for task_type, pattern in _patterns():
        match = pattern.fullmatch(sentence)
        if match:
            return Task(task_type, match["object"], match["target"])
    raise UsageError(
        f"cannot read the task {goal!r}; the demonstrator knows the benchmark's templates, such"
        f" as {SENTENCES[LOOK][0].format(object='book', target='desklamp')!r}"
    )


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    words = {"object": r"(?P<object>\w+)", "target": r"(?P<target>\w+)"}
    patterns = [
        (task_type, re.compile(sentence.format(**words)))
        for task_type, sentences in SENTENCES.items()
        for sentence in sentences
    ]
    return tuple(sorted(patterns, key=lambda pair: -len(pair[1].pattern)))


@cache
def _places(kind: str) -> frozenset[str]:
    """Return the types of receptacles where objects of a type are kept, all in lower case."""
    plans = floor_plans()
    if kind == LAMP.lower():
        return frozenset(map(str.lower, plans.lamp_stands))
    return frozenset(
        place.lower() for place, held in plans.holds.items() if kind in set(map(str.lower, held))
    )


def _type(name: str) -> str:
    return name.partition(" ")[0]


def _number(name: str) -> int:
    return int(name.partition(" ")[2])
