"""Generated shops: the same everywhere, plausible, disjoint sets, every wish can be fulfilled."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from dataclasses import replace

import pytest

from agentgym.envs.webshop_catalogue import NO_PRICE_LIMIT, Catalogue
from agentgym.envs.webshop_generate import FULL, catalogue, make_catalogue
from agentgym.envs.webshop_products import plural
from agentgym.envs.webshop_reward import score
from agentgym.envs.webshop_words import words
from agentgym.errors import UsageError

BOTH = pytest.mark.parametrize(
    ("train", "test"), [("gen-train", "gen-test"), ("gen-easy-train", "gen-easy-test")]
)
SHOPS = pytest.mark.parametrize("name", ["gen-test", "gen-easy-test"])
BUTTONS = {"search", "back to search", "< prev", "next >", "buy now"}
SUB_PAGES = {"description", "features", "reviews"}


def digest(shop: Catalogue) -> str:
    """Fingerprint of all products, tasks and sets, in their order."""
    content = repr((list(shop.products.items()), list(shop.goals.items()), shop.splits))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


# Sets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "products", "tasks"),
    [
        ("gen-train", 1300, 4160),  # 26 categories of 50, 10 of them held out; 4 and 2 wishes
        ("gen-test", 1300, 520),
        ("gen-easy-train", 624, 3119),  # 26 of 24, 4 held out; 6 (one is a test's) and 3 wishes
        ("gen-easy-test", 624, 312),
    ],
)
def test_a_set_has_its_size_and_every_task_once(name: str, products: int, tasks: int) -> None:
    shop = catalogue(name)
    assert len(shop.products) == products
    assert len(shop.splits[name]) == len(set(shop.splits[name])) == tasks
    assert set(shop.splits[name]) <= set(shop.goals)


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(UsageError, match="gen-test"):
        catalogue("gen-tset")


def test_a_shop_is_made_once() -> None:
    assert catalogue("gen-train") is catalogue("gen-test")
    assert catalogue("gen-train") is not catalogue("gen-easy-train")


@BOTH
def test_no_product_that_is_asked_for_in_tests_is_asked_for_in_training(
    train: str, test: str
) -> None:
    shop = catalogue(train)
    trained = {shop.goals[task].asin for task in shop.splits[train]}
    tested = {shop.goals[task].asin for task in shop.splits[test]}
    assert not trained & tested
    assert trained | tested == set(shop.products)


@SHOPS
def test_the_first_tasks_of_a_set_have_all_categories(name: str) -> None:
    shop = catalogue(name)
    number = len(words().categories)
    first = [shop.products[shop.goals[task].asin].query for task in shop.splits[name][:number]]
    assert first == [one.name for one in words().categories]


@pytest.mark.parametrize(
    ("name", "expected"), [("gen-test", "2de11fdc5f3507ee"), ("gen-easy-test", "c3ad44f1f9843029")]
)
def test_a_shop_is_the_same_on_every_machine(name: str, expected: str) -> None:
    assert digest(catalogue(name)) == expected


def test_another_name_makes_another_shop() -> None:
    small = replace(FULL, per_category=2, held_out=1)
    one, same = (make_catalogue(small, "train", "test") for _ in range(2))
    other = make_catalogue(replace(small, name="other"), "train", "test")
    assert digest(one) == digest(same) != digest(other)


# Products -------------------------------------------------------------------------------------


@SHOPS
def test_a_product_says_all_its_attributes_on_its_pages(name: str) -> None:
    for product in catalogue(name).products.values():
        pages = " ".join((product.title, *product.features)).lower()
        assert all(one in pages for one in product.attributes), product.asin
        assert len(set(product.attributes)) == len(product.attributes)


def test_an_easy_title_tells_every_attribute() -> None:
    for product in catalogue("gen-easy-test").products.values():
        assert all(one in product.title.lower() for one in product.attributes)
        assert len(product.options) == 1


def test_many_titles_of_the_full_shop_leave_something_to_be_found_out() -> None:
    shop = catalogue("gen-test")
    goals = [shop.goals[task] for task in shop.splits["gen-test"]]
    told = [
        all(one in shop.products[goal.asin].title.lower() for one in goal.attributes)
        for goal in goals
    ]
    assert 0.1 < sum(told) / len(told) < 0.5


@SHOPS
def test_every_value_is_a_button_of_its_own(name: str) -> None:
    for product in catalogue(name).products.values():
        values = [value for offered in product.options.values() for value in offered]
        assert all(offered for offered in product.options.values())
        assert len(set(values)) == len(values), product.asin
        assert not set(values) & (BUTTONS | SUB_PAGES)
        assert all(value == value.lower() and not set("[]") & set(value) for value in values)


@SHOPS
def test_prices_are_shown_and_lie_in_the_range_of_their_category(name: str) -> None:
    ranges = {one.name: one.prices for one in words().categories}
    shown = Counter[int]()
    for product in catalogue(name).products.values():
        tags = [float(tag) for tag in re.findall(r"\$(\d+\.\d\d)", product.price_tag)]
        low, high = ranges[product.query]
        assert low <= tags[0] <= high + 1
        assert tags[0] <= product.price <= tags[-1]
        shown[len(tags)] += 1
    assert 0.04 < shown[2] / shown.total() < 0.12  # 8 in 100 show a range


@SHOPS
def test_products_are_told_apart_by_asin_and_nearly_all_by_title(name: str) -> None:
    products = catalogue(name).products
    assert all(asin == one.asin == asin.upper() for asin, one in products.items())
    assert all(len(asin) <= 10 for asin in products)
    assert len({one.title for one in products.values()}) >= 0.99 * len(products)


@SHOPS
def test_a_number_tells_nothing_about_what_it_is_the_number_of(name: str) -> None:
    by_number = sorted(catalogue(name).products.values(), key=lambda one: one.asin)
    alike = sum(one.query == two.query for one, two in itertools.pairwise(by_number))
    assert alike < 2 * len(by_number) / len(words().categories)


def test_nouns_of_a_title_are_its_maker_kind_and_parts_but_no_qualities() -> None:
    for product in catalogue("gen-easy-test").products.values():
        brand = product.title.split()[0].lower()
        assert product.nouns[0] == brand
        assert len(product.nouns) >= 3
        quality = product.attributes[0].split()
        assert not set(quality) & set(product.nouns)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("maxi dress", "maxi dresses"),
        ("area rug", "area rugs"),
        ("trail mix", "trail mixes"),
        ("skinny jeans", "skinny jeans"),
        ("battery", "batteries"),
        ("duvet cover set", "duvet cover sets"),
        ("couch", "couches"),
    ],
)
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many


# Wishes ---------------------------------------------------------------------------------------


@SHOPS
def test_a_wish_asks_for_what_its_product_has_in_the_published_form(name: str) -> None:
    shop = catalogue(name)
    for task, goal in shop.goals.items():
        product = shop.products[goal.asin]
        assert set(goal.attributes) <= set(product.attributes)
        assert goal.attributes
        wishes = ", and ".join(f"{option}: {value}" for option, value in goal.options)
        assert [option for option, _ in goal.options] == sorted(product.options)
        assert all(value in product.options[option] for option, value in goal.options)
        assert goal.price_upper > product.price
        limit = f", and price lower than {goal.price_upper:.2f} dollars"
        ending = "" if goal.price_upper == NO_PRICE_LIMIT else limit
        assert goal.instruction.endswith(f" with {wishes}{ending}"), task
        assert all(one in goal.instruction for one in goal.attributes)


@SHOPS
def test_a_limit_is_one_of_the_next_four_tens(name: str) -> None:
    shop = catalogue(name)
    above = Counter(
        goal.price_upper // 10 - shop.products[goal.asin].price // 10
        for goal in shop.goals.values()
    )
    assert set(above) == {2, 3, 4}  # the larger of two of the next four tens
    assert above[4] > above[3] > above[2]


@BOTH
def test_no_instruction_of_a_test_is_read_in_training(train: str, test: str) -> None:
    shop = catalogue(train)
    trained = {shop.goals[task].instruction for task in shop.splits[train]}
    tested = {shop.goals[task].instruction for task in shop.splits[test]}
    assert not trained & tested


@SHOPS
def test_buying_what_is_meant_with_its_options_is_worth_exactly_one(name: str) -> None:
    shop = catalogue(name)
    for task, goal in shop.goals.items():
        product = shop.products[goal.asin]
        assert score(goal, product, product, dict(goal.options)) == 1.0, task


def test_a_wrong_option_hardly_ever_passes_for_the_right_one() -> None:
    # the benchmark's matching is lax ("large" is in "x-large"); of its own shop it is 8.7 in 100
    shop = catalogue("gen-test")
    scores = []
    for task in shop.splits["gen-test"]:
        goal = shop.goals[task]
        product = shop.products[goal.asin]
        for name, value in goal.options:
            others = [one for one in product.options[name] if one != value]
            chosen = [dict(goal.options) | {name: other} for other in others]
            scores += [score(goal, product, product, one) for one in chosen]
    assert 0.02 < sum(one == 1.0 for one in scores) / len(scores) < 0.15
