"""What several tests of environments share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentgym.envs.alfworld_files import GameFiles
from agentgym.envs.alfworld_rooms import read_data

HERE = Path(__file__).parent

TO_OLDER_GRAMMAR = [
    ('"move {o} to {r}"', '"put {o} in/on {r}"'),
    ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
    ("You arrive at {r.name}.", "You arrive at {lend.name}."),
]


def without_action(text: str, opening: str) -> str:
    """Return ``text`` without the block that begins with ``opening`` and a blank line ends."""
    before, found, after = text.partition(opening)
    assert found
    return before + after.partition("\n\n")[2]


@pytest.fixture
def quirks() -> Callable[..., GameFiles]:
    """A kitchen where every command and sentence can be had; ``older=True`` in older wording."""

    def make(*, older: bool = False, **game: object) -> GameFiles:
        domain, grammar = read_data("domain.pddl"), read_data("grammar.twl2")
        if older:
            for newer_text, older_text in TO_OLDER_GRAMMAR:
                assert newer_text in grammar
                grammar = grammar.replace(newer_text, older_text)
            grammar = without_action(grammar, "action help {")
            domain = without_action(domain, "(:action help")
        texts = {
            "pddl_domain": domain,
            "grammar": grammar.replace("UNKNOWN GOAL", "put two apple in cabinet"),
            "pddl_problem": (HERE / "alfworld_quirks.pddl").read_text(),
            "solvable": True,
            "walkthrough": None,
        }
        return GameFiles(
            "quirks", texts | game, {"task_type": "pick_two_obj_and_place", "pddl_params": {}}
        )

    return make


def webshop_product(asin: str, name: str, **fields: object) -> dict[str, object]:
    """Return a product as the published file of WebShop has it."""
    return {
        "asin": asin,
        "name": name,
        "category": "home",
        "query": "mugs",
        "product_category": "Home \u203a Kitchen \u203a Mugs",
        "full_description": "",
        "small_description": [""],
        "pricing": "$10.99",
        "customization_options": "",
        "brand": "none",
    } | fields


@pytest.fixture
def webshop_data(tmp_path: Path) -> Path:
    """A folder of published WebShop files in small: a red mug, a blue mug and a desk."""
    red = webshop_product(
        "B000000RED",
        "Red Ceramic Mug",
        query="Mugs ",
        full_description="For tea.\nFor coffee.",
        small_description=["Dishwasher safe", "", "Holds 12 ounces "],
        customization_options={
            "Size": [{"value": "Large"}, {"value": "Small"}],
            "Color": [{"value": "Red"}, {"value": " Navy/White ", "image": None}],
            "Style": None,
        },
    )
    blue = webshop_product(
        "B00000BLUE",
        "Blue Glass Mug",
        pricing="$12.00$20.00",
        small_description="Easy to clean glass",
    )
    desk = webshop_product(
        "B00000DESK", "Walnut Desk", query="desks", product_category="Office", pricing=""
    )
    products = [red, blue, red | {"name": "twice"}, desk]
    products += [webshop_product("nan", "none"), webshop_product("B0000000LONG", "too long")]
    told = {
        "B000000RED": {
            "attributes": ["dishwasher safe"],
            "instruction": "Find me dishwasher safe mugs",
            "instruction_attributes": ["dishwasher safe"],
        },
        "B00000BLUE": {"attributes": []},
    }
    asked = {"instruction": "i want a blue mug.", "instruction_attributes": ["glass"]}
    human = {
        "B00000BLUE": [
            asked | {"instruction_options": ["blue"]},
            asked | {"instruction_attributes": [], "instruction_options": []},
        ]
    }
    nouns = {"B000000RED": ["ceramic", "mug"], "B00000BLUE": ["glass", "mug"], "B00000DESK": []}
    for size, ending in (("small", "_1000"), ("full", "")):
        (tmp_path / f"items_shuffle{ending}.json").write_text(json.dumps(products))
        (tmp_path / f"items_ins_v2{ending}.json").write_text(json.dumps(told))
        content = {"model": "by hand", "nouns": nouns}
        (tmp_path / f"title_nouns_{size}.json").write_text(json.dumps(content))
    (tmp_path / "items_human_ins.json").write_text(json.dumps(human))
    return tmp_path
