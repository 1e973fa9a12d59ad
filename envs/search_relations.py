"""The relations of the generated world, how articles state them and how questions name them.

Every relation is a function: a subject has at most one object. In the wordings ``{s}`` stands for
the subject, ``{o}`` for the object, ``{p}`` for *her*, *his* or *its*, ``{kind}`` for what the
subject is (*a novelist*) and ``{x}`` for what a question asks about, which may be a phrase itself:
*the city where the author of Silent Harbour was born*. The first wording of each is the plain one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

WORKS: Mapping[str, tuple[str, str]] = {
    "novel": ("novelist", "author"),
    "film": ("film director", "director"),
    "opera": ("composer", "composer"),
    "painting": ("painter", "painter"),
    "building": ("architect", "architect"),
}
"""The kinds of works, with the trade of who makes them and the relation that names them."""

HOUSES: Mapping[str, tuple[str, ...]] = {
    "university": ("University", "College", "Institute"),
    "publisher": ("Press", "Books"),
    "film studio": ("Pictures", "Films"),
    "opera house": ("Opera", "Theatre"),
    "museum": ("Museum", "Gallery"),
    "academy": ("Academy", "Society"),
    "company": ("Works", "Mills", "Instruments"),
}
"""The kinds of organisations, and what the name of one ends with."""

PERSON, CITY, COUNTRY = "person", "city", "country"
YEAR, WORD = "year", "word"
"""What an object may be beside an entity: a year, or a word that no article is about."""


@dataclass(frozen=True, slots=True)
class Relation:
    """What holds between two things, and its wordings.

    ``of`` are the kinds of subjects, ``to`` the kind of objects. A relation without ``nouns``
    cannot stand inside a question, one without ``asks`` cannot be asked for; ``clauses`` follow
    *the person who*.
    """

    name: str
    of: tuple[str, ...]
    to: str
    says: tuple[str, ...]
    asks: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    clauses: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """Whether nothing more can be asked about its objects."""
        return self.to in (YEAR, WORD)


def _made_by(kind: str, verb: str, noun: str, ask: str) -> Relation:
    return Relation(
        noun,
        of=(kind,),
        to=PERSON,
        says=(f"{{s}} was {verb} by {{o}}.", f"The {noun} of this {kind} is {{o}}."),
        asks=(ask, f"Who was the {noun} of {{x}}?"),
        nouns=(f"the {noun} of {{x}}",),
    )


_PERSON = (PERSON,)
_HOUSES = tuple(HOUSES)

_PEOPLE = (
    Relation(
        "born",
        of=_PERSON,
        to=YEAR,
        says=("{s} (born {o}) was {kind}.", "{s} was {kind}, born in {o}."),
        asks=("In which year was {x} born?", "What is the year of birth of {x}?"),
    ),
    Relation(
        "birthplace",
        of=_PERSON,
        to=CITY,
        says=("{s} was born in {o}.", "{p} birthplace is {o}."),
        asks=("In which city was {x} born?", "Where was {x} born?"),
        nouns=("the birthplace of {x}", "the city where {x} was born"),
        clauses=("was born in {x}",),
    ),
    Relation(
        "place of death",
        of=_PERSON,
        to=CITY,
        says=("{s} died in {o}.", "{p} last years were spent in {o}."),
        asks=("In which city did {x} die?", "Where did {x} die?"),
        nouns=("the place of death of {x}", "the city where {x} died"),
        clauses=("died in {x}",),
    ),
    Relation(
        "university",
        of=_PERSON,
        to="university",
        says=("{s} studied at {o}.", "{s} took a degree at {o}."),
        asks=("At which university did {x} study?", "Which university did {x} attend?"),
        nouns=("the university of {x}", "the university where {x} studied"),
        clauses=("studied at {x}",),
    ),
    Relation(
        "academy",
        of=_PERSON,
        to="academy",
        says=("{s} was a member of {o}.", "{s} was elected to {o}."),
        asks=("Of which academy was {x} a member?", "Which academy elected {x}?"),
        nouns=("the academy of {x}", "the academy that elected {x}"),
        clauses=("was a member of {x}",),
    ),
    Relation(
        "company",
        of=_PERSON,
        to="company",
        says=("{s} worked for {o}.", "{s} was employed by {o}."),
        asks=("For which company did {x} work?", "Which company employed {x}?"),
        nouns=("the company of {x}", "the company that employed {x}"),
        clauses=("worked for {x}",),
    ),
    Relation(
        "teacher",
        of=_PERSON,
        to=PERSON,
        says=("{s} was taught by {o}.", "{s} learned the trade from {o}."),
        asks=("Who taught {x}?", "Who was the teacher of {x}?"),
        nouns=("the teacher of {x}", "the person who taught {x}"),
        clauses=("was taught by {x}",),
    ),
    Relation(
        "spouse",
        of=_PERSON,
        to=PERSON,
        says=("{s} was married to {o}.", "{s} shared a house and a life with {o}."),
        asks=("To whom was {x} married?", "Who was the spouse of {x}?"),
        nouns=("the spouse of {x}", "the person who married {x}"),
    ),
    Relation(
        "mother",
        of=_PERSON,
        to=PERSON,
        says=("{p} mother was {o}.", "{s} was raised by {p} mother, {o}."),
        asks=("Who was the mother of {x}?",),
        nouns=("the mother of {x}",),
    ),
    Relation(
        "father",
        of=_PERSON,
        to=PERSON,
        says=("{p} father was {o}.", "{s} was named by {p} father, {o}."),
        asks=("Who was the father of {x}?",),
        nouns=("the father of {x}",),
    ),
)

_OF_WORKS = (
    Relation(
        "finished",
        of=tuple(WORKS),
        to=YEAR,
        says=("{s} ({o}) is {kind}.", "{s} is {kind} of the year {o}."),
        asks=("In which year was {x} finished?", "From which year is {x}?"),
    ),
    _made_by("novel", "written", "author", "Who wrote {x}?"),
    _made_by("film", "directed", "director", "Who directed {x}?"),
    _made_by("opera", "composed", "composer", "Who composed {x}?"),
    _made_by("painting", "painted", "painter", "Who painted {x}?"),
    _made_by("building", "designed", "architect", "Who designed {x}?"),
    Relation(
        "publisher",
        of=("novel",),
        to="publisher",
        says=("{s} was published by {o}.", "{s} came out with {o}."),
        asks=("Who published {x}?", "Which house published {x}?"),
        nouns=("the publisher of {x}", "the house that published {x}"),
    ),
    Relation(
        "studio",
        of=("film",),
        to="film studio",
        says=("{s} was produced by {o}.", "{s} was shot for {o}."),
        asks=("Which studio produced {x}?", "Which studio made {x}?"),
        nouns=("the studio of {x}", "the studio that produced {x}"),
    ),
    Relation(
        "source",
        of=("film", "opera"),
        to="novel",
        says=("{s} is based on {o}.", "{s} takes its story from {o}."),
        asks=("On which novel is {x} based?", "Which novel is the source of {x}?"),
        nouns=("the source of {x}", "the novel on which {x} is based"),
    ),
    Relation(
        "stage",
        of=("opera",),
        to="opera house",
        says=("{s} was first sung at {o}.", "{s} had its first night at {o}."),
        asks=("Where was {x} first sung?", "Which house staged {x} first?"),
        nouns=("the first stage of {x}", "the house where {x} was first sung"),
    ),
    Relation(
        "museum",
        of=("painting",),
        to="museum",
        says=("{s} hangs in {o}.", "{s} belongs to {o}."),
        asks=("In which museum does {x} hang?", "Which museum owns {x}?"),
        nouns=("the museum of {x}", "the museum where {x} hangs"),
    ),
    Relation(
        "sitter",
        of=("painting",),
        to=PERSON,
        says=("{s} shows {o}.", "{s} is a likeness of {o}."),
        asks=("Whom does {x} show?", "Of whom is {x} a likeness?"),
        nouns=("the sitter of {x}", "the person whom {x} shows"),
    ),
    Relation(
        "dedicatee",
        of=("novel", "opera"),
        to=PERSON,
        says=("{s} is dedicated to {o}.", "{s} was meant as a gift for {o}."),
        asks=("To whom is {x} dedicated?", "Who is the dedicatee of {x}?"),
        nouns=("the dedicatee of {x}", "the person to whom {x} is dedicated"),
    ),
    Relation(
        "site",
        of=("building",),
        to=CITY,
        says=("{s} stands in {o}.", "{s} was put up in {o}."),
        asks=("In which city does {x} stand?", "Where does {x} stand?"),
        nouns=("the site of {x}", "the city where {x} stands"),
    ),
    Relation(
        "setting",
        of=("novel", "film", "opera"),
        to=CITY,
        says=("{s} is set in {o}.", "{s} tells of events in {o}."),
        asks=("In which city is {x} set?", "Where is {x} set?"),
        nouns=("the setting of {x}", "the city where {x} is set"),
    ),
)

_OF_HOUSES = (
    Relation(
        "founded",
        of=_HOUSES,
        to=YEAR,
        says=("{s} is {kind} founded in {o}.", "{s} (founded {o}) is {kind}."),
        asks=("In which year was {x} founded?", "What is the founding year of {x}?"),
    ),
    Relation(
        "founder",
        of=_HOUSES,
        to=PERSON,
        says=("{s} was founded by {o}.", "{s} was set up by {o}."),
        asks=("Who founded {x}?", "Who was the founder of {x}?"),
        nouns=("the founder of {x}", "the person who founded {x}"),
    ),
    Relation(
        "seat",
        of=_HOUSES,
        to=CITY,
        says=("{s} is based in {o}.", "{s} has its seat in {o}."),
        asks=("In which city is {x} based?", "Where does {x} have its seat?"),
        nouns=("the seat of {x}", "the city where {x} is based"),
    ),
    Relation(
        "head",
        of=_HOUSES,
        to=PERSON,
        says=("{s} was long headed by {o}.", "{p} best known head was {o}."),
        asks=("Who was long the head of {x}?", "Who long headed {x}?"),
        nouns=("the long-time head of {x}", "the person who long headed {x}"),
    ),
)

_OF_PLACES = (
    Relation(
        "country",
        of=(CITY,),
        to=COUNTRY,
        says=("{s} is a city in {o}.", "{s} belongs to {o}, of which it is a city."),
        asks=("In which country is {x}?", "To which country does {x} belong?"),
        nouns=("the country of {x}", "the country to which {x} belongs"),
    ),
    Relation(
        "river",
        of=(CITY,),
        to=WORD,
        says=("{s} lies on the river {o}.", "The river {o} flows through the town."),
        asks=("On which river does {x} lie?", "Which river flows through {x}?"),
    ),
    Relation(
        "twin",
        of=(CITY,),
        to=CITY,
        says=("{p} twin city is {o}.", "{s} is twinned with {o}."),
        asks=("What is the twin city of {x}?", "With which city is {x} twinned?"),
        nouns=("the twin city of {x}", "the city twinned with {x}"),
    ),
    Relation(
        "capital",
        of=(COUNTRY,),
        to=CITY,
        says=("{s} is a country with the capital {o}.", "{s} is a country governed from {o}."),
        asks=("What is the capital of {x}?", "From which city is {x} governed?"),
        nouns=("the capital of {x}", "the city from which {x} is governed"),
    ),
    Relation(
        "currency",
        of=(COUNTRY,),
        to=WORD,
        says=("{p} currency is the {o}.", "People there pay in {o}."),
        asks=("What is the currency of {x}?", "What do people pay with in {x}?"),
    ),
)

RELATIONS: Mapping[str, Relation] = {
    one.name: one for one in (*_PEOPLE, *_OF_WORKS, *_OF_HOUSES, *_OF_PLACES)
}

AGES: Mapping[str, tuple[str, str]] = {
    "born": ("the elder of {x} and {y}", "the younger of {x} and {y}"),
    "founded": ("the older of {x} and {y}", "the newer of {x} and {y}"),
    "finished": ("the earlier of {x} and {y}", "the later of {x} and {y}"),
}
"""Years that can be compared: the wordings for the smaller and for the greater one."""


def relations_of(kind: str) -> Iterator[Relation]:
    """Yield the relations that a kind of entity can be the subject of."""
    return (one for one in RELATIONS.values() if kind in one.of)
