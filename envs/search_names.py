"""Names of fictional people, places, works and organisations.

They are put together from word lists. People share first names and surnames, titles share words:
a search for one finds the others too; but no two things have the same name, even when case,
articles and punctuation are left out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files

from agentgym.envs.draws import pick
from agentgym.envs.search_relations import HOUSES
from agentgym.errors import UsageError

NAME = r"[A-Z][A-Za-z]*(?: (?:of|[A-Z][A-Za-z]*))*"
"""How names look, as a regular expression: words with a capital, and *of*."""

_ATTEMPTS = 1000


@cache
def word_lists() -> Mapping[str, tuple[str, ...]]:
    """Return the words that names are made of, read from the package's data once."""
    text = files("agentgym").joinpath("data/search/words.json").read_text("utf-8")
    return {name: tuple(words.split()) for name, words in json.loads(text).items()}


class Namer:
    """Gives names, none of them twice.

    Args:
        rng: Where the draws come from.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._words = word_lists()
        self._given: set[str] = set()

    def person(self, female: bool, surname: str | None = None) -> str:
        """Return a first name and a surname, the given one if it must be."""
        first_names = "women" if female else "men"
        return self._new(lambda: f"{self._word(first_names)} {surname or self._joined('surname')}")

    def city(self) -> str:
        """Return a name of one word."""
        return self._new(lambda: self._joined("city"))

    def country(self) -> str:
        """Return a name of one word."""
        return self._new(lambda: self._word("countries"))

    def house(self, kind: str) -> str:
        """Return the name of an organisation, which ends with what it is."""
        return self._new(lambda: f"{self._joined('house')} {pick(self._rng, HOUSES[kind])}")

    def work(self) -> str:
        """Return the title of a work."""
        return self._new(self._title)

    def river(self) -> str:
        """Return a river's name; many cities may lie on one river."""
        return self._word("rivers")

    def currency(self) -> str:
        """Return what coins are called; several countries may call them so."""
        return self._word("currencies")

    def _title(self) -> str:
        drawn = self._rng.random()
        noun = self._word("nouns")
        if drawn < 0.6:
            return f"{self._word('adjectives')} {noun}"
        if drawn < 0.8:
            return f"The {self._word('adjectives')} {noun}"
        return f"{noun} of {self._word('abstracts')}"

    def _joined(self, what: str) -> str:
        return self._word(f"{what}_beginnings") + self._word(f"{what}_endings")

    def _word(self, words: str) -> str:
        return pick(self._rng, self._words[words])

    def _new(self, make: Callable[[], str]) -> str:
        for _ in range(_ATTEMPTS):
            name = make()
            same = name.lower().removeprefix("the ")
            if same not in self._given:
                self._given.add(same)
                return name
        raise UsageError(
            f"no new name was found in {_ATTEMPTS} draws after {len(self._given)}; ask for a"
            " smaller world"
        )
