"""A player of ScienceWorld's shortest tasks: it finds things and brings them, or points at them.

It knows where animals and plants are kept and which animals live long, and no more: what there is
in this variation it learns by looking around. It goes from place to place by teleporting, so it
plays with the simplification ``easy``, or any other that allows this.

It can be taken over: whatever happened between two of its turns, it learns of it by reading, and
goes on from there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from agentgym.envs.draws import pick
from agentgym.errors import UsageError

PLACES = (
    "art studio",
    "bathroom",
    "bedroom",
    "foundry",
    "greenhouse",
    "hallway",
    "kitchen",
    "living room",
    "outside",
    "workshop",
)

BY_LIFE_SPAN = (
    *("giant tortoise", "elephant", "crocodile", "parrot", "brown bear"),
    *("turtle", "beaver", "wolf", "frog", "toad", "blue jay", "dove", "rabbit", "chipmunk"),
    *("hedgehog", "chameleon", "mouse", "moth", "butterfly", "bee", "dragonfly", "ant"),
)
"""Animals, the longest-lived first, in the benchmark's order where experience says another."""

TOOLS = ("axe", "shovel", "jug")
"""Things without life that can be carried and lie outside."""

_BRING = re.compile(
    r"find a\(n\) (?P<kind>animal|living thing|non-living thing|plant)\. .*"
    r"move it to the (?P<box>\w+ box) in the (?P<place>[a-z ]+)\."
)
_POINT = re.compile(r"(longest|shortest) life span")
_PLACE = re.compile(r"(?:(?:room|location) is called|You (?:teleport|move) to) the ([a-z ]+?)\.")
_SEEN = re.compile(r"^\tan? (?!substance called)(.+?)\.?$", re.MULTILINE)
_PLANT = re.compile(r"\(containing an? ([a-z ]+?) in the \w+ stage")
_FOCUSED = re.compile(r"You focus on the ([a-z ]+)\.")
_HELD = re.compile(r"You move the ([a-z ]+) to the inventory\.")


class Demonstrator:
    """Plays one variation.

    Args:
        goal: The task in words.
        rng: Where its slips come from.

    Raises:
        UsageError: It is none of the tasks that this player knows.
    """

    def __init__(self, goal: str, rng: random.Random) -> None:
        self._rng = rng
        self._bring = _BRING.search(goal)
        self._points = _POINT.findall(goal)  # at the longest-lived, the shortest-lived, or both
        if not self._bring and not self._points:
            raise UsageError(
                f"ScienceWorld's demonstrator cannot do {goal!r}; it does the tasks of the suites"
                " scienceworld/short-…"
            )
        self._place = ""
        self._seen: dict[str, str] = {}  # what was seen in each place, as it was shown
        self._focused = 0  # how often it has pointed at something
        self._thing = ""  # what is to be brought
        self._held = False

    def act(self, observation: str, admissible: tuple[str, ...] = ()) -> str:
        """Return the next action.

        Args:
            observation: What the environment said last.
            admissible: Not looked at: what can be done follows from what is seen.
        """
        self._read(observation)
        source = "greenhouse" if self._bring and self._bring["kind"] == "plant" else "outside"
        if self._bring and self._held:
            return self._go(self._bring["place"]) or f"move {self._thing} to {self._bring['box']}"
        step = self._go(source)
        if step:
            return step
        if source not in self._seen:
            return "look around"
        if self._bring is None:
            return (
                f"focus on {self._animal(self._points[min(self._focused, len(self._points) - 1)])}"
            )
        self._thing = self._thing or self._choose(self._bring["kind"])
        return f"pick up {self._thing}" if self._focused else f"focus on {self._thing}"

    def slip(self) -> str:
        """Return a mistake that somebody in its place could make, and that can be made good."""
        box = self._bring["box"] if self._bring else "red box"
        thing = pick(self._rng, (*TOOLS, "dove egg", "apple tree", "picture"))
        slips = (
            f"teleport to {pick(self._rng, PLACES)}",
            f"open door to {pick(self._rng, PLACES)}",
            f"move {thing} to {box}" if not self._held else "look around",
            "look around",
        )
        return pick(self._rng, slips)

    def _read(self, observation: str) -> None:
        place = _PLACE.search(observation)
        if place:
            self._place = place[1]
            if "called" in observation:
                self._seen[self._place] = observation
        if _FOCUSED.search(observation):
            self._focused += 1
        self._held = self._held or bool(_HELD.search(observation))

    def _go(self, place: str) -> str:
        return "" if self._place == place else f"teleport to {place}"

    def _choose(self, kind: str) -> str:
        """Return something of a kind where it looked for it, as it is called there."""
        if kind == "plant":
            return next(iter(_PLANT.findall(self._seen["greenhouse"])), "plant")
        if kind == "non-living thing":
            there = list(self._things())
            return next((tool for tool in TOOLS if tool in there), TOOLS[0])
        return next(self._animals(), "animal")

    def _things(self) -> Iterator[str]:
        for line in _SEEN.findall(self._seen["outside"]):
            yield line.partition(" (")[0]

    def _animals(self) -> Iterator[str]:
        """Yield the animals outside, in the order in which they are named."""
        for thing in self._things():
            if _species(thing) in BY_LIFE_SPAN:
                yield thing

    def _animal(self, which: str) -> str:
        """Return the longest- or shortest-lived of the animals outside."""
        animals = sorted(self._animals(), key=lambda thing: BY_LIFE_SPAN.index(_species(thing)))
        return (animals or ["animal"])[0 if which == "longest" else -1]


def _species(thing: str) -> str:
    """Return the species of *a baby wolf* or *a dove egg*."""
    return re.sub(r"^(?:baby|juvenile|adult) | egg$", "", thing)
