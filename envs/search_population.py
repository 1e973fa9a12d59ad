"""Drawing a world: who lives in it, what they made and founded, and how all of it hangs together.

What is drawn is consistent: nobody teaches before growing up or studies at a university that is
not founded yet, children are younger than their parents and bear their father's name, a film is
not older than the novel that it is based on. What would not be so is left out.

People come in two sides, of which one is held out. Families, teachers and whom a work shows or is
dedicated to are all of one side.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agentgym.envs.draws import between, pick, shuffled
from agentgym.envs.search_facts import Entity, Facts
from agentgym.envs.search_names import Namer
from agentgym.envs.search_relations import CITY, COUNTRY, HOUSES, PERSON, WORKS
from agentgym.errors import UsageError

_Item = TypeVar("_Item")

SMALLEST = 100
"""Articles that a world needs at least."""

HELD_OUT = 0.3
"""The share of people of whom nothing is asked in training."""

_SHARES = {PERSON: 0.45, "house": 0.12, CITY: 0.06, COUNTRY: 0.004}  # works are the rest
_BIRTHS = (1750, 1985)
_FILMS_SINCE = 1900
_TRADES = ("chemist", "engineer", "botanist", "historian", "lawyer", "physician", "astronomer")
_MAKERS = 0.6  # the share of people who make works
_CHILDREN = 2  # of more, articles about them would hide their parents' from a search by name
_TRIES = 12  # draws until something fits


@dataclass(frozen=True, slots=True)
class _Person:
    name: str
    female: bool
    born: int
    trade: str
    held_out: bool


class _Population:
    """The state of drawing one world."""

    def __init__(self, seed: str, size: int) -> None:
        self.facts = Facts()
        self._rng = random.Random(seed)
        self._namer = Namer(self._rng)
        self._people: list[_Person] = []  # by year of birth
        self._couples: dict[bool, list[tuple[_Person, _Person]]] = {False: [], True: []}
        self._children: Counter[str] = Counter()  # by mother
        self._houses: defaultdict[str, list[str]] = defaultdict(list)
        self._novels: list[str] = []
        number = {kind: max(2, round(share * size)) for kind, share in _SHARES.items()}
        self._places(number[COUNTRY], number[CITY])
        self._draw_people(number[PERSON])
        self._draw_houses(number["house"])
        for person in self._people:
            self._life(person)
        self._draw_works(size - sum(number.values()))

    # Places -----------------------------------------------------------------------------------

    def _places(self, countries: int, cities: int) -> None:
        lands = [self._entity(self._namer.country(), COUNTRY) for _ in range(countries)]
        self._cities = [self._entity(self._namer.city(), CITY) for _ in range(cities)]
        for number, city in enumerate(self._cities):
            # The first cities are the capitals: every country has one, and it lies there.
            land = lands[number] if number < len(lands) else pick(self._rng, lands)
            self.facts.add(city, "country", land)
            self.facts.add(city, "river", self._namer.river())
            if number < len(lands):
                self.facts.add(land, "capital", city)
                self.facts.add(land, "currency", self._namer.currency())
        paired = shuffled(self._rng, self._cities)
        for one, two in zip(paired[::2], paired[1::2], strict=False):
            self.facts.add(one, "twin", two)
            self.facts.add(two, "twin", one)

    # People -----------------------------------------------------------------------------------

    def _draw_people(self, number: int) -> None:
        for year in sorted(between(self._rng, *_BIRTHS) for _ in range(number)):
            self._be_born(year)

    def _be_born(self, year: int) -> None:
        rng = self._rng
        female, held_out = rng.random() < 0.5, rng.random() < HELD_OUT
        parents = self._fitting(
            _born(self._couples[held_out], year - 42, year - 20, _younger),
            lambda couple: (
                year - couple[0].born <= 42
                and year - couple[1].born <= 55
                and self._children[couple[0].name] < _CHILDREN
            ),
            chance=0.6,
        )
        surname = parents[1].name.rpartition(" ")[2] if parents else None
        name = self._namer.person(female, surname)
        person = _Person(name, female, year, self._trade(year), held_out)
        self.facts.add_entity(
            Entity(name, PERSON, person.trade, "her" if female else "his", held_out)
        )
        self.facts.add(name, "born", str(year))
        if parents:
            self._children[parents[0].name] += 1
            self.facts.add(name, "mother", parents[0].name)
            self.facts.add(name, "father", parents[1].name)
        self._marry(person)
        self._people.append(person)

    def _trade(self, born: int) -> str:
        if self._rng.random() >= _MAKERS:
            return pick(self._rng, _TRADES)
        kinds = [kind for kind in WORKS if kind != "film" or born >= _FILMS_SINCE - 25]
        return WORKS[pick(self._rng, kinds)][0]

    def _marry(self, person: _Person) -> None:
        """Marry someone a little older, never a sister or brother."""
        about = self.facts

        def fits(other: _Person) -> bool:
            return (
                other.held_out == person.held_out
                and other.female != person.female
                and other.name.rpartition(" ")[2] != person.name.rpartition(" ")[2]
                and about.value(other.name, "spouse") is None
            )

        other = self._fitting(self._aged(person.born - 15, person.born), fits, chance=0.6)
        if other:
            about.add(person.name, "spouse", other.name)
            about.add(other.name, "spouse", person.name)
            couple = (person, other) if person.female else (other, person)
            self._couples[person.held_out].append(couple)

    def _life(self, person: _Person) -> None:
        rng, facts, name = self._rng, self.facts, person.name
        facts.add(name, "birthplace", pick(rng, self._cities))
        if person.born < 1950:
            facts.add(name, "place of death", pick(rng, self._cities))
        self._join(person, "university", person.born + 18, chance=0.9)
        self._join(person, "academy", person.born + 60, chance=0.4)
        if person.trade in _TRADES:
            self._join(person, "company", person.born + 50, chance=0.9)
        teacher = self._fitting(
            self._aged(person.born - 50, person.born - 15),
            lambda one: one.held_out == person.held_out,
            chance=0.5,
        )
        if teacher:
            facts.add(name, "teacher", teacher.name)

    def _join(self, person: _Person, kind: str, by: int, chance: float) -> None:
        house = self._house(kind, by, chance)
        if house:
            self.facts.add(person.name, kind, house)

    # Organisations ----------------------------------------------------------------------------

    def _draw_houses(self, number: int) -> None:
        kinds = tuple(HOUSES)
        for place in range(number):
            self._found(kinds[place % len(kinds)])

    def _found(self, kind: str) -> None:
        rng, facts = self._rng, self.facts
        name = self._entity(self._namer.house(kind), kind)
        founder = self._someone(self._founders(kind))
        year = between(rng, founder.born + 25, founder.born + 40)
        facts.add(name, "founded", str(year))
        facts.add(name, "founder", founder.name)
        facts.add(name, "seat", pick(rng, self._cities))
        head = self._fitting(
            self._aged(year - 60, _BIRTHS[1]), lambda one: one is not founder, chance=0.7
        )
        if head:
            facts.add(name, "head", head.name)
        self._houses[kind].append(name)

    def _founders(self, kind: str) -> Sequence[_Person]:
        """Return who may found a house: early people, so that most others can be of it."""
        if kind == "film studio":
            return self._people[len(self._people) // 2 : len(self._people) * 3 // 4]
        return self._people[: len(self._people) // 4]

    def _house(self, kind: str, by: int, chance: float = 1.0) -> str | None:
        """Draw a house that was founded by a year."""
        return self._fitting(
            self._houses[kind], lambda one: self._year(one, "founded") <= by, chance=chance
        )

    # Works ------------------------------------------------------------------------------------

    def _draw_works(self, number: int) -> None:
        kinds = tuple(WORKS)
        makers = {kind: [p for p in self._people if p.trade == WORKS[kind][0]] for kind in kinds}
        for place in range(number):
            # Novels come first, for films and operas are based on them.
            kind = kinds[place * len(kinds) // number]
            self._make(kind, self._someone(makers[kind]))

    def _make(self, kind: str, maker: _Person) -> None:
        rng, facts = self._rng, self.facts
        year = between(rng, maker.born + 25, maker.born + 60)
        name = self._entity(self._namer.work(), kind)
        facts.add(name, "finished", str(year))
        facts.add(name, WORKS[kind][1], maker.name)
        if kind == "building":
            facts.add(name, "site", pick(rng, self._cities))
        elif kind != "painting":
            facts.add(name, "setting", pick(rng, self._cities))
        self._show(kind, name, maker, year)
        self._place(kind, name, year)
        if kind in ("film", "opera"):
            source = self._fitting(
                self._novels, lambda one: self._year(one, "finished") <= year, chance=0.6
            )
            if source:
                facts.add(name, "source", source)
        if kind == "novel":
            self._novels.append(name)

    def _show(self, kind: str, work: str, maker: _Person, year: int) -> None:
        """Paint somebody, or dedicate the work to somebody."""
        relation = {"painting": "sitter", "novel": "dedicatee", "opera": "dedicatee"}.get(kind)
        someone = self._fitting(
            self._aged(year - 80, year - 5),
            lambda one: one.held_out == maker.held_out and one is not maker,
            chance=0.7,
        )
        if relation and someone:
            self.facts.add(work, relation, someone.name)

    def _place(self, kind: str, work: str, year: int) -> None:
        """Say who published, produced, staged or owns the work; a museum buys at any time."""
        relation, house = {
            "novel": ("publisher", "publisher"),
            "film": ("studio", "film studio"),
            "opera": ("stage", "opera house"),
            "painting": ("museum", "museum"),
        }.get(kind, ("", ""))
        found = self._house(house, 9999 if kind == "painting" else year) if house else None
        if found:
            self.facts.add(work, relation, found)

    def _aged(self, first: int, last: int) -> Sequence[_Person]:
        """Return the people who were born from one year to another."""
        return _born(self._people, first, last, lambda one: one.born)

    # Draws ------------------------------------------------------------------------------------

    def _entity(self, name: str, kind: str) -> str:
        self.facts.add_entity(Entity(name, kind, kind))
        return name

    def _year(self, name: str, relation: str) -> int:
        return int(self.facts.about(name)[relation])

    def _someone(self, people: Sequence[_Person]) -> _Person:
        return pick(self._rng, people or self._people)

    def _fitting(
        self, items: Sequence[_Item], fits: Callable[[_Item], bool], chance: float = 1.0
    ) -> _Item | None:
        """Draw until something fits; None with ``1 - chance``, or if nothing was found."""
        if not items or self._rng.random() >= chance:
            return None
        drawn = (pick(self._rng, items) for _ in range(_TRIES))
        return next((one for one in drawn if fits(one)), None)


def _born(
    items: Sequence[_Item], first: int, last: int, year: Callable[[_Item], int]
) -> Sequence[_Item]:
    """Return the items of the years from ``first`` to ``last``; they are sorted by year."""
    return items[bisect_left(items, first, key=year) : bisect_right(items, last, key=year)]


def _younger(couple: tuple[_Person, _Person]) -> int:
    return max(couple[0].born, couple[1].born)


def draw_facts(seed: str, size: int) -> Facts:
    """Draw a world.

    Args:
        seed: Where every draw comes from.
        size: How many entities there are, and so articles.

    Raises:
        UsageError: The size is below :data:`SMALLEST`, or so large that names run out.
    """
    if size < SMALLEST:
        raise UsageError(f"a world of {size} articles; it needs at least {SMALLEST}")
    return _Population(seed, size).facts
