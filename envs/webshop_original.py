"""The benchmark's own shop: the published products and what was asked for in the papers.

The small shop has 1,000 products and is read into memory. The full one has 1.18 million: it is
prepared once, into files that are mapped into memory and shared by all processes.

Goals are in the benchmark's order, so that the number in a task's id is the index that papers
give. Goals 0-499 are the test set; of the rest the original trains on 1500 and up and chooses
models on 500-1499, and verl-agent trains on 500 and up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from agentgym.envs.lucene import LuceneIndex
from agentgym.envs.webshop_catalogue import Catalogue, Goal, Product
from agentgym.envs.webshop_files import REMEDY, read_mapping, read_products, read_titles
from agentgym.envs.webshop_goals import human_goal, shuffled, synthetic_goals
from agentgym.envs.webshop_nouns import check_model, read_nouns, write_nouns
from agentgym.envs.webshop_search import product_index
from agentgym.envs.webshop_stored import StoredProducts, store, stored_folder
from agentgym.errors import DataError

HUMAN_FILE = "items_human_ins.json"
FILES: Mapping[str, tuple[str, str]] = {
    "small": ("items_shuffle_1000.json", "items_ins_v2_1000.json"),
    "full": ("items_shuffle.json", "items_ins_v2.json"),
}
"""The files of products and of their attributes, by size of the shop."""

SETS: Mapping[str, str] = {
    "small-train": "synthetic goals 1500 and up of the 1,000 products",
    "small-train-verl": "synthetic goals 500 and up, as verl-agent trains; has all of small-dev",
    "small-dev": "synthetic goals 500-1499 of the 1,000 products",
    "small-test": "synthetic goals 0-499 of the 1,000 products",
    "small-human": "the 13 goals that people wrote for the 1,000 products",
    "full-train": "goals 1500 and up that people wrote for the 1.18 million products",
    "full-train-verl": "human goals 500 and up; has all of full-dev",
    "full-dev": "human goals 500-1499 of the 1.18 million products",
    "full-test": "human goals 0-499 of the 1.18 million products",
}
"""What each published set of tasks is, by what follows ``webshop/`` in a suite's name."""

_SPLITS: Mapping[str, slice] = {
    "train": slice(1500, None),
    "train-verl": slice(500, None),
    "dev": slice(500, 1500),
    "test": slice(0, 500),
}


def catalogue(set_name: str, folder: Path, seed: int) -> Catalogue:
    """Return the shop in which the tasks of a set are done.

    Args:
        set_name: One of :data:`SETS`.
        folder: Where the published files lie.
        seed: Where prices and price limits are drawn from.

    Raises:
        DataError: A file is missing or broken, or the titles' nouns were not prepared.
    """
    size = set_name.partition("-")[0]
    return _small(folder, seed) if size == "small" else _full(folder, seed)


def nouns_path(folder: Path, size: str) -> Path:
    """Return where the nouns of the titles lie, which are no part of the published files."""
    return folder / f"title_nouns_{size}.json"


def check_preparation(folder: Path, size: str) -> None:
    """Look whether :func:`prepare` has what it needs beside the published files.

    Raises:
        DataError: Nouns are to be found, and spaCy is not installed.
    """
    if not nouns_path(folder, size).exists():
        check_model()


def prepare(folder: Path, size: str) -> None:
    """Make what a shop needs beside the published files, unless it is there.

    That is the nouns of its titles, and for the full shop the products and their index as files.
    On one core, a million products take about 25 minutes for the nouns and 4 for the rest, 3 GB
    of memory and 3 GB of disk (measured on 1,000 titles and 50,000 products).

    Raises:
        DataError: A published file is missing or broken, spaCy is not installed, or the folder
            cannot be written.
    """
    products_file, attributes_file = (folder / name for name in FILES[size])
    nouns_file = nouns_path(folder, size)
    if not nouns_file.exists():
        write_nouns(nouns_file, dict(read_titles(products_file)))
    if size == "full" and not stored_folder(folder).exists():
        told, nouns = read_mapping(attributes_file), read_nouns(nouns_file)
        store(read_products(products_file, told, nouns, seed=0), stored_folder(folder))


@cache
def _small(folder: Path, seed: int) -> Catalogue:
    products_file, attributes_file = (folder / name for name in FILES["small"])
    told = read_mapping(attributes_file)
    nouns = read_nouns(nouns_path(folder, "small"))
    products = {one.asin: one for one in read_products(products_file, told, nouns, seed)}
    synthetic = _synthetic_goals(attributes_file, told, products, seed)
    goals = shuffled(synthetic, "synthetic")
    human = shuffled(_human_goals(folder / HUMAN_FILE, products, products, seed), "human")
    return Catalogue(
        products=products,
        goals=goals | human,
        splits=_split("small", goals) | {"small-human": tuple(human)},
        engine=product_index(products.values()),
    )


@cache
def _full(folder: Path, seed: int) -> Catalogue:
    products = StoredProducts(stored_folder(folder), seed)
    told = read_mapping(folder / HUMAN_FILE)
    asins = sorted((asin for asin in told if asin in products), key=products.row)
    goals = shuffled(_human_goals(folder / HUMAN_FILE, asins, products, seed), "human")
    return Catalogue(
        products=products,
        goals=goals,
        splits=_split("full", goals),
        engine=LuceneIndex.open(stored_folder(folder)),
    )


def _split(size: str, goals: Mapping[str, Goal]) -> dict[str, tuple[str, ...]]:
    return {f"{size}-{name}": tuple(goals)[part] for name, part in _SPLITS.items()}


def _synthetic_goals(
    path: Path, told: Mapping[str, Any], products: Mapping[str, Product], seed: int
) -> list[Goal]:
    """Return the goals of all products that have an instruction, in the products' order."""
    goals: list[Goal] = []
    for asin, product in products.items():
        about = told.get(asin, {})
        if about.get("instruction") is None:
            continue
        attributes = about.get("instruction_attributes")
        if not attributes:
            raise DataError(f"{path}: {asin} has an instruction without attributes; {REMEDY}")
        goals += synthetic_goals(product, about["instruction"], attributes, seed)
    return goals


def _human_goals(
    path: Path, asins: Iterable[str], products: Mapping[str, Product], seed: int
) -> list[Goal]:
    """Return what people asked for, in the order of ``asins``; without attributes it is no goal."""
    told = read_mapping(path)
    goals: list[Goal] = []
    for asin in asins:
        for number, one in enumerate(told.get(asin, ())):
            try:
                text, attributes = one["instruction"], one["instruction_attributes"]
                options = one["instruction_options"]
            except (KeyError, TypeError) as error:
                raise DataError(
                    f"{path}: instruction {number} of {asin} cannot be read: {error!r}; {REMEDY}"
                ) from error
            if attributes:
                stream = f"{seed}:{number}"
                goals.append(human_goal(products[asin], text, attributes, options, stream))
    return goals
