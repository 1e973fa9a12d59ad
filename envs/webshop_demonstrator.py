"""A customer of WebShop that does not know which product is meant: it reads and compares.

It searches for what it was asked to find, takes from the results what it can pay and whose title
has most of the words, and looks closer: it turns back from a product that lacks an option which is
asked for, and reads on where the title leaves something open. What it found best it buys. What it
does can be learnt from what it has read.

It can be taken over: whatever happened between two of its turns, it goes on from the page that it
sees, except that the shop's pages do not show which options are chosen.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

TURNS = 15
"""Turns that the benchmark allows."""

WITH_OPTIONS = 0.8
"""How often its first search names the options, too."""

PROMISING = 1 / 3
"""The share of the wish's words that the title of a product must have to be looked at."""

PAGES = 2
"""Pages of results it looks at before it searches with other words."""

_OPENING = re.compile(
    r"(?:please |can you )?(?:find me|find|show me|get me|i am looking for|i'm looking for"
    r"|im looking for|looking for|i need|i want to buy|i want to find|i want|i would like)\b"
    r"(?: an?\b| some\b)?",
    re.IGNORECASE,
)
_OPTION = r"(?:(?! with )[^:,])+: "
_WISH = re.compile(
    rf"(?P<wanted>.*?)(?: with (?P<options>{_OPTION}.*?))?"
    r"(?:,? and price lower than (?P<limit>\d+(?:\.\d+)?) dollars)?\.?",
    re.IGNORECASE | re.DOTALL,
)
_STOP_WORDS = frozenset(("a", "an", "and", "are", "for", "in", "is", "of", "that", "the", "with"))
_RESULTS = re.compile(r"Page (\d+) \(Total results: \d+\)")
_PRICE = re.compile(r"\$(\d+(?:\.\d+)?)")
_BUTTON = re.compile(r"\[(?:clicked )?button\] (.*) \[(?:clicked )?button_\]")


@dataclass(frozen=True, slots=True)
class Wish:
    """What an instruction says."""

    wanted: str  # the kind of product and its attributes, as written
    words: tuple[str, ...]  # of it, those that carry meaning
    options: tuple[tuple[str, str], ...]  # name and value, in the order of the instruction
    limit: float  # dollars; infinite where none is named


@dataclass(slots=True)
class Seen:
    """What is known of a product that was among the results."""

    title: str
    price: float  # dollars; the lowest that is shown
    text: str = ""  # what was read on its sub-pages
    rejected: bool = False  # looked at, and found to lack something
    unfit: bool = False  # it lacks an option that is asked for


def read_wish(instruction: str) -> Wish:
    """Return what an instruction of the benchmark asks for."""
    match = _WISH.fullmatch(instruction.strip())
    assert match is not None, "every text matches: all but the first part is optional"
    wanted = _OPENING.sub("", match["wanted"], count=1).strip()
    pairs = (one.partition(": ") for one in (match["options"] or "").split(", and ") if one)
    return Wish(
        wanted=wanted,
        words=tuple(word for word in dict.fromkeys(_words(wanted)) if word not in _STOP_WORDS),
        options=tuple((name.strip(), value.strip()) for name, _, value in pairs),
        limit=float(match["limit"]) if match["limit"] else float("inf"),
    )


class Demonstrator:
    """Shops for one instruction.

    Args:
        goal: The instruction.
        rng: Decides whether its first search names the options; only ``random()`` is asked.
    """

    def __init__(self, goal: str, rng: random.Random) -> None:
        self.wish = read_wish(goal)
        options = " ".join(value for _, value in self.wish.options)
        self._queries = [f"{self.wish.wanted} {options}", self.wish.wanted]
        if rng.random() >= WITH_OPTIONS:
            self._queries.reverse()
        self._searches = 0
        self._seen: dict[str, Seen] = {}  # by ASIN in lower case
        self._open = ""  # the product that is looked at
        self._chosen: set[str] = set()
        self._turn = 0
        self._can: set[str] = set()

    def act(self, observation: str, admissible: tuple[str, ...]) -> str:
        """Return the next action.

        Args:
            observation: The page, as text.
            admissible: What can be done now; only what can be clicked, ``click[…]``, is looked at.
        """
        self._turn += 1
        self._can = {one[6:-1] for one in admissible if one.startswith("click[")}
        parts = _texts(observation)
        page = next(filter(None, map(_RESULTS.fullmatch, parts)), None)
        if page:
            return self._compare(parts, int(page[1]))
        if "buy now" in self._can:
            return self._look(parts)
        if "< prev" in self._can:
            return self._read(parts)
        return self._search()

    @property
    def _hurry(self) -> bool:
        """Whether there are just the turns left to open a product, choose its options and buy."""
        return self._turn + 2 + len(self.wish.options) >= TURNS

    def _search(self) -> str:
        """Search in the one way, then in the other; in the end for what fits best."""
        query = self._queries[self._searches % len(self._queries)]
        self._searches += 1
        best = self._best(self._seen)
        if self._hurry and best:
            query = self._seen[best].title
        return "search[" + re.sub(r"[^a-z0-9.']+", " ", query.lower()).strip() + "]"

    def _compare(self, parts: list[str], page: int) -> str:
        """Open the most promising result, or look at others."""
        self._open, self._chosen = "", set()  # the shop forgets what was chosen, too
        listed = dict(_listed(parts, self._can))
        for asin, (title, price) in listed.items():
            self._seen.setdefault(asin, Seen(title, price))
        best = self._best(one for one in listed if self._hurry or not self._seen[one].rejected)
        if best:
            return f"click[{best}]"
        alike = any(self._promising(self._seen[one]) for one in listed)
        if alike and page < PAGES and "next >" in self._can:
            return "click[next >]"
        return self._search()

    def _look(self, parts: list[str]) -> str:
        """Turn back from a product, read on about it, choose its options or buy it."""
        asin = next((one for one, seen in self._seen.items() if seen.title in parts), "")
        if asin != self._open:
            self._open, self._chosen = asin, set()
        if not asin:  # it was brought here unawares and has nothing to compare this with
            return "click[back to search]"
        seen = self._seen[asin]
        seen.unfit = any(value not in self._can for _, value in self.wish.options)
        lacking = self._fit(seen) < len(self.wish.words)
        seen.rejected = seen.unfit or (lacking and bool(seen.text))
        if seen.unfit or (seen.rejected and not self._hurry):
            return "click[< prev]"
        if lacking and not seen.text and not self._hurry:
            return "click[features]"
        for _, value in self.wish.options:
            if value not in self._chosen:
                self._chosen.add(value)
                return f"click[{value}]"
        return "click[buy now]"

    def _read(self, parts: list[str]) -> str:
        """Take in a sub-page and turn back."""
        if self._open:
            self._seen[self._open].text += " ".join(["", *parts[parts.index("< Prev") + 1 :]])
        return "click[< prev]"

    def _best(self, asins: Iterable[str]) -> str:
        """Return the product that fits best, the first of equals; nothing if none can do."""
        able = [one for one in asins if self._able(self._seen[one])]
        return max(able, key=lambda one: self._fit(self._seen[one]), default="")

    def _able(self, seen: Seen) -> bool:
        return self._promising(seen) and not seen.unfit and seen.price <= self.wish.limit

    def _promising(self, seen: Seen) -> bool:
        return self._fit(seen) >= PROMISING * len(self.wish.words)

    def _fit(self, seen: Seen) -> int:
        """Return how many words of the wish a product's title and what was read of it have."""
        known = _words(f"{seen.title} {seen.text}")
        return sum(any(_alike(word, one) for one in known) for word in self.wish.words)


def _texts(observation: str) -> list[str]:
    """Return the visible texts of a page, in whichever way it was put into words."""
    if " [SEP] " in observation:
        return [text.removeprefix("'").removesuffix("'") for text in observation.split(" [SEP] ")]
    return [_BUTTON.sub(r"\1", line).strip() for line in observation.splitlines()]


def _listed(parts: list[str], can: Iterable[str]) -> Iterator[tuple[str, tuple[str, float]]]:
    """Yield the products of a page of results: ASIN in lower case, title and price."""
    for asin, title, tag in zip(parts, parts[1:], parts[2:], strict=False):
        price = _PRICE.match(tag)
        if price and asin.lower() in can:
            yield asin.lower(), (title, float(price[1]))


def _alike(one: str, other: str) -> bool:
    """Return whether two words are the same but for an ending such as that of the plural."""
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and len(long) - len(short) <= (2 if len(short) > 2 else 0)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower().replace("'s", ""))
