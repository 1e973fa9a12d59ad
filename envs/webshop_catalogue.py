"""What a shop holds: its products, what customers ask for, and how it is searched.

Whatever a catalogue was made from (the published files, a generator), pages, search and reward
read these values and nothing else. A source of catalogues is a module with a cached function
``catalogue() -> Catalogue`` or one that says which (``webshop_original.catalogue(short, …)``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

NO_PRICE_LIMIT = 1_000_000.0
"""The upper price of a goal that names none."""

Wish = str | tuple[str, str]
"""One option that a goal asks for: a synthetic goal names option and value, a person the value."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product. Texts are as the pages show them."""

    asin: str  # at most 10 characters, upper case: pages show it, clicks name it in lower case
    title: str
    description: str
    features: tuple[str, ...]  # at least one entry, which may be empty; the first is searched
    options: Mapping[str, tuple[str, ...]]  # values by option, all lower case; shown in this order
    attributes: tuple[str, ...]  # what the reward knows of it; never shown
    price: float  # dollars; what is compared with a goal's limit
    price_tag: str  # what is shown: "$10.99", or the range that the price was drawn from
    query: str  # the search that found it, lower case: products of one query are alike
    category: tuple[str, ...]  # the path, from the root; two common parts make products alike
    nouns: tuple[str, ...]  # of the title, lower case, repeated as often as they occur


@dataclass(frozen=True, slots=True)
class Goal:
    """What a customer asks for, and the product that was in mind."""

    asin: str
    instruction: str  # with options and price limit; all that an agent is told
    attributes: tuple[str, ...]  # at least one
    options: tuple[Wish, ...]
    price_upper: float = NO_PRICE_LIMIT  # dollars


class SearchEngine(Protocol):
    """Ranks products for a query."""

    def search(self, query: str, size: int) -> tuple[str, ...]:
        """Return the ASINs of at most ``size`` products that match, best first."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """One shop and its tasks."""

    products: Mapping[str, Product]  # by ASIN
    goals: Mapping[str, Goal]  # by task id
    splits: Mapping[str, tuple[str, ...]]  # task ids by what follows "webshop/" in a suite's name
    engine: SearchEngine
