"""Generated shops for WebShop: nothing to download, and every wish can be fulfilled.

There are two. The *full* shop has 1,300 products of 26 categories, with titles that leave
something to be found out, up to three options and wishes of the published form. The *easy* one
has 624 products with short titles that tell all, one option of two or three values each, and
wishes of one attribute and one option, for models of a few million weights.

The last products of every category are held out: no training task asks for one of them, although
they stand on the same shelves. Results are not comparable with published numbers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache

from agentgym.envs.draws import shuffled
from agentgym.envs.webshop_catalogue import Catalogue, Goal
from agentgym.envs.webshop_products import Made, Shop, make_goal, make_product
from agentgym.envs.webshop_search import product_index
from agentgym.envs.webshop_words import words
from agentgym.errors import unknown

FULL = Shop("full", per_category=50, held_out=10, train_goals=4, test_goals=2, short=False)
EASY = Shop("easy", per_category=24, held_out=4, train_goals=6, test_goals=3, short=True)

SETS: Mapping[str, str] = {
    "gen-train": "generated wishes in a shop of 1,300 products",
    "gen-test": "generated wishes for those of the 1,300 products that training never asks for",
    "gen-easy-train": "generated short wishes in a shop of 624 products with one option each",
    "gen-easy-test": "short wishes for those of the 624 products that training never asks for",
}
"""What each set of tasks is; the two of a shop ask for different products of it."""


def catalogue(set_name: str) -> Catalogue:
    """Return the shop in which the tasks of a set are done, made on first use.

    Raises:
        UsageError: No such set.
    """
    if set_name not in SETS:
        raise unknown("set of generated WebShop tasks", set_name, SETS)
    return _easy() if "easy" in set_name else _full()


@cache
def _full() -> Catalogue:
    return make_catalogue(FULL, train="gen-train", test="gen-test")


@cache
def _easy() -> Catalogue:
    return make_catalogue(EASY, train="gen-easy-train", test="gen-easy-test")


def make_catalogue(shop: Shop, train: str, test: str) -> Catalogue:
    """Make a shop and its tasks.

    Args:
        shop: What it holds.
        train: The name of the set that asks for products not held out.
        test: The name of the set that asks for those held out.
    """
    stock = _stock(shop)
    kept = shop.per_category - shop.held_out
    tested = _wishes(shop, [one for one in stock if one.number >= kept], shop.test_goals)
    trained = _wishes(shop, [one for one in stock if one.number < kept], shop.train_goals)
    held_out = {goal.instruction for goal in tested.values()}  # short wishes may be the same
    trained = {task: goal for task, goal in trained.items() if goal.instruction not in held_out}
    products = {one.product.asin: one.product for one in stock}
    return Catalogue(
        products=products,
        goals=trained | tested,
        splits={train: tuple(trained), test: tuple(tested)},
        engine=product_index(products.values()),
    )


def _stock(shop: Shop) -> list[Made]:
    """Return all products: the first of every category, then the second of every one, and on."""
    shelves = words().categories
    size = shop.per_category * len(shelves)
    # Numbers are dealt at random, so that one says nothing about what it is the number of.
    asins = iter(shuffled(random.Random(f"webshop/{shop.name}/asins"), range(size)))
    return [
        make_product(shop, category, number, f"B{next(asins):05d}")
        for number in range(shop.per_category)
        for category in shelves
    ]


def _wishes(shop: Shop, stock: Sequence[Made], number: int) -> dict[str, Goal]:
    """Return wishes by task id: one for each product, then a second for each, and on."""
    return {
        f"{_slug(one.category.name)}-{one.number:02d}-{wish}": make_goal(shop, one, wish)
        for wish in range(number)
        for one in stock
    }


def _slug(name: str) -> str:
    return re.sub(r"[^a-z]+", "-", name.replace("'", ""))
