"""A shop too large for the memory: its products and their index as files, mapped when needed."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from agentgym.envs.lucene import LuceneIndex
from agentgym.envs.packed_strings import PackedStrings
from agentgym.envs.webshop_catalogue import Product
from agentgym.envs.webshop_files import drawn_price
from agentgym.envs.webshop_search import searched_text
from agentgym.errors import DataError
from agentgym.files import make_once

_PRODUCTS_KEPT = 4096


def stored_folder(data: Path) -> Path:
    """Return the folder of the stored shop; another layout would have another name."""
    return data / "full_shop_2"


def store(products: Iterable[Product], folder: Path) -> None:
    """Write products and their index into a new folder, whole or not at all.

    Raises:
        DataError: The folder cannot be written.
    """
    make_once(folder, partial(_write, products))


def _write(products: Iterable[Product], folder: Path) -> None:
    asins: list[str] = []

    def lines() -> Iterator[str]:
        for product in products:
            asins.append(product.asin)
            yield json.dumps(asdict(product), ensure_ascii=False)

    PackedStrings.write(folder / "products", lines())
    stored = map(_read, PackedStrings(folder / "products"))
    LuceneIndex.build((one.asin, searched_text(one)) for one in stored).save(folder)
    rows = sorted(range(len(asins)), key=asins.__getitem__)
    np.save(folder / "rows.npy", np.array(rows, np.int32))


def _read(line: str) -> Product:
    fields = json.loads(line)
    for name in ("features", "attributes", "category", "nouns"):
        fields[name] = tuple(fields[name])
    fields["options"] = {name: tuple(values) for name, values in fields["options"].items()}
    return Product(**fields)


class StoredProducts(Mapping[str, Product]):
    """The products of a stored shop by ASIN, read one at a time.

    Args:
        folder: What :func:`store` wrote.
        seed: Where prices are drawn from.

    Raises:
        DataError: There is no such folder.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        if not folder.is_dir():
            raise DataError(
                f"the full shop is not prepared, there is no {folder}; prepare it with: agentgym"
                " envs download webshop --set full"
            )
        self._asins = PackedStrings(folder / "ids")
        self._rows = np.load(folder / "rows.npy", mmap_mode="r")
        self._lines = PackedStrings(folder / "products")
        self._seed = seed
        self._product = lru_cache(maxsize=_PRODUCTS_KEPT)(self._find)

    def row(self, asin: str) -> int:
        """Return the place of a product in the published file.

        Raises:
            KeyError: There is no such product.
        """
        number = bisect_left(self._asins, asin)
        if number == len(self._asins) or self._asins[number] != asin:
            raise KeyError(asin)
        return int(self._rows[number])

    def __getitem__(self, asin: str) -> Product:
        return self._product(asin)

    def __iter__(self) -> Iterator[str]:
        return iter(self._asins)

    def __len__(self) -> int:
        return len(self._asins)

    def _find(self, asin: str) -> Product:
        product = _read(self._lines[self.row(asin)])
        return replace(product, price=drawn_price(product.price_tag, asin, self._seed))
