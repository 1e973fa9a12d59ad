"""The strict parser: what is an action, and why something is none."""

from __future__ import annotations

import pytest

from agentgym.errors import UsageError
from agentgym.policies.action_format import action_format


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<think>hm</think><action>look</action>", "look"),
        ("<think>\nhm\n</think>\n<action>\n Go to Desk 1 \n</action>", "Go to Desk 1"),
        ("well <think></think> so <action>look</action> and on", "look"),
        ("<think>x</think><action>a</action><action>b</action>", "a"),
        ("<think>maybe <action>a</action></think><action>b</action>", "b"),
    ],
)
def test_the_first_action_after_the_reasoning_is_taken(text, action):
    parsed = action_format("tags").parse(text)
    assert parsed == (text, action, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("look", "there is no <think>"),
        ("<think>hm<action>look</action>", "there is no </think>"),
        ("<think>hm</think>look</action>", "there is no <action>"),
        ("<think>hm</think><action>look", "there is no </action>"),
        ("</think><think><action>look</action>", "</think> stands before <think>"),
        ("<action>look</action><think>hm</think>", "no whole <action>…</action> after </think>"),
        ("<think>hm</think><action> \n</action>", "the action is empty"),
        ("<think>hm</think><action>a <action>b</action>", "opened inside another"),
        ("", "there is no <think>"),
    ],
)
def test_an_answer_that_breaks_the_tags_says_why_and_does_nothing(text, reason):
    parsed = action_format("tags").parse(text)
    assert parsed.action == ""
    assert reason in parsed.error


def test_a_plain_answer_is_the_action():
    assert action_format("plain").parse(" Go to desk 1\n") == (
        " Go to desk 1\n",
        "Go to desk 1",
        None,
    )
    assert action_format("plain").parse(" \n") == (" \n", "", "the action is empty")


def test_actions_are_lowered_where_the_environment_knows_only_such():
    assert action_format("plain", lowercase=True).parse("Go To Desk 1").action == "go to desk 1"


def test_an_unknown_format_is_refused():
    with pytest.raises(UsageError, match="did you mean tags"):
        action_format("tag")


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<search>q</search>", "<search>q</search>"),
        ("<think>hm</think> <search>\n q \n</search>", "<search>\n q \n</search>"),
        ("<search>q</search><information>made up</information><answer>", "<search>q</search>"),
        ("<answer>a</answer><search>q</search>", "<answer>a</answer>"),
        ("<think>I could <search>now</search></think><answer>a</answer>", "<search>now</search>"),
    ],
)
def test_the_first_block_is_the_action_and_nothing_after_it_counts(text, action):
    parsed = action_format("blocks", tags=("search", "answer")).parse(text)
    assert parsed == (text, action, None)


@pytest.mark.parametrize(
    "text",
    ["", "q", "<search>q", "q</search>", "<search>q</answer>", "</answer><answer>a</answer>"],
)
def test_an_answer_without_a_whole_block_says_which_there_are(text):
    parsed = action_format("blocks", tags=("search", "answer")).parse(text)
    reason = "there is no whole <search>…</search> or <answer>…</answer>"
    assert parsed == (text, "", reason)


def test_a_model_need_not_go_on_after_the_first_closing_tag_of_a_block():
    assert action_format("blocks", tags=("search", "answer")).stop == ("</search>", "</answer>")
    assert action_format("tags").stop == ()


def test_blocks_without_tags_and_tags_without_blocks_are_refused():
    with pytest.raises(UsageError, match=r"the format blocks has no tags; .* tags: search answer"):
        action_format("blocks")
    with pytest.raises(UsageError, match="the format plain has search tags"):
        action_format("plain", tags=("search",))


@pytest.mark.parametrize(
    ("name", "like", "written"),
    [
        ("plain", "go", "look"),
        ("tags", "", "<think></think><action>look</action>"),
        (
            "tags",
            "<think>a\nb</think><action>go</action>",
            "<think>a\nb</think><action>look</action>",
        ),
        ("blocks", "<think>a</think><search>x</search>", "<think>a</think>look"),
        ("blocks", "", "look"),
    ],
)
def test_an_action_is_written_as_an_answer_with_the_thoughts_of_another(
    name: str, like: str, written: str
) -> None:
    form = action_format(name, tags=("search",) if name == "blocks" else ())
    assert form.write("look", like) == written
    if name != "blocks":
        assert form.parse(written).action == "look"
