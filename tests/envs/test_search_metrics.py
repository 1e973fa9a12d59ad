"""Metrics and rewards of the search environment, on cases worked by hand."""

from __future__ import annotations

import pytest

from agentgym.envs.search_metrics import METRICS, metric_of, normalise
from agentgym.envs.search_rewards import REWARDS, Exchange, boxed, reward_of
from agentgym.errors import UsageError


def test_normalising_deletes_punctuation_and_articles_and_folds_case_and_spaces():
    assert normalise("  The  New-York, an\tera ") == "newyork era"
    assert normalise("a theory") == "theory"  # an article is a word, not the start of one
    assert normalise("The U.S.A.") == "usa"


@pytest.mark.parametrize(
    ("answer", "golds", "worth"),
    [
        # em, sub_em, f1, f1_closed, f1_of_sets
        ("New York", ["New York"], (1, 1, 1, 1, 1)),
        ("the new york.", ["New York"], (1, 1, 1, 1, 0.8)),  # set: {the new york} 2*2/(3+2)
        ("New, new york", ["New York"], (0, 1, 0.8, 0.8, 1)),  # twice: 2*2/(3+2); as sets equal
        ("the Eiffel tower", ["Eiffel Tower"], (1, 1, 1, 1, 0.8)),
        ("in Paris, France", ["Paris"], (0, 1, 0.5, 0.5, 0.5)),  # 2*1/(3+1)
        ("mid-May", ["May"], (0, 1, 0, 0, 2 / 3)),  # deleted: midmay; to a space: mid may
        ("no idea", ["no"], (0, 1, 2 / 3, 0, 2 / 3)),  # yes and no are right whole or not at all
        ("no", ["No."], (1, 1, 1, 1, 1)),
        ("London", ["Paris"], (0, 0, 0, 0, 0)),
        ("London", ["Paris", "London"], (1, 1, 1, 1, 1)),  # the best alternative counts
        ("", ["Paris"], (0, 0, 0, 0, 0)),
        ("The", ["A"], (1, 1, 1, 1, 0)),  # nothing is left of either
        ("Paris", ["The"], (0, 0, 0, 0, 0)),  # nothing is in every text, and is no answer
    ],
)
def test_each_metric_gives_each_answer_what_its_paper_gives(answer, golds, worth):
    found = [METRICS[name](answer, golds) for name in METRICS]
    assert found == pytest.approx(worth, abs=1e-12)
    assert list(METRICS) == ["em", "sub_em", "f1", "f1_closed", "f1_of_sets"]


def test_alternatives_joined_in_one_string_are_never_matched():
    assert METRICS["em"]("Paris", ["Paris<|answer_split|>City of Paris"]) == 0


def test_an_unknown_metric_or_reward_is_one_clear_line():
    with pytest.raises(UsageError, match="unknown metric of search 'emm'; did you mean em"):
        metric_of("emm")
    with pytest.raises(UsageError, match="unknown reward of search 'apro'; did you mean arpo"):
        reward_of("apro")


SEARCH = Exchange("<think>I look it up.</think><search>tower</search>", shown=True)
ANSWER = Exchange("<think>So.</think><answer>Paris</answer>")


@pytest.mark.parametrize(
    ("turns", "plain", "with_format"),
    [
        ([SEARCH, ANSWER], 1, 1),
        ([ANSWER], 1, 1),
        ([Exchange("<answer>Paris</answer>")], 1, 0.8),  # no thought
        ([SEARCH, Exchange("well <think>So.</think><answer>Paris</answer>")], 1, 0.8),
        ([Exchange(SEARCH.said), ANSWER], 1, 0.8),  # nothing was shown
        ([SEARCH, Exchange("<think>So.</think><answer>Rome</answer>")], 0, 0.2),
        ([Exchange("<answer>Rome</answer>")], 0, 0.1),
        ([SEARCH], 0, 0),
        ([], 0, 0),
        # Results that the agent made up are text of its own, and out of order.
        ([Exchange(f"{SEARCH.said}<information>x</information>", shown=True), ANSWER], 1, 0.8),
        ([Exchange("<think><search>x</search></think><answer>Paris</answer>")], 1, 0.8),
    ],
)
def test_search_r1_rewards_the_answer_and_its_version_with_format_the_order_of_tags(
    turns, plain, with_format
):
    assert REWARDS["search_r1"](turns, ["Paris"]) == plain
    assert REWARDS["search_r1_format"](turns, ["Paris"]) == pytest.approx(with_format)


def test_one_answer_tag_is_enough_and_the_last_of_several_counts():
    assert REWARDS["search_r1"]([Exchange("<answer>Paris</answer>")], ["Paris"]) == 1
    two = [Exchange("<answer>Rome</answer> no: <answer> Paris </answer>")]
    assert REWARDS["search_r1"](two, ["Paris"]) == 1


def test_verl_quarters_a_right_answer_among_more_than_ten():
    ten = [Exchange("<answer>Rome</answer>" * 9 + "<answer>Paris</answer>")]
    eleven = [Exchange("<answer>Rome</answer>" * 10 + "<answer>Paris</answer>")]
    assert REWARDS["verl"](ten, ["Paris"]) == 1
    assert REWARDS["verl"](eleven, ["Paris"]) == 0.25


@pytest.mark.parametrize(
    ("said", "gold", "reward"),
    [
        ("<think>x</think><answer>New, new york</answer>", "New York", 1.0),
        ("<think>x</think><answer>the Eiffel tower</answer>", "Eiffel Tower", 0.8),
        ("<think>x</think>Paris", "Paris", -2.0),  # no answer
        ("<think>x<answer>Paris</answer>", "Paris", -2.0),  # thoughts are never closed
        ("<answer>Paris</answer></tool_call>", "Paris", -2.0),
        ("<answer>Paris</answer><answer>Rome</answer>", "Rome", 0.0),  # the first counts
    ],
)
def test_igpo_scores_sets_of_words_and_punishes_broken_tags(said, gold, reward):
    assert REWARDS["igpo"]([Exchange(said)], [gold]) == pytest.approx(reward)


def arpo_turns(answer: str, *, python: bool = False) -> list[Exchange]:
    tools = [Exchange("<think>a</think><search>x</search>", shown=True)]
    if python:
        tools.append(Exchange("<think>b</think><python>1+1</python>", shown=True))
    return [*tools, Exchange(f"<think>c</think><answer>{answer}</answer>")]


def test_arpo_gives_f1_of_what_is_boxed_and_a_tenth_for_both_tools():
    golds = ["New York"]
    near = r"it is \boxed{new new york}"  # multiset F1 2*2/(3+2) = 0.8
    assert REWARDS["arpo"](arpo_turns(near), golds) == pytest.approx(0.8)
    assert REWARDS["arpo"](arpo_turns(near, python=True), golds) == pytest.approx(0.9)
    assert REWARDS["arpo"](arpo_turns(r"\boxed{Rome}", python=True), golds) == 0
    assert REWARDS["arpo"](arpo_turns(r"\boxed{the Eiffel tower}"), ["Eiffel Tower"]) == 1


@pytest.mark.parametrize(
    "turns",
    [
        [],
        arpo_turns("Rome"),  # nothing boxed
        arpo_turns("oxed{Rome}"),  # what a backspace in the prompt makes of it
        [Exchange(r"<answer>\boxed{Rome}</answer>")],  # no thought
        [Exchange(r"<think>a<answer>\boxed{Rome}</answer>")],
        [*arpo_turns(r"\boxed{Rome}"), *arpo_turns(r"\boxed{Rome}")],  # two answers
        [Exchange("<think>a</think><search>x</search>"), *arpo_turns(r"\boxed{Rome}")],
    ],
)
def test_arpo_punishes_bad_format_by_minus_one(turns):
    assert REWARDS["arpo"](turns, ["Rome"]) == -1


def test_boxed_counts_braces_and_takes_the_last():
    assert boxed(r"\boxed{a} and \boxed{\frac{1}{2}} end") == r"\frac{1}{2}"
    assert boxed(r"\boxed{never closed") is None
    assert boxed("nothing") is None
