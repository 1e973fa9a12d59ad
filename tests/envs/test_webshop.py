"""WebShop as an environment: pages, actions, sessions, suites, info."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from agentgym.envs.check import check_env
from agentgym.envs.registry import make_env
from agentgym.envs.webshop import WebShopEnv
from agentgym.errors import UsageError
from agentgym.types import EnvSpec

RED = "Find me dishwasher safe mugs with color: red, and size: large, and price lower than"
ITEM = (
    " [SEP] Back to Search [SEP] < Prev [SEP] size [SEP] large [SEP] small [SEP] color [SEP] red"
    " [SEP] navy | white [SEP] Red Ceramic Mug [SEP] Price: $10.99 [SEP] Rating: N.A."
    " [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
)


@pytest.fixture
def env(webshop_data: Path) -> WebShopEnv:
    """An episode that asks for the red mug, large and red."""
    env = WebShopEnv("webshop/small-test", data=str(webshop_data))
    goals = env.catalogue.goals
    task = next(task for task in env.suite.tasks if goals[task].instruction.startswith(RED))
    env.reset(seed=0, options={"task": task})
    return env


def play(env: WebShopEnv, *actions: str) -> str:
    """Do actions; return the last page without its heading, the instruction."""
    for action in actions:
        observation, _, _, _, info = env.step(action)
    return str(observation).replace(f"Instruction: [SEP] {info['goal']}", "")


# Pages ----------------------------------------------------------------------------------------


def test_the_search_page_tells_the_task(env: WebShopEnv) -> None:
    observation, info = env.reset(seed=0, options={"task": env._id})
    assert observation == f"WebShop [SEP] Instruction: [SEP] {info['goal']} [SEP] Search"
    assert info["goal"].startswith(f"{RED} ")
    assert info["admissible_actions"] == ("search[<your query>]",)


def test_the_results_list_number_title_and_price(env: WebShopEnv) -> None:
    page = play(env, "search[mug]")
    assert page == (
        " [SEP] Back to Search [SEP] Page 1 (Total results: 2) [SEP] Next >"
        " [SEP] B00000BLUE [SEP] Blue Glass Mug [SEP] $12.0 to $20.0"
        " [SEP] B000000RED [SEP] Red Ceramic Mug [SEP] $10.99"
    )
    names = ("back to search", "next >", "b00000blue", "b000000red")
    assert env.step("")[4]["admissible_actions"] == tuple(f"click[{name}]" for name in names)


def test_there_is_always_a_next_page_and_it_may_be_empty(env: WebShopEnv) -> None:
    page = play(env, "search[mug]", "click[next >]")
    heading = " [SEP] Back to Search [SEP] Page 2 (Total results: 2)"
    assert page == f"{heading} [SEP] < Prev [SEP] Next >"
    assert "Page 3" in play(env, "click[next >]")
    assert "Page 1" in play(env, "click[< prev]", "click[< prev]")


def test_a_search_that_finds_nothing_has_a_page(env: WebShopEnv) -> None:
    page = play(env, "search[zebra]")
    assert page == " [SEP] Back to Search [SEP] Page 1 (Total results: 0) [SEP] Next >"


def test_an_item_page_lists_options_and_hides_what_was_chosen(env: WebShopEnv) -> None:
    assert play(env, "search[red]", "click[b000000red]") == ITEM
    assert play(env, "click[red]") == ITEM
    actions = env.step("")[4]["admissible_actions"]
    assert actions[-4:] == ("click[large]", "click[small]", "click[red]", "click[navy | white]")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("description", " [SEP] For tea.\nFor coffee."),
        ("features", " [SEP] Dishwasher safe [SEP]  [SEP] Holds 12 ounces"),  # one is empty
        ("reviews", ""),  # the published files have none
    ],
)
def test_a_sub_page_shows_one_part_of_the_product(env: WebShopEnv, name: str, body: str) -> None:
    page = play(env, "search[red]", "click[b000000red]", f"click[{name}]")
    assert page == f" [SEP] Back to Search [SEP] < Prev{body}"
    assert play(env, "click[< prev]") == ITEM


def test_an_empty_description_leaves_no_trace(env: WebShopEnv) -> None:
    page = play(env, "search[blue]", "click[b00000blue]", "click[description]")
    assert page == " [SEP] Back to Search [SEP] < Prev"


def test_the_last_page_is_of_the_same_task_and_tells_the_score(env: WebShopEnv) -> None:
    play(env, "search[red]", "click[b000000red]", "click[large]", "click[red]")
    observation, reward, terminated, _, info = env.step("click[buy now]")
    assert observation == (
        "Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it in your MTurk"
        " interface.) [SEP] Purchased [SEP] asin [SEP] B000000RED [SEP] options [SEP]"
        ' {"color": "red", "size": "large"} [SEP] attrs [SEP] None [SEP] category [SEP] None [SEP]'
        " query [SEP] None [SEP] product category [SEP] None [SEP] Target [SEP] asin [SEP] options"
        " [SEP] attrs [SEP] price upper [SEP] instuction text [SEP] category [SEP] product category"
        " [SEP] query [SEP] Goal [SEP] None [SEP] Reward [SEP] Your score (min 0.0, max 1.0) [SEP]"
        " 1.0 [SEP] Reward Details [SEP] None"
    )
    assert (reward, terminated, info["won"], info["score"]) == (1.0, True, True, 1.0)
    assert info["goal"].startswith(RED)
    assert info["admissible_actions"] == ()


def test_rich_text_shows_buttons_and_what_was_clicked(webshop_data: Path) -> None:
    env = WebShopEnv("webshop/small-test", data=str(webshop_data), observation="text_rich")
    env.reset(seed=0)
    results = env.step("search[red]")[0]
    assert (
        "[button] Next > [button_]\n\n[button] B000000RED [button_]\nRed Ceramic Mug\n" in results
    )
    page = play(env, "click[b000000red]", "click[large]", "click[red]")
    assert page.startswith("You have clicked red.\nYou have clicked large.\nInstruction:\n")
    assert "size\n  [clicked button] large [clicked button_]\n  [button] small [button_]\n" in page
    back = play(env, "click[< prev]")
    assert "\n[clicked button] B000000RED [clicked button_]\n" in back


def test_bare_text_leaves_the_instruction_out_and_quotes(webshop_data: Path) -> None:
    env = WebShopEnv("webshop/small-test", data=str(webshop_data), observation="bare")
    observation, info = env.reset(seed=0)
    assert observation == info["anchor"] == "'Search'"
    assert play(env, "search[zebra]") == (
        "'Back to Search' [SEP] 'Page 1 (Total results: 0)' [SEP] 'Next >'"
    )
    assert play(env, "search[desk]", "click[b00000desk]", "click[buy now]").startswith("Thank you")


# Actions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        "click[search]",  # the button does nothing
        "click[buy now]",  # not on this page
        "search[]",
        "search",
        "Search[mug]",  # the verb is compared to the letter
        "click[b000000red]",
        "buy now",
        "",
    ],
)
def test_what_a_page_does_not_offer_changes_nothing(env: WebShopEnv, action: str) -> None:
    before = env.step("nothing")[0]
    observation, reward, terminated, _, info = env.step(action)
    assert (observation, reward, terminated, info["admissible"]) == (before, 0.0, False, False)


def test_arguments_are_lowered_and_what_follows_the_bracket_is_ignored(env: WebShopEnv) -> None:
    assert env.step("search[RED] please")[4]["admissible"]
    assert env.step("click[B000000RED]")[4]["admissible"]
    assert env.step("click[Buy Now] thanks")[2]


def test_one_can_search_on_every_page_and_forgets_what_was_chosen(env: WebShopEnv) -> None:
    play(env, "search[red]", "click[b000000red]", "click[large]", "click[description]")
    observation, _, _, _, info = env.step("search[blue]")
    assert info["admissible"]
    assert "Page 1 (Total results: 1)" in observation
    assert env._session.options == {}


@pytest.mark.parametrize("query", ["<q> red", "<r> red", "<c> red", "<a> red", "<r> <q> red"])
def test_the_back_doors_of_the_original_are_closed(env: WebShopEnv, query: str) -> None:
    assert play(env, f"search[{query}]") == play(env, "search[red]")


def test_sub_pages_keep_what_was_chosen(env: WebShopEnv) -> None:
    play(env, "search[red]", "click[b000000red]", "click[large]", "click[red]")
    play(env, "click[features]", "click[< prev]", "click[reviews]", "click[< prev]")
    assert env.step("click[buy now]")[1] == 1.0


@pytest.mark.parametrize("leaving", [("click[< prev]",), ("click[back to search]", "search[red]")])
def test_leaving_a_product_forgets_what_was_chosen(
    env: WebShopEnv, leaving: tuple[str, ...]
) -> None:
    play(env, "search[red]", "click[b000000red]", "click[large]", "click[red]")
    play(env, *leaving, "click[b000000red]")
    # of four points (an attribute, two options, the price) two are left
    assert env.step("click[buy now]")[1] == 0.5


def test_the_second_click_on_an_option_counts(env: WebShopEnv) -> None:
    play(env, "search[red]", "click[b000000red]", "click[small]", "click[red]", "click[large]")
    assert env.step("click[buy now]")[1] == 1.0


def test_only_a_score_of_exactly_one_is_won(env: WebShopEnv) -> None:
    play(env, "search[red]", "click[b000000red]", "click[large]")
    _, reward, terminated, _, info = env.step("click[buy now]")
    assert (reward, terminated, info["won"], info["score"]) == (0.75, True, False, 0.75)


def test_a_new_episode_remembers_nothing(env: WebShopEnv) -> None:
    first = play(env, "search[red]", "click[b000000red]", "click[red]")
    env.reset(seed=1)
    assert play(env, "search[red]", "click[b000000red]") == first
    assert env._session.options == {}


def test_the_expert_buys_what_was_meant(env: WebShopEnv) -> None:
    rewards = []
    while (action := env.expert()) is not None:
        rewards.append(env.step(action)[1])
    assert rewards == [0.0, 0.0, 0.0, 0.0, 1.0]


# Suites and options ---------------------------------------------------------------------------


def test_info_tells_the_answer_with_its_options(env: WebShopEnv) -> None:
    info = env.step("")[4]
    assert info["answer"] == "Red Ceramic Mug, color: red, size: large"


def test_members_of_a_group_see_the_same_prices_and_another_seed_others(
    webshop_data: Path,
) -> None:
    def instructions(seed: int) -> list[str]:
        env = WebShopEnv("webshop/small-human", data=str(webshop_data), price_seed=seed)
        return [env.reset(seed=number)[1]["goal"] for number in range(3)]

    assert len(set(instructions(0))) == 1
    assert instructions(0) == instructions(0)
    assert len({instructions(seed)[0] for seed in range(6)}) > 1


def test_suites_are_cut_from_the_benchmarks_order(webshop_data: Path) -> None:
    env = WebShopEnv("webshop/small-test", data=str(webshop_data))
    assert env.suite.tasks == tuple(f"synthetic-{number:05}" for number in range(4))
    assert env.suite.official
    assert env.suite.held_out
    assert WebShopEnv("webshop/small-human", data=str(webshop_data)).suite.tasks == ("human-00000",)
    assert not WebShopEnv("webshop/small-train", data=str(webshop_data)).suite.held_out


def test_generated_suites_are_not_official() -> None:
    assert not WebShopEnv().suite.official
    assert not WebShopEnv().suite.held_out
    assert WebShopEnv("webshop/gen-test").suite.held_out


def test_the_papers_fifteen_turns_are_the_default() -> None:
    assert WebShopEnv().max_turns == 15


def test_every_environment_check_is_passed(webshop_data: Path) -> None:
    for build in (
        partial(WebShopEnv, "webshop/gen-test"),
        partial(WebShopEnv, "webshop/small-test", data=str(webshop_data)),
        partial(WebShopEnv, "webshop/gen-easy-test", observation="bare"),
    ):
        assert [finding for finding in check_env(build) if not finding.passed] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "webshop/small-tset"}, "did you mean webshop/small-test"),
        ({"observation": "html"}, "unknown observation of webshop 'html'"),
        ({"price_seed": "x"}, "price_seed is an integer, got 'x'"),
        ({"suite": "webshop/small-test", "data": 5}, r"got 5; write a path as \./5"),
        ({"suite": "webshop/gen-test", "data": "x"}, "is generated and reads no files"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_env(EnvSpec("webshop", options))
