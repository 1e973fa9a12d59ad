"""The oracle of WebShop: every held-out task, from wherever it is taken over."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agentgym.envs.webshop import WebShopEnv
from agentgym.envs.webshop_catalogue import Catalogue
from agentgym.envs.webshop_expert import best_query, next_action
from agentgym.envs.webshop_generate import catalogue
from agentgym.envs.webshop_session import Place, Session


def finish(env: WebShopEnv) -> tuple[list[str], float]:
    """Let the expert play to the end; return its actions and the last reward."""
    actions: list[str] = []
    over, reward = False, 0.0
    while not over:
        action = env.expert()
        assert action is not None
        actions.append(action)
        _, reward, terminated, truncated, info = env.step(action)
        assert info["admissible"]
        over = terminated or truncated
    return actions, reward


@pytest.mark.parametrize("suite", ["webshop/gen-test", "webshop/gen-easy-test"])
def test_it_earns_exactly_one_on_every_held_out_task_within_fifteen_turns(suite: str) -> None:
    env = WebShopEnv(suite)
    assert env.max_turns == 15
    for task in env.suite.tasks:
        env.reset(seed=0, options={"task": task})
        actions, reward = finish(env)
        assert reward == 1.0, (task, actions)
        assert env.expert() is None


@pytest.mark.parametrize("suite", ["webshop/gen-train", "webshop/gen-easy-train"])
def test_it_goes_on_from_wherever_it_is_taken_over(suite: str) -> None:
    env = WebShopEnv(suite, max_turns=40)
    rng = random.Random(0)
    for task in env.suite.tasks[:60]:
        _, info = env.reset(seed=0, options={"task": task})
        for _ in range(rng.randrange(12)):
            can = [one for one in info["admissible_actions"] if one != "click[buy now]"]
            action = rng.choice([*can, "search[lamp]", "search[running shoes]"])
            _, _, _, _, info = env.step(action)
        actions, reward = finish(env)
        assert reward == 1.0, (task, actions)
        assert len(actions) <= 12


@pytest.mark.parametrize("name", ["gen-test", "gen-easy-test"])
def test_it_searches_with_words_of_the_instruction_only(name: str) -> None:
    shop = catalogue(name)
    for task in shop.splits[name]:
        goal = shop.goals[task]
        query = best_query(shop.engine, shop.products[goal.asin], goal)
        assert query is not None
        plain = goal.instruction.lower().replace("-", " ").replace("'", " ").replace(".", " ")
        assert set(query.split()) <= set(plain.replace(",", " ").replace(":", " ").split()), task


class Listed:
    """A search engine that answers some queries only."""

    def __init__(self, **found: tuple[str, ...]) -> None:
        self.found = {query.replace("_", " "): asins for query, asins in found.items()}
        self.asked: list[str] = []

    def search(self, query: str, size: int) -> tuple[str, ...]:
        self.asked.append(query)
        return self.found.get(query, ())[:size]


@pytest.fixture
def shop() -> Catalogue:
    return catalogue("gen-easy-test")


def test_it_turns_the_pages_to_where_the_product_is(shop: Catalogue) -> None:
    goal = next(iter(shop.goals.values()))
    others = tuple(asin for asin in shop.products if asin != goal.asin)
    found = (*others[:23], goal.asin, *others[23:49])  # the 24th: on the third page of ten
    on = {
        page: next_action(shop, goal, Session(Place.RESULTS, "lamp", found, page))
        for page in range(1, 5)
    }
    click = f"click[{goal.asin.lower()}]"
    assert on == {1: "click[next >]", 2: "click[next >]", 3: click, 4: "click[< prev]"}


def test_it_corrects_an_option_that_was_chosen_wrongly(shop: Catalogue) -> None:
    goal = next(iter(shop.goals.values()))
    ((name, value),) = goal.options
    other = next(one for one in shop.products[goal.asin].options[name] if one != value)
    session = Session(Place.ITEM, asin=goal.asin, options={name: other})
    assert next_action(shop, goal, session) == f"click[{value}]"
    session.options[name] = value
    assert next_action(shop, goal, session) == "click[buy now]"
    session.place = Place.FEATURES
    assert next_action(shop, goal, session) == "click[< prev]"


def test_it_looks_for_a_value_that_a_person_asked_for_without_its_option(shop: Catalogue) -> None:
    goal = next(iter(shop.goals.values()))
    ((_, value),) = goal.options
    said = replace(goal, options=(value, "something that it does not have"))
    session = Session(Place.ITEM, asin=goal.asin)
    assert next_action(shop, said, session) == f"click[{value}]"


def test_it_takes_the_title_where_no_word_of_the_instruction_finds_the_product(
    shop: Catalogue,
) -> None:
    goal = next(iter(shop.goals.values()))
    product = replace(shop.products[goal.asin], title="Plain Thing")
    engine = Listed(plain_thing=(goal.asin,))
    assert best_query(engine, product, goal) == "plain thing"
    assert len(engine.asked) == 4
    assert best_query(Listed(), product, goal) is None


def test_it_knows_no_action_where_nothing_finds_the_product(shop: Catalogue) -> None:
    goal = next(iter(shop.goals.values()))
    lost = replace(shop, engine=Listed())
    assert next_action(lost, goal, Session()) is None


def test_it_prefers_the_search_that_shows_the_product_earliest(shop: Catalogue) -> None:
    goal = replace(next(iter(shop.goals.values())), instruction="blue mug or thing")
    product = replace(shop.products[goal.asin], title="Thing", description="A mug", features=("",))
    others = tuple(asin for asin in shop.products if asin != goal.asin)
    engine = Listed(
        thing=(*others[:30], goal.asin),
        mug_thing=(*others[:12], goal.asin),
        blue_mug_or_thing=(*others[:20], goal.asin),
    )
    assert best_query(engine, product, goal) == "mug thing"
