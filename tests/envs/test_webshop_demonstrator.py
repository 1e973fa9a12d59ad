"""The demonstrator of WebShop: what it knows it has read, and it finds back after mistakes."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from agentgym.envs.webshop import WebShopEnv
from agentgym.envs.webshop_demonstrator import Demonstrator, Wish, read_wish
from agentgym.envs.webshop_generate import SETS, catalogue


def play(env: WebShopEnv, task: str, *, slips: float = 0.0) -> tuple[bool, list[str]]:
    """Play a task; return whether it was won and what was done. Slips buy nothing."""
    observation, info = env.reset(seed=0, options={"task": task})
    rng = random.Random(task)
    player = Demonstrator(info["goal"], rng)
    actions: list[str] = []
    over = False
    while not over:
        action = player.act(observation, info["admissible_actions"])
        if rng.random() < slips:
            can = [one for one in info["admissible_actions"] if one != "click[buy now]"]
            action = rng.choice([*can, "search[lamp]", "click[b99999]", "take it"])
        else:
            known = action in info["admissible_actions"] or action.startswith("search[")
            assert known, (task, action)
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    return info["won"], actions


@pytest.mark.parametrize(
    ("suite", "least", "turns"),
    [("webshop/gen-train", 0.8, 10), ("webshop/gen-easy-train", 0.97, 5)],
)
def test_it_fulfils_most_wishes(suite: str, least: float, turns: float) -> None:
    env = WebShopEnv(suite)
    episodes = [play(env, task) for task in env.suite.tasks[:260]]
    assert mean(won for won, _ in episodes) >= least
    assert mean(len(actions) for _, actions in episodes) <= turns


def test_it_finds_back_after_slips() -> None:
    env = WebShopEnv("webshop/gen-easy-train", max_turns=40)
    episodes = [play(env, task, slips=0.25) for task in env.suite.tasks[:104]]
    # lost are those where a slip chose another value or took the place of a choice: no page shows
    # what is chosen; with one option each and a slip in four turns, these are about a quarter
    assert mean(won for won, _ in episodes) >= 0.6
    assert all(actions[-1] == "click[buy now]" for _, actions in episodes)


def test_the_same_generator_gives_the_same_episode() -> None:
    env = WebShopEnv("webshop/gen-train")
    assert play(env, env.suite.tasks[5]) == play(env, env.suite.tasks[5])


@pytest.mark.parametrize("rendering", ["text_rich", "bare"])
def test_it_reads_pages_in_whichever_way_they_are_put_into_words(rendering: str) -> None:
    plain, other = (
        WebShopEnv("webshop/gen-train", observation=observation)
        for observation in ("text", rendering)
    )
    for task in plain.suite.tasks[:52]:
        assert play(plain, task) == play(other, task)


# What it reads in an instruction --------------------------------------------------------------


def test_it_reads_every_generated_wish() -> None:
    for name in SETS:
        shop = catalogue(name)
        for task in shop.splits[name]:
            goal = shop.goals[task]
            wish = read_wish(goal.instruction)
            assert wish.options == goal.options
            assert wish.limit == goal.price_upper
            assert all(one in wish.wanted for one in goal.attributes)
            assert not wish.wanted.startswith(("Find", "I ", "Show"))


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (
            "Find me easy carry, high quality bags with rose gold with color: rose gold, and"
            " size: 4 ounce (pack of 2), and price lower than 20.00 dollars",
            Wish(
                "easy carry, high quality bags with rose gold",
                ("easy", "carry", "high", "quality", "bags", "rose", "gold"),
                (("color", "rose gold"), ("size", "4 ounce (pack of 2)")),
                20.0,
            ),
        ),
        (
            "i'm looking for a red mug, and price lower than 7.50 dollars.",
            Wish("red mug", ("red", "mug"), (), 7.5),
        ),
        ("red mug", Wish("red mug", ("red", "mug"), (), float("inf"))),
        ("", Wish("", (), (), float("inf"))),
    ],
)
def test_it_reads_the_published_forms(instruction: str, expected: Wish) -> None:
    assert read_wish(instruction) == expected


# What it does with what it reads --------------------------------------------------------------

WISH = (
    "Find me soft, warm hats with wool lining with size: large, and price lower than 30.00 dollars"
)
HEAD = f"Instruction: [SEP] {WISH} [SEP] Back to Search"
NAVIGATION = ("click[back to search]", "click[< prev]")


def results(*products: tuple[str, str, str], page: int = 1) -> tuple[str, tuple[str, ...]]:
    listed = [" [SEP] ".join(one) for one in products]
    text = " [SEP] ".join([HEAD, f"Page {page} (Total results: 50)", "Next >", *listed])
    clicks = [f"click[{asin.lower()}]" for asin, _, _ in products]
    return text, ("click[back to search]", "click[next >]", *clicks)


def item(title: str, *sizes: str) -> tuple[str, tuple[str, ...]]:
    shown = ["< Prev", "size", *sizes, title, "Price: $1.00", "Rating: N.A."]
    buttons = ["Description", "Features", "Reviews", "Buy Now"]
    clicks = [f"click[{one.lower()}]" for one in (*buttons, *sizes)]
    return " [SEP] ".join([HEAD, *shown, *buttons]), (*NAVIGATION, *clicks)


def features(*sentences: str) -> tuple[str, tuple[str, ...]]:
    return " [SEP] ".join([HEAD, "< Prev", *sentences]), NAVIGATION


SOME = ("B1", "Soft Hat", "$10.00")
MOST = ("B2", "Soft Warm Hat by Aldenmoor", "$29.00 to $35.00")
DEAR = ("B3", "Soft Warm Hat with Wool Lining", "$31.00")


@pytest.fixture
def player() -> Demonstrator:
    return Demonstrator(WISH, random.Random(0))


def test_it_begins_with_the_words_of_the_wish() -> None:
    start = (f"WebShop [SEP] Instruction: [SEP] {WISH} [SEP] Search", ("search[<your query>]",))
    drawn = {Demonstrator(WISH, random.Random(seed)).act(*start) for seed in range(30)}
    wanted = "soft warm hats with wool lining"
    assert drawn == {f"search[{wanted}]", f"search[{wanted} large]"}


def test_it_opens_what_has_most_of_the_words_and_can_be_paid(player: Demonstrator) -> None:
    assert player.act(*results(SOME, MOST, DEAR)) == "click[b2]"


def test_it_reads_on_where_the_title_leaves_something_open(player: Demonstrator) -> None:
    player.act(*results(SOME, MOST))
    page = item(MOST[1], "small", "large")
    assert player.act(*page) == "click[features]"
    assert player.act(*features("Truly warm.", "Comes with wool lining.")) == "click[< prev]"
    assert player.act(*page) == "click[large]"
    assert player.act(*page) == "click[buy now]"


def test_it_turns_back_from_what_lacks_something_and_takes_the_next(player: Demonstrator) -> None:
    player.act(*results(SOME, MOST))
    page = item(MOST[1], "large")
    player.act(*page)
    player.act(*features("Comes with cotton lining."))
    assert player.act(*page) == "click[< prev]"
    assert player.act(*results(SOME, MOST)) == "click[b1]"


def test_it_turns_back_from_what_has_not_the_option(player: Demonstrator) -> None:
    player.act(*results(SOME, MOST))
    assert player.act(*item(MOST[1], "small", "x-large")) == "click[< prev]"
    assert player.act(*results(SOME, MOST)) == "click[b1]"


def test_it_looks_at_the_next_page_then_searches_in_other_words(player: Demonstrator) -> None:
    first = player.act("WebShop [SEP] Search", ("search[<your query>]",))
    assert player.act(*results(DEAR)) == "click[next >]"
    second = player.act(*results(DEAR, page=2))
    assert second.startswith("search[soft warm hats")
    assert second != first


def test_it_chooses_again_after_it_was_taken_back_to_the_results(player: Demonstrator) -> None:
    everything = ("B4", "Soft Warm Hat with Wool Lining", "$9.00")
    page = item(everything[1], "large")
    assert player.act(*results(everything)) == "click[b4]"
    assert player.act(*page) == "click[large]"
    assert player.act(*results(everything)) == "click[b4]"
    assert player.act(*page) == "click[large]"
    assert player.act(*page) == "click[buy now]"


def test_it_leaves_a_product_that_it_was_brought_to_unawares(player: Demonstrator) -> None:
    assert player.act(*item("Mug", "large")) == "click[back to search]"


def test_in_the_end_it_buys_the_best_that_it_saw(player: Demonstrator) -> None:
    page = item(MOST[1], "large")
    player.act(*results(MOST))
    player.act(*page)
    player.act(*features("Comes with cotton lining."))
    player.act(*page)
    while (action := player.act(*results(MOST))) != "click[b2]":
        assert action == "click[next >]"
    assert [player.act(*page), player.act(*page)] == ["click[large]", "click[buy now]"]
