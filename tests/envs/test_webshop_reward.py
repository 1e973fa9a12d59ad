"""What a purchase is worth, part by part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentgym.envs.webshop_catalogue import Goal, Product, Wish
from agentgym.envs.webshop_reward import alike, kind_factor, score

MUG = Product(
    asin="B000000RED",
    title="Red Ceramic Mug",
    description="Ideal for tea",
    features=("Dishwasher safe", "Holds 12 ounces"),
    options={},
    attributes=("easy clean",),
    price=10.0,
    price_tag="$10.0",
    query="mugs",
    category=("Home", "Kitchen", "Mugs"),
    nouns=("ceramic", "mug"),
)


def worth(
    *wishes: Wish, chosen: tuple[str, ...] = (), attributes: tuple[str, ...] = ("easy clean",)
) -> float:
    """Return the score of a mug bought with the chosen values of options a, b, c …"""
    goal = Goal("B000000RED", "", attributes, wishes)
    return score(goal, MUG, MUG, dict(zip("abc", chosen, strict=False)))


# Attributes, price ----------------------------------------------------------------------------


def test_all_that_was_asked_for_is_worth_one() -> None:
    assert worth("large", "red", chosen=("red", "large")) == 1.0


@pytest.mark.parametrize(
    "attribute",
    ["easy cleaning", "red ceramic", "dishwasher safe", "safe holds", "for tea"],
)
def test_an_attribute_is_met_by_likeness_or_by_any_text_of_the_product(attribute: str) -> None:
    assert worth(attributes=(attribute,)) == 1.0


def test_an_attribute_that_is_not_there_costs_its_share() -> None:
    assert worth(attributes=("easy clean", "gluten free")) == 2 / 3  # one of two, and the price


def test_the_price_counts_as_one_wish() -> None:
    goal = Goal("B000000RED", "", ("easy clean",), (), price_upper=9.0)
    assert score(goal, MUG, MUG, {}) == 0.5
    assert score(replace(goal, price_upper=10.0), MUG, MUG, {}) == 1.0


# Options --------------------------------------------------------------------------------------


def test_options_that_a_person_asked_for_are_compared_with_values() -> None:
    assert worth("large", chosen=("small",)) == 2 / 3
    assert worth("large", chosen=()) == 2 / 3
    assert worth("large", chosen=("x-large",)) == 1.0  # all words of one are in the other


def test_synthetic_options_are_compared_as_pairs_of_name_and_value() -> None:
    # "('size', 'large')" has all words of "large" and one more
    assert worth(("size", "large"), chosen=("large",)) == 1.0
    assert worth(("size", "large"), chosen=("small",)) == 2 / 3
    assert worth(("size", "large"), chosen=("x-large",)) == 2 / 3


def test_colours_are_reduced_to_the_first_colour_word_that_they_contain() -> None:
    assert worth("dark red", chosen=("dark tan",)) == 1.0  # dark is a colour of the list
    assert worth("navy", chosen=("navy blue",)) == 2 / 3  # blue stands before navy
    # standard contains tan, and a pair is reduced only where one of it is a colour as a whole
    assert worth(("style", "standard"), chosen=("standard",)) == 2 / 3
    assert worth("standard", chosen=("standard",)) == 1.0
    assert worth(("color", "red"), chosen=("wine red",)) == 1.0


# The kind of product --------------------------------------------------------------------------


def other(**fields: object) -> Product:
    """Return a product that shares neither query nor category with the mug."""
    far = replace(MUG, query="cups", category=("Office",))
    return replace(far, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nouns", "expected"),
    [
        (("mug", "cup"), 1.0),  # 1 of 5 is not more than 0.2, 1 of 2 is
        (("tea",), 0.0),
        ((), 0.0),
    ],
)
def test_titles_that_share_nouns_are_of_one_kind(nouns: tuple[str, ...], expected: float) -> None:
    assert kind_factor(MUG, other(nouns=nouns)) == expected


def test_few_shared_nouns_count_half_or_a_tenth() -> None:
    five, twelve = (replace(MUG, nouns=("mug", *"abcdefghijk"[: size - 1])) for size in (5, 12))
    assert kind_factor(five, other(nouns=("mug",))) == 0.5  # 0.2 of them
    assert kind_factor(twelve, other(nouns=("mug",))) == 0.1  # 0.083
    assert kind_factor(twelve, MUG) == 0.1  # even of the same query


def test_a_query_or_two_parts_of_the_category_in_common_make_up_for_nouns() -> None:
    five = replace(MUG, nouns=("mug", *"abcd"))
    bought = other(nouns=("mug",))
    assert kind_factor(five, replace(bought, query="mugs")) == 1.0
    assert kind_factor(five, replace(bought, category=("Mugs", "Home"))) == 1.0
    assert kind_factor(five, replace(bought, category=("Mugs", "Mugs"))) == 0.5


def test_a_title_without_nouns_is_alike_by_a_fifth() -> None:
    nameless = replace(MUG, nouns=())
    assert kind_factor(nameless, other()) == 0.5
    assert kind_factor(nameless, MUG) == 1.0


def test_nouns_that_come_twice_count_twice_in_what_was_wanted_only() -> None:
    twice = replace(MUG, nouns=("mug", "mug", "a", "b", "c"))
    assert kind_factor(twice, other(nouns=("mug", "mug"))) == 0.5  # 1 of 5


# Likeness of texts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "another", "expected"),
    [
        ("essential oils", "essential oil", True),  # 100 * 2 * 13 / 27 = 96
        ("large", "x-large", True),  # its words are all there
        ("large", "('size', 'large')", True),
        ("abcdefghijklm", "abcdefghijkno", False),  # 11 of 13: 84.6, which rounds to 85
        ("cafés", "cafs", True),  # letters of Latin-1 are dropped
        ("", "", False),
        ("!", "!", False),
    ],
)
def test_texts_are_alike_as_the_benchmarks_matcher_says(
    one: str, another: str, expected: bool
) -> None:
    assert alike(one, another) == alike(another, one) == expected
