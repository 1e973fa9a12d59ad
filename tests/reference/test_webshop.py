"""WebShop over the real 1,000 products; run by `make test-reference`.

``AGENTGYM_REFERENCE_DATA`` names a folder with ``webshop_products_1k.json.gz`` (the products, after
the original's cleaning), ``items_ins_v2_1000.json`` (the published file of attributes) and
``webshop_lucene_top50.jsonl.gz`` (queries, each with what Lucene found).
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentgym.envs.check import check_env
from agentgym.envs.lucene import LuceneIndex
from agentgym.envs.webshop import WebShopEnv
from agentgym.envs.webshop_catalogue import Catalogue
from agentgym.envs.webshop_nouns import find_nouns
from agentgym.envs.webshop_original import catalogue, prepare
from agentgym.envs.webshop_reward import score

pytestmark = pytest.mark.reference

FIELDS = (
    *("asin", "name", "category", "query", "product_category", "full_description"),
    *("small_description", "customization_options", "images"),
)


@pytest.fixture(scope="module")
def source() -> Path:
    named = os.environ.get("AGENTGYM_REFERENCE_DATA")
    if named is None:
        pytest.fail("AGENTGYM_REFERENCE_DATA is not set; it names the folder of reference data")
    return Path(named)


@pytest.fixture(scope="module")
def data(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The products back in the published form, with the nouns that spaCy finds."""
    folder = tmp_path_factory.mktemp("webshop")
    products = json.loads(gzip.decompress((source / "webshop_products_1k.json.gz").read_bytes()))
    records = [
        {field: product[field] for field in FIELDS}
        | {"pricing": "".join(f"${price}" for price in product["pricing"])}
        for product in products
    ]
    human = {one["asin"]: one["instructions"] for one in products if "instructions" in one}
    (folder / "items_shuffle_1000.json").write_text(json.dumps(records))
    (folder / "items_human_ins.json").write_text(json.dumps(human))
    shutil.copy(source / "items_ins_v2_1000.json", folder)
    prepare(folder, "small")
    return folder


@pytest.fixture(scope="module")
def shop(data: Path) -> Catalogue:
    return catalogue("small-test", data, 0)


@pytest.fixture(scope="module")
def recorded(source: Path) -> list[dict[str, Any]]:
    """Queries with the ASINs that Lucene found."""
    with gzip.open(source / "webshop_lucene_top50.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def test_the_shop_has_the_published_numbers(shop: Catalogue) -> None:
    kinds = Counter(task.partition("-")[0] for task in shop.goals)
    assert kinds == {"synthetic": 6910, "human": 13}
    assert len(shop.products) == 1000
    assert sum(" to " in one.price_tag for one in shop.products.values()) == 93
    assert sum(one.attributes == () for one in shop.products.values()) == 185
    sizes = {name: len(tasks) for name, tasks in shop.splits.items()}
    assert sizes == {
        "small-train": 5410,
        "small-train-verl": 6410,
        "small-dev": 1000,
        "small-test": 500,
        "small-human": 13,
    }


def test_goals_are_in_the_published_order(shop: Catalogue) -> None:
    # as the trajectories that AgentGym published begin
    first, second = (shop.goals[f"synthetic-0000{number}"].instruction for number in range(2))
    assert first.startswith(
        "Find me double sided, machine washable decorative pillows with printing technology with"
        ' size: 28" x 28", and price lower than '
    )
    assert second.startswith(
        "Find me butt lifting, light weight women's shorts with high waist, tummy control with"
        " color: black, and size: "
    )


def test_every_recorded_list_of_lucene_is_met_in_order(
    shop: Catalogue, recorded: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert len(recorded) == 200
    engine = shop.engine
    assert isinstance(engine, LuceneIndex)
    engine.save(tmp_path)
    for ranks in (engine, LuceneIndex.open(tmp_path)):
        different = [
            one["query"] for one in recorded if list(ranks.search(one["query"], 50)) != one["asins"]
        ]
        assert different == []


def test_even_the_product_that_was_meant_is_not_always_worth_one(shop: Catalogue) -> None:
    goals = [goal for task, goal in shop.goals.items() if task.startswith("synthetic")]
    below = 0
    for goal in goals:
        product = shop.products[goal.asin]
        chosen = dict(goal.options)
        below += score(goal, product, product, chosen) < 1
    sys.stdout.write(f"\nbelow 1 with product and options: {below} of {len(goals)}\n")
    assert below / len(goals) == pytest.approx(0.067, abs=0.005)


def test_the_expert_comes_as_far_as_the_product_that_was_meant(data: Path) -> None:
    env = WebShopEnv("webshop/small-test", data=str(data))
    scores = []
    for task in env.suite.tasks:
        _, info = env.reset(seed=0, options={"task": task})
        terminated = truncated = False
        while not (terminated or truncated):
            action = env.expert()
            assert action is not None, task
            _, _, terminated, truncated, info = env.step(action)
        scores.append(info["score"])
    won = sum(one == 1.0 for one in scores) / len(scores)
    mean = sum(scores) / len(scores)
    sys.stdout.write(f"\nexpert on small-test: won {won:.3f}, score {mean:.3f}\n")
    assert won > 0.9
    assert mean > 0.95


def test_every_environment_check_is_passed(data: Path) -> None:
    for suite in ("small-test", "small-human"):
        build = partial(WebShopEnv, f"webshop/{suite}", data=str(data))
        # an expert cannot win where the product that was meant is not worth 1
        failed = [one for one in check_env(build) if not one.passed]
        assert [one.check for one in failed if one.check != "has an expert that wins"] == []


def test_nouns_are_those_of_the_language_model() -> None:
    found, model = find_nouns(["Rusticware 921ORB Kitchen and Bath Cabinet Knob"])
    assert model.startswith("en_core_web_sm 3.8")
    assert {"kitchen", "bath", "cabinet", "knob"} <= set(found[0])
    assert "and" not in found[0]
