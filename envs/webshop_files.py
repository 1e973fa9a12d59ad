"""The published files of WebShop, read into products.

``items_shuffle*.json`` holds the products as they were scraped, ``items_ins_v2*.json`` their
attributes and instructions, ``items_human_ins.json`` what people asked for.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from agentgym.envs.webshop_catalogue import Product
from agentgym.errors import DataError

_CHUNK = 1 << 20  # characters of a file in memory at a time, and the record that is read
_BETWEEN = (",", " ", "\t", "\r", "\n")  # what may stand between two records
_PATH_MARK = "\u203a"
_NO_PRICE = "$100.0"  # what the benchmark takes where the shop named none
_NO_ATTRIBUTES = ("DUMMY_ATTR",)
_LONGEST_ASIN = 10
REMEDY = "it is not the published file; get it with: agentgym envs download webshop"
"""What to do about a file that is not what it claims to be."""


def read_products(
    path: Path,
    attributes: Mapping[str, Any],
    nouns: Mapping[str, Sequence[str]],
    seed: int,
) -> Iterator[Product]:
    """Yield the products of a file that the benchmark sells, in order.

    It leaves out what has no ASIN and what it has seen before.

    Args:
        path: The file of products.
        attributes: What the file of attributes says, by ASIN.
        nouns: Of the products' titles, by ASIN.
        seed: A product with a range of prices has one that is drawn from it, by seed and ASIN.

    Raises:
        DataError: The file is missing or is not what it claims to be.
    """
    for record in read_records(path):
        asin = record["asin"]
        try:
            price_tag = _price_tag(record.get("pricing"))
            yield Product(
                asin=asin,
                title=_text(record, "name"),
                description=_text(record, "full_description"),
                features=_features(record["small_description"]),
                options=_options(record["customization_options"]),
                attributes=tuple(attributes.get(asin, {}).get("attributes", _NO_ATTRIBUTES)),
                price=drawn_price(price_tag, asin, seed),
                price_tag=price_tag,
                query=_text(record, "query").lower().strip(),
                category=tuple(map(str.strip, _text(record, "product_category").split(_PATH_MARK))),
                nouns=tuple(nouns.get(asin, ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"{path}: product {asin} cannot be read: {error!r}; {REMEDY}"
            ) from error


def read_titles(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ASIN and title of each product of a file that the benchmark sells."""
    for record in read_records(path):
        yield record["asin"], _text(record, "name")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file of products that the benchmark sells, one at a time."""
    seen: set[str] = set()
    for record in _read_array(path):
        if not isinstance(record, dict) or not isinstance(record.get("asin"), str):
            raise DataError(f"{path}: a product has no asin: {str(record)[:60]}; {REMEDY}")
        asin = record["asin"]
        if asin != "nan" and len(asin) <= _LONGEST_ASIN and asin not in seen:
            seen.add(asin)
            yield record


def read_mapping(path: Path) -> dict[str, Any]:
    """Return what a file says by ASIN."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}; {REMEDY}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected an object; {REMEDY}")
    return content


def _read_array(path: Path) -> Iterator[Any]:
    """Yield the elements of a JSON array, which may be larger than the memory."""
    try:
        with path.open(encoding="utf-8") as stream:
            yield from _elements(stream)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}; {REMEDY}") from error


def _elements(stream: TextIO) -> Iterator[Any]:
    """Yield the objects of a JSON array; ValueError where it is none, or ends too early."""
    decoder = json.JSONDecoder()
    text = stream.read(_CHUNK).lstrip()
    if not text.startswith("["):
        raise ValueError("it does not begin with a list")
    at = 1
    while True:
        while text[at : at + 1] in _BETWEEN:
            at += 1
        if text.startswith("]", at):
            return
        try:
            element, at = decoder.raw_decode(text, at)
        except ValueError:
            more = stream.read(_CHUNK)
            if not more:
                raise
            text, at = text[at:] + more, 0
        else:
            yield element


def drawn_price(price_tag: str, asin: str, seed: int) -> float:
    """Return a product's price in dollars; that of a range is drawn, by seed and ASIN."""
    prices = [float(price) for price in price_tag.replace("$", "").split(" to ")]
    if len(prices) == 1:
        return prices[0]
    return random.Random(f"webshop:price:{seed}:{asin}").uniform(*prices)


def _price_tag(pricing: str | None) -> str:
    """Return what is shown of a price as the shop wrote it: ``$1.50``, or ``$1.50$2.50``."""
    if not pricing:
        return _NO_PRICE
    prices = [float(re.sub(r"[^\d.]", "", price)) for price in pricing.split("$")[1:3]]
    if not prices:
        raise ValueError(f"the price {pricing!r} names no dollars; expected $1.50 or $1.50$2.50")
    return " to ".join(f"${price}" for price in prices)


def _features(described: str | list[str]) -> tuple[str, ...]:
    """Return a product's features; there is always a first one, which is searched."""
    features = (described,) if isinstance(described, str) else tuple(described)
    if not all(isinstance(one, str) for one in features):
        raise TypeError(f"small_description is {described!r}, expected texts")
    return features or ("",)


def _options(customization: Mapping[str, Any] | str | None) -> dict[str, tuple[str, ...]]:
    """Return values by option; a shop that has none says so with an empty text."""
    if not customization or isinstance(customization, str):
        return {}
    return {
        name.lower(): tuple(_option_value(content["value"]) for content in contents)
        for name, contents in customization.items()
        if contents is not None
    }


def _option_value(value: str) -> str:
    return value.strip().replace("/", " | ").lower()


def _text(record: Mapping[str, Any], key: str) -> str:
    text = record[key]
    if not isinstance(text, str):
        raise TypeError(f"{key} is {text!r}, expected a text")
    return text


def _missing(path: Path) -> DataError:
    return DataError(
        f"there is no {path}; get the published files with: agentgym envs download webshop; if"
        " they lie elsewhere, set WEBSHOP_DATA or the option data. Generated suites need none:"
        " webshop/gen-train"
    )
