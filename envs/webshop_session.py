"""Where a customer stands in the shop, and what an action does there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from agentgym.envs.webshop_catalogue import SearchEngine

RESULTS_KEPT = 50
"""Products that a search finds at most; its pages are cut from them."""

_ACTION = re.compile(r"(.+)\[(.+)\]")  # greedy, and whatever follows is ignored
_BACK_DOOR = re.compile(r"(?:<[raqc]>\s*)+")


class Place(StrEnum):
    """The kinds of pages. The three sub-pages of a product are called as their buttons are."""

    SEARCH = "search"
    RESULTS = "results"
    ITEM = "item"
    DESCRIPTION = "description"
    FEATURES = "features"
    REVIEWS = "reviews"
    DONE = "done"


SUB_PAGES = (Place.DESCRIPTION, Place.FEATURES, Place.REVIEWS)


@dataclass(slots=True)
class Session:
    """What the shop remembers of one episode.

    It is the whole state: two sessions that are equal see the same page.
    """

    place: Place = Place.SEARCH
    query: str = ""
    found: tuple[str, ...] = ()  # ASINs, best first: all that the query found, not one page of it
    page: int = 1  # of the results, from 1; one may turn beyond the last
    asin: str = ""  # of the product that is looked at
    options: dict[str, str] = field(default_factory=dict)  # chosen value by option
    seen: set[str] = field(default_factory=set)  # ASINs that were opened

    def search(self, query: str, engine: SearchEngine) -> None:
        """Search, from any page. What was chosen is forgotten.

        The original's back doors (a query that begins with ``<r>``, ``<a>``, ``<c>`` or ``<q>``
        lists products by other means) are closed: the marker is dropped, the rest searched.
        """
        self.query = query
        self.found = engine.search(_BACK_DOOR.sub("", query, count=1), RESULTS_KEPT)
        self._list(1)

    def click(self, name: str, options: Mapping[str, str]) -> None:
        """Click what the page shows.

        Args:
            name: What is clicked, in lower case.
            options: Of the product that is looked at: which option a value belongs to.
        """
        if name == "buy now":
            self.place = Place.DONE
        elif name == "back to search":
            self._start_again()
        elif name == "next >" and self.place is Place.RESULTS:
            self._list(self.page + 1)
        elif name == "< prev" and self.place is not Place.SEARCH:
            self._go_back()
        elif self.place is Place.RESULTS:
            self._open(name)
        elif name in SUB_PAGES:
            self.place = Place(name)
        else:
            self.options[options[name]] = name

    def _start_again(self) -> None:
        self.place, self.query, self.found, self.page = Place.SEARCH, "", (), 1
        self.asin = ""
        self.options.clear()
        self.seen.clear()

    def _list(self, page: int) -> None:
        self.place, self.page, self.asin = Place.RESULTS, page, ""
        self.options.clear()

    def _open(self, name: str) -> None:
        self.asin = next(asin for asin in self.found if asin.lower() == name)
        self.place = Place.ITEM
        self.seen.add(self.asin)

    def _go_back(self) -> None:
        if self.place in SUB_PAGES:
            self.place = Place.ITEM  # with what was chosen
        else:
            self._list(self.page - (self.place is Place.RESULTS))


def read_action(action: str) -> tuple[str, str]:
    """Return what to do and with what, in lower case: ``search[Red Mug]`` is search, red mug.

    The second is empty where the action does not have the form ``name[argument]``.
    """
    match = _ACTION.match(action)
    return (match[1], match[2].lower()) if match else (action, "")
