"""Where a customer stands in the shop."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Place(StrEnum):
    """The kinds of pages. The three sub-pages of a product are called as their buttons are."""

    SEARCH = "search"
    RESULTS = "results"
    ITEM = "item"
    DESCRIPTION = "description"
    FEATURES = "features"
    REVIEWS = "reviews"
    DONE = "done"


@dataclass(slots=True)
class Session:
    """What the shop remembers of one episode.

    It is the whole state: two sessions that are equal see the same page.
    """

    place: Place = Place.SEARCH
    query: str = ""
    found: tuple[str, ...] = ()  # ASINs, best first: all that the query found, not one page of it
    page: int = 1  # of the results, from 1
    asin: str = ""  # of the product that is looked at
    options: dict[str, str] = field(default_factory=dict)  # chosen value by option
