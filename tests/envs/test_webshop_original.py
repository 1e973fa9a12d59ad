"""The published files: what is read, which goals are made, what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agentgym.envs.webshop import WebShopEnv
from agentgym.envs.webshop_catalogue import NO_PRICE_LIMIT, Product
from agentgym.envs.webshop_files import read_products
from agentgym.envs.webshop_goals import human_goal, shuffled, synthetic_goals
from agentgym.envs.webshop_nouns import find_nouns
from agentgym.envs.webshop_original import catalogue, prepare
from agentgym.envs.webshop_search import searched_text
from agentgym.envs.webshop_stored import stored_folder
from agentgym.errors import DataError

PRODUCTS = "items_shuffle_1000.json"


@pytest.fixture
def products(webshop_data: Path) -> Mapping[str, Product]:
    return catalogue("small-test", webshop_data, 0).products


def change(folder: Path, fields: Mapping[str, object]) -> None:
    """Change fields of the first product."""
    records = json.loads((folder / PRODUCTS).read_text())
    records[0] |= fields
    (folder / PRODUCTS).write_text(json.dumps(records))


# Products -------------------------------------------------------------------------------------


def test_products_are_read_as_the_benchmark_reads_them(products: Mapping[str, Product]) -> None:
    assert products["B000000RED"] == Product(
        asin="B000000RED",
        title="Red Ceramic Mug",
        description="For tea.\nFor coffee.",
        features=("Dishwasher safe", "", "Holds 12 ounces "),
        options={"size": ("large", "small"), "color": ("red", "navy | white")},
        attributes=("dishwasher safe",),
        price=10.99,
        price_tag="$10.99",
        query="mugs",
        category=("Home", "Kitchen", "Mugs"),
        nouns=("ceramic", "mug"),
    )
    assert products["B00000BLUE"].features == ("Easy to clean glass",)
    assert products["B00000BLUE"].attributes == ()
    assert products["B00000DESK"].attributes == ("DUMMY_ATTR",)


def test_what_has_no_number_or_was_there_before_is_not_sold(
    products: Mapping[str, Product],
) -> None:
    assert list(products) == ["B000000RED", "B00000BLUE", "B00000DESK"]


def test_a_product_without_a_price_costs_a_hundred(products: Mapping[str, Product]) -> None:
    assert (products["B00000DESK"].price, products["B00000DESK"].price_tag) == (100.0, "$100.0")


def test_a_range_of_prices_has_one_price_for_each_seed(webshop_data: Path) -> None:
    shops = [catalogue("small-test", webshop_data, seed).products for seed in range(4)]
    prices = [shop["B00000BLUE"].price for shop in shops]
    assert all(12 <= price <= 20 for price in prices)
    assert len(set(prices)) == 4
    assert {shop["B00000BLUE"].price_tag for shop in shops} == {"$12.0 to $20.0"}


def test_thousands_of_dollars_are_read(webshop_data: Path) -> None:
    change(webshop_data, {"pricing": "$1,299.50"})
    (first, *_) = read_products(webshop_data / PRODUCTS, {}, {}, seed=0)
    assert first.price == 1299.5


def test_search_looks_at_title_description_first_feature_and_options(
    products: Mapping[str, Product],
) -> None:
    assert searched_text(products["B000000RED"]) == (
        "red ceramic mug for tea.\nfor coffee. dishwasher safe"
        " size: large, small, and color: red, navy | white"
    )


# Goals ----------------------------------------------------------------------------------------


def test_there_is_a_synthetic_goal_for_each_way_to_choose(products: Mapping[str, Product]) -> None:
    red = products["B000000RED"]
    goals = list(synthetic_goals(red, "Find me mugs", ["dishwasher safe"], seed=0))
    assert [goal.options for goal in goals] == [
        (("color", color), ("size", size))
        for color in ("red", "navy | white")
        for size in ("large", "small")
    ]
    limit = goals[0].price_upper
    assert {goal.price_upper for goal in goals} == {limit}
    assert limit in {30.0, 40.0, 50.0}  # the larger of two of 20, 30, 40, 50
    assert goals[0].instruction == (
        f"Find me mugs with color: red, and size: large, and price lower than {limit:.2f} dollars"
    )


def test_a_product_without_options_has_one_goal(products: Mapping[str, Product]) -> None:
    (goal,) = synthetic_goals(products["B00000DESK"], "Find me desks", ["wood"], seed=0)
    assert goal.options == ()
    assert goal.instruction.startswith("Find me desks, and price lower than ")


def test_what_people_asked_for_loses_its_full_stop_and_keeps_its_list(
    webshop_data: Path,
) -> None:
    shop = catalogue("small-human", webshop_data, 0)
    (goal,) = [shop.goals[task] for task in shop.splits["small-human"]]
    assert goal.options == ("blue",)
    assert goal.attributes == ("glass",)
    assert goal.instruction.startswith("i want a blue mug, and price lower than ")


def test_price_limits_of_a_seed_stay_what_they_were(products: Mapping[str, Product]) -> None:
    mug, desk = products["B000000RED"], products["B00000DESK"]
    synthetic = [next(synthetic_goals(mug, "mugs", ["red"], seed)) for seed in range(8)]
    human = [human_goal(desk, "a desk", ["wood"], [], f"{seed}:0") for seed in range(8)]
    assert [goal.price_upper for goal in synthetic] == [30, 30, 50, 50, 30, 30, 40, 50]
    assert [goal.price_upper for goal in human] == [130, 120, 130, 140, 140, 130, 130, 140]


def test_a_price_near_the_top_has_no_limit(products: Mapping[str, Product]) -> None:
    dear = replace(products["B00000DESK"], price=985.0)
    goal = human_goal(dear, "a desk.", ["wood"], [], "0:0")
    assert (goal.price_upper, goal.instruction) == (NO_PRICE_LIMIT, "a desk")


def test_goals_are_dealt_as_the_benchmark_deals_them(products: Mapping[str, Product]) -> None:
    goals = [
        human_goal(products["B00000DESK"], f"wish {number}", ["wood"], [], "0:0")
        for number in range(10)
    ]
    order = [goal.instruction.split(",")[0] for goal in shuffled(goals, "x").values()]
    # random.seed(233), then random.shuffle of ten
    assert order == [f"wish {number}" for number in (5, 9, 0, 1, 4, 7, 6, 3, 8, 2)]


# The full shop --------------------------------------------------------------------------------


def test_the_full_shop_is_prepared_once_and_is_the_same_shop(webshop_data: Path) -> None:
    prepare(webshop_data, "full")
    before = stored_folder(webshop_data).stat().st_mtime_ns
    prepare(webshop_data, "full")
    assert stored_folder(webshop_data).stat().st_mtime_ns == before
    small = catalogue("small-human", webshop_data, 3)
    full = catalogue("full-test", webshop_data, 3)
    assert dict(full.products) == dict(small.products)
    assert dict(full.goals) == {task: small.goals[task] for task in small.splits["small-human"]}
    for query in ("mug", "red walnut", "glass easy", "zebra"):
        assert full.engine.search(query, 50) == small.engine.search(query, 50)
    assert "B000000000" not in full.products


def test_the_full_shop_is_played(webshop_data: Path) -> None:
    prepare(webshop_data, "full")
    env = WebShopEnv("webshop/full-test", data=str(webshop_data))
    env.reset(seed=0)
    while (action := env.expert()) is not None:
        *_, info = env.step(action)
    assert info["score"] == 2 / 3  # it is glass and cheap enough, and blue is no option of it


def test_an_interrupted_preparation_leaves_nothing(webshop_data: Path) -> None:
    (webshop_data / "items_shuffle.json").write_text('[{"asin": "B1", "name": "x"}')
    with pytest.raises(DataError, match="product B1 cannot be read"):
        prepare(webshop_data, "full")
    assert [path.name for path in webshop_data.iterdir() if path.is_dir()] == []


# Bad input ------------------------------------------------------------------------------------


def refused(folder: Path, suite: str = "webshop/small-test") -> str:
    """Return the message, of one line, with which a suite is refused."""
    with pytest.raises(DataError) as error:
        WebShopEnv(suite, data=str(folder))
    assert "\n" not in str(error.value)
    assert "agentgym envs download webshop" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name", [PRODUCTS, "items_ins_v2_1000.json", "items_human_ins.json", "title_nouns_small.json"]
)
def test_a_missing_file_is_named_with_the_remedy(webshop_data: Path, name: str) -> None:
    (webshop_data / name).unlink()
    assert f"there is no {webshop_data / name}" in refused(webshop_data)


@pytest.mark.parametrize(
    "name", [PRODUCTS, "items_ins_v2_1000.json", "items_human_ins.json", "title_nouns_small.json"]
)
@pytest.mark.parametrize("content", ["", "{", "5", '["x"', "<html>", "[" * 200_000])
def test_a_file_that_is_broken_or_something_else_is_named(
    webshop_data: Path, name: str, content: str
) -> None:
    (webshop_data / name).write_text(content)
    assert str(webshop_data / name) in refused(webshop_data)


def test_a_file_that_ends_too_early_is_refused(webshop_data: Path) -> None:
    text = (webshop_data / PRODUCTS).read_text()
    (webshop_data / PRODUCTS).write_text(text[:-40])
    assert f"cannot read {webshop_data / PRODUCTS}" in refused(webshop_data)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pricing": "N/A"}, "the price 'N/A' names no dollars; expected $1.50 or $1.50$2.50"),
        ({"pricing": "$one"}, "B000000RED cannot be read"),
        ({"name": None}, "name is None, expected a text"),
        ({"small_description": [None]}, "small_description is [None], expected texts"),
        ({"customization_options": {"Size": [{}]}}, "KeyError('value')"),
        ({"asin": 5}, "a product has no asin"),
    ],
)
def test_a_product_that_cannot_be_read_is_named(
    webshop_data: Path, fields: dict[str, object], message: str
) -> None:
    change(webshop_data, fields)
    assert message in refused(webshop_data)


def test_a_product_without_features_is_sold_and_found(webshop_data: Path) -> None:
    change(webshop_data, {"small_description": []})
    shop = catalogue("small-test", webshop_data, 0)
    assert shop.products["B000000RED"].features == ("",)
    assert "B000000RED" in shop.engine.search("red ceramic mug", 5)


def test_an_instruction_that_lacks_something_is_named(webshop_data: Path) -> None:
    path = webshop_data / "items_human_ins.json"
    path.write_text('{"B00000BLUE": [{"instruction": "a mug"}]}')
    assert "instruction 0 of B00000BLUE" in refused(webshop_data)
    told = {"B000000RED": {"attributes": [], "instruction": "a mug"}}
    (webshop_data / "items_ins_v2_1000.json").write_text(json.dumps(told))
    assert "B000000RED has an instruction without" in refused(webshop_data)


def test_a_full_shop_that_is_not_prepared_says_how(webshop_data: Path) -> None:
    assert "is not prepared" in refused(webshop_data, "webshop/full-test")


def test_finding_nouns_without_spacy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.envs.webshop_nouns._MODELS", ("no_such_model",))
    with pytest.raises(DataError, match=r"pip install 'agentgym\[webshop\]'"):
        find_nouns(["Red Ceramic Mug"])
