"""Tool calls as actions: which are one, and why others are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentgym.errors import DataError, UsageError
from agentgym.policies.action_format import action_format
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import Context, Prompt, Template, load_prompt, saved_prompt
from agentgym.policies.tool_calls import as_text, replies, said

ACT = action_format("tools")
REPLY = {"role": "user", "content": "Nothing happens."}
SEARCH = action_format("tools", tags=("search", "answer"))


def call(name: object = "act", arguments: object = '{"action": "look"}', of: str = "1") -> Any:
    return {"id": of, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_the_argument_of_act_is_the_action() -> None:
    assert ACT.parse("I look.", [call()]) == ("I look.", "look", None)
    lower = action_format("tools", lowercase=True)
    assert (
        lower.parse("", [call(arguments='{"action": " Go To Desk 1 "}')]).action == "go to desk 1"
    )


def test_a_tool_of_a_tag_writes_the_block() -> None:
    found = SEARCH.parse("", [call("search", '{"text": "a king"}')])
    assert found.action == "<search>a king</search>"
    assert (
        SEARCH.parse("", [call("answer", '{"text": "Henry"}')]).action == "<answer>Henry</answer>"
    )


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ([], "there is no tool call"),
        ([call(), call(of="2")], "there are 2 tool calls, expected one"),
        ([call("look")], "there is no tool 'look'; there is act"),
        ([call("x" * 5000)], f"there is no tool {'x' * 40!r}; there is act"),
        ([call(arguments='{"action": "look"')], "the arguments of the tool call are no object"),
        ([call(arguments="[" * 100_000)], "the arguments of the tool call are no object"),
        ([call(arguments='"look"')], "the arguments of the tool call are no object of JSON"),
        ([call(arguments="")], "the arguments of the tool call are no object of JSON"),
        ([call(arguments="{}")], "the tool act takes action, and nothing else"),
        ([call(arguments='{"text": "look"}')], "the tool act takes action, and nothing else"),
        ([call(arguments='{"action": "a", "n": 1}')], "the tool act takes action, and nothing"),
        ([call(arguments='{"action": 3}')], "the argument action of the tool call is no string"),
        ([call(arguments='{"action": ["a"]}')], "the argument action of the tool call is no str"),
        ([call(arguments='{"action": " "}')], "the argument action of the tool call is empty"),
        ([call(arguments={"action": "look"})], "has no function with a name and arguments"),
        ([call(name=None)], "has no function with a name and arguments"),
        ([{"id": "1"}], "has no function with a name and arguments"),
        ([{"function": "act"}], "has no function with a name and arguments"),
        ([None], "has no function with a name and arguments"),
        (["act"], "has no function with a name and arguments"),
    ],
)
def test_calls_that_are_no_action_say_why_and_do_nothing(calls: list[Any], reason: str) -> None:
    parsed = ACT.parse("look", calls)
    assert (parsed.text, parsed.action) == ("look", "")
    assert parsed.error is not None
    assert reason in parsed.error


def test_what_is_said_beside_a_call_is_no_call() -> None:
    text = as_text("", [call()])
    assert text == '<tool_call>{"name": "act", "arguments": {"action": "look"}}</tool_call>'
    assert ACT.parse(text).error == "there is no tool call"


def test_other_formats_read_no_calls() -> None:
    assert action_format("plain").parse("go", [call()]).action == "go"


def test_a_call_is_sent_back_as_it_came_and_answered_by_its_id() -> None:
    message = said("", [call(of="a"), call("nothing", "{}", of="b")])
    assert message["content"] is None
    assert message["tool_calls"] == [call(of="a"), call("nothing", "{}", of="b")]
    assert replies(message, REPLY) == [
        {"role": "tool", "tool_call_id": "a", "content": "Nothing happens."},
        {"role": "tool", "tool_call_id": "b", "content": "Nothing happens."},
    ]


@pytest.mark.parametrize("kind", [None, "", "tool"])
def test_a_call_is_sent_back_as_that_of_a_function_whatever_its_type_was(kind: object) -> None:
    assert said("", [{**call(), "type": kind}])["tool_calls"] == [call()]


@pytest.mark.parametrize(
    "calls",
    [
        [call(arguments='{"action": ')],
        [call(), call()],  # of the same id
        [{**call(), "id": None}],
        [call(), "act"],
        [{"id": "1"}],
    ],
)
def test_calls_that_an_endpoint_would_refuse_are_sent_back_as_text(calls: list[Any]) -> None:
    message = said("I look.", calls)
    assert message.keys() == {"role", "content"}
    assert message["content"] == as_text("I look.", calls)
    assert message["content"].startswith("I look.<tool_call>")
    assert replies(message, REPLY) == [REPLY]


# Templates ----------------------------------------------------------------------------------------


def test_the_tools_of_a_template_are_told_with_its_words() -> None:
    (act,) = load_prompt("corridor", "tools", "full").template.tools()
    assert act == {
        "type": "function",
        "function": {
            "name": "act",
            "description": "Takes one action.",
            "parameters": {
                "type": "object",
                "properties": {"action": {"type": "string"}},
                "required": ["action"],
            },
        },
    }
    told = load_prompt("search", "tools", "full").template.tools()
    assert [tool["function"]["name"] for tool in told] == ["search", "answer"]
    assert all(tool["function"]["description"] for tool in told)
    assert load_prompt("corridor", "tags", "full").template.tools() == []


@pytest.mark.parametrize("env", ["alfworld", "scienceworld", "webshop", "search", "corridor"])
def test_no_template_of_tools_asks_for_tags(env: str) -> None:
    words = " ".join(load_prompt(env, "tools", "full").template.texts.values())
    assert "call the tool" in words
    assert not any(tag in words for tag in ("<think>", "<action>", "<search>", "<answer>"))


def test_words_about_a_tool_that_is_not_there_are_refused() -> None:
    text = "format: {}\n=== tool.act ===\nActs.\n=== full.first ===\nx\n=== full.next ===\ny\n"
    assert Template.parse("own", text.format("tools")).tools()
    for header in ("tags", "tools\ntags: search answer"):
        with pytest.raises((DataError, UsageError), match=r"unknown section 'tool\.act'"):
            Template.parse("own", text.format(header))


def test_the_digest_tells_the_words_about_a_tool_and_its_name_apart(tmp_path: Any) -> None:
    text = "format: tools\n=== tool.act ===\nActs.\n=== full.first ===\nx\n=== full.next ===\ny\n"
    other = text.replace("tools", "tools\ntags: act")
    texts = (text, text.replace("Acts", "Does"), other)
    prompts = [Prompt(Template.parse("own", one), Context.parse("full")) for one in texts]
    assert len({prompt.digest for prompt in prompts}) == 3
    prompts[2].save(tmp_path)
    assert saved_prompt(tmp_path) == prompts[2]
    assert json.loads((tmp_path / "prompt.json").read_text())["format"] == "tools"


def test_a_model_in_tokens_is_not_told_to_call_tools() -> None:
    with pytest.raises(UsageError, match="only a chat endpoint answers with"):
        Script(load_prompt("alfworld", "tools", "full"), None)  # type: ignore[arg-type]
