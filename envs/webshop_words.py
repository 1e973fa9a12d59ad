"""What generated products are made of: categories, their attributes and options, makers' names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class OptionRange:
    """What one option of a category may offer: ``least`` to ``most`` of its values."""

    values: tuple[str, ...]
    least: int
    most: int
    ordered: bool  # a product offers neighbours: sizes from small to large, not small and large


@dataclass(frozen=True, slots=True)
class Category:
    """One kind of shop shelf.

    Attributes are grouped: a product has at most one of each inner tuple.
    """

    name: str  # what a shopper types to get there
    path: tuple[str, ...]
    whose: str  # what may stand before the kind in a title, or nothing
    kinds: tuple[str, ...]
    qualities: tuple[tuple[str, ...], ...]  # what a product is
    parts: tuple[tuple[str, ...], ...]  # what it has
    uses: tuple[tuple[str, ...], ...]  # what it is made for
    prices: tuple[float, float]  # dollars
    options: Mapping[str, OptionRange]


@dataclass(frozen=True, slots=True)
class Words:
    """All of it."""

    brands: tuple[str, ...]
    categories: tuple[Category, ...]
    not_nouns: frozenset[str]  # words of titles, beside qualities, that are no nouns


@cache
def words() -> Words:
    """Return what products are made of, read from the package's data once."""
    text = files("agentgym").joinpath("data/webshop/categories.toml").read_text("utf-8")
    data = tomllib.loads(text)
    return Words(
        brands=tuple(data["brands"]),
        categories=tuple(_category(one, data["palettes"]) for one in data["categories"]),
        not_nouns=frozenset(data["not_nouns"]),
    )


def _category(one: dict[str, Any], palettes: dict[str, list[str]]) -> Category:
    low, high = one["prices"]
    return Category(
        name=one["name"],
        path=tuple(one["path"].split(" > ")),
        whose=one["whose"],
        kinds=tuple(one["kinds"]),
        qualities=_groups(one["is"]),
        parts=_groups(one["has"]),
        uses=_groups(one["for"]),
        prices=(low, high),
        options={name: _range(option, palettes) for name, option in one["options"].items()},
    )


def _groups(phrases: list[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(phrase.split(" | ")) for phrase in phrases)


def _range(option: dict[str, Any], palettes: dict[str, list[str]]) -> OptionRange:
    values = palettes[option["palette"]] if "palette" in option else option["values"]
    least, most = option["take"]
    return OptionRange(tuple(values), least, most, option.get("order", False))
