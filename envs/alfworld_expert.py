"""An ALFWorld expert that sees everything: a complete plan from any state, for all six task types.

It reads the goal from the game's planning problem, tries every way to fill its variables (which
apple, which shelf), sketches the steps for each, and takes the shortest sketch. Done on an engine,
a plan proves that the game can be solved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations

from agentgym.envs.alfworld_engine import Engine, Move
from agentgym.envs.alfworld_logic import Arguments, Literal, Query, ground

TREATMENTS = {
    "isclean": ("cleanobject", "sinkbasintype"),
    "ishot": ("heatobject", "microwavetype"),
    "iscool": ("coolobject", "fridgetype"),
}
"""What makes an object so: the action, and the type of the receptacle that it needs."""


def plan(engine: Engine) -> tuple[str, ...] | None:
    """Return commands that win the game from the engine's present state.

    Returns:
        The commands in order, none if the game is won already; None if the expert knows no way.
    """
    if engine.won:
        return ()
    sketches = [
        sketch
        for query in engine.problem.goal
        for wanted in _wishes(engine, query)
        for sketch in _sketches(engine, wanted)
    ]
    # Of equally short ones always the same: facts are in sets, whose order differs by process.
    best = min(sketches, key=lambda sketch: (len(sketch.moves), sketch.moves), default=None)
    return None if best is None else tuple(engine.command(move) for move in best.moves)


def _wishes(engine: Engine, query: Query) -> Iterator[list[Literal]]:
    """Yield, for every way to fill the goal's variables, the facts that then have to hold."""
    fluents = engine.domain.fluents
    wishes = [one for one in query.positive if one.predicate in fluents]
    if any(one.predicate in fluents for one in query.negative):
        return
    fixed = tuple(one for one in query.positive if one.predicate not in fluents)
    given = Query(fixed, query.negative, query.equal, query.unequal, query.types)
    for binding in given.solutions(engine.facts, {}):
        yield [ground(wish, binding) for wish in wishes]


def _sketches(engine: Engine, wishes: Sequence[Literal]) -> Iterator[_Sketch]:
    """Yield a sketch for every order of placing things, where there is a way."""
    placings = [wish for wish in wishes if wish.predicate == "inreceptacle"]
    others = [wish for wish in wishes if wish.predicate != "inreceptacle"]
    for order in permutations(placings):
        try:
            sketch = _Sketch(engine)
            sketch.fulfil(order, others)
        except _NoWayError:
            continue
        yield sketch


class _NoWayError(Exception):
    """A wish that cannot come true."""


class _Sketch:
    """Moves on paper: where the agent would be, what it would hold, what would be open."""

    def __init__(self, engine: Engine) -> None:
        self.moves: list[Move] = []
        self._facts = facts = engine.facts
        self._parameters = {action.name: action.parameters for action in engine.domain.actions}
        if not facts.all("atlocation"):
            raise _NoWayError
        self._agent, self._at = min(facts.all("atlocation"))
        self._held = next((thing for _, thing in facts.all("holds")), None)
        self._opened = {receptacle for (receptacle,) in facts.all("opened")}

    def fulfil(self, placings: Sequence[Literal], others: Sequence[Literal]) -> None:
        """Add the moves after which all wishes hold.

        Raises:
            _NoWayError: Some wish cannot come true.
        """
        treatments = [wish for wish in others if wish.predicate in TREATMENTS]
        for _, (thing, receptacle) in placings:
            self._place(thing, receptacle, [wish for wish in treatments if wish.terms[0] == thing])
        for predicate, terms in others:
            if predicate == "holds":
                self._fetch(terms[1])
        for predicate, terms in others:
            if predicate == "istoggled":
                self._toggle(terms[0])
            elif predicate == "atlocation":
                self._go(self._any_at(terms[1]))
            elif predicate not in {"holds", *TREATMENTS}:
                raise _NoWayError

    def _place(self, thing: str, receptacle: str, treatments: Sequence[Literal]) -> None:
        missing = [wish for wish in treatments if not self._facts.holds(*wish)]
        if not missing and self._facts.holds("inreceptacle", (thing, receptacle)):
            return
        self._fetch(thing)
        for predicate, _ in missing:
            self._treat(thing, predicate)
        self._put(thing, receptacle)

    def _fetch(self, thing: str) -> None:
        if self._held == thing:
            return
        if self._held is not None:
            self._put(self._held, self._nearest_for(self._held))
        receptacle = self._place_of(thing)
        if not self._facts.holds("pickupable", (thing,)):
            raise _NoWayError
        self._open(receptacle)
        self._move("pickupobject", o=thing, r=receptacle)
        self._held = thing

    def _put(self, thing: str, receptacle: str) -> None:
        kinds = self._fitting_kinds(thing, receptacle)
        if kinds is None:
            raise _NoWayError
        self._open(receptacle)
        self._move("putobject", o=thing, r=receptacle, ot=kinds[0], rt=kinds[1])
        self._held = None

    def _treat(self, thing: str, predicate: str) -> None:
        action, kind = TREATMENTS[predicate]
        places = sorted(place for place, _ in self._matching("receptacletype", 1, kind))
        if not places or action not in self._parameters:
            raise _NoWayError
        here = [place for place in places if self._location(place) == self._at]
        place = (here or places)[0]
        self._go(place)
        self._move(action, o=thing, r=place)

    def _toggle(self, lamp: str) -> None:
        receptacle = self._place_of(lamp)
        self._go(receptacle)
        if not self._facts.holds("istoggled", (lamp,)):
            self._move("toggleobject", o=lamp, r=receptacle)

    def _open(self, receptacle: str) -> None:
        self._go(receptacle)
        if self._is_closed(receptacle):
            self._move("openobject", r=receptacle)
            self._opened.add(receptacle)

    def _go(self, receptacle: str) -> None:
        there = self._location(receptacle)
        if there != self._at:
            self._move("gotolocation", r=receptacle, lstart=self._at, lend=there)
            self._at = there

    def _move(self, action: str, **roles: str) -> None:
        roles |= {"a": self._agent, "l": self._at}
        try:
            arguments = tuple(roles[parameter[1:]] for parameter in self._parameters[action])
        except KeyError:
            raise _NoWayError from None  # a domain whose actions are not those of ALFWorld
        self.moves.append(Move(action, arguments))

    # What the facts say -----------------------------------------------------------------------

    def _matching(self, predicate: str, position: int, value: str) -> Iterable[Arguments]:
        return self._facts.index(predicate, position).get(value, ())

    def _first(self, predicate: str, given: str) -> str:
        """Return the smallest second argument of the facts whose first argument is given."""
        found = [second for _, second in self._matching(predicate, 0, given)]
        if not found:
            raise _NoWayError
        return min(found)

    def _location(self, receptacle: str) -> str:
        return self._first("receptacleatlocation", receptacle)

    def _place_of(self, thing: str) -> str:
        return self._first("inreceptacle", thing)

    def _any_at(self, location: str) -> str:
        found = [
            receptacle for receptacle, _ in self._matching("receptacleatlocation", 1, location)
        ]
        if not found:
            raise _NoWayError
        return min(found)

    def _is_closed(self, receptacle: str) -> bool:
        return receptacle not in self._opened and self._facts.holds("openable", (receptacle,))

    def _fitting_kinds(self, thing: str, receptacle: str) -> tuple[str, str] | None:
        """Return the types under which the receptacle takes the thing, None if it does not."""
        for _, kind in sorted(self._matching("objecttype", 0, thing)):
            for _, place in sorted(self._matching("receptacletype", 0, receptacle)):
                if self._facts.holds("cancontain", (place, kind)):
                    return kind, place
        return None

    def _nearest_for(self, thing: str) -> str:
        """Return where ``thing`` is put down in the fewest moves."""
        takes = [
            ((location != self._at) + self._is_closed(receptacle), receptacle)
            for receptacle, location in self._facts.all("receptacleatlocation")
            if self._fitting_kinds(thing, receptacle)
        ]
        if not takes:
            raise _NoWayError
        return min(takes)[1]
