"""Actions as calls of tools: what a chat endpoint is told of them, and what it calls.

A tool takes one string. ``act`` takes the action itself; a tool that is named by a tag takes what
stands in that block, so that ``search`` called with ``a king`` is ``<search>a king</search>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ACT = "act"
_SHOWN = 40  # characters of a name that nobody knows


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that takes one string."""

    name: str
    argument: str
    tag: str | None  # of the block that the action is; None where the argument is the action

    def declare(self, about: str) -> dict[str, Any]:
        """Return what a request says of the tool.

        Args:
            about: What it does, in words.
        """
        parameters = {
            "type": "object",
            "properties": {self.argument: {"type": "string"}},
            "required": [self.argument],
        }
        function = {"name": self.name, "description": about, "parameters": parameters}
        return {"type": "function", "function": function}

    def action(self, argument: str) -> str:
        """Return the action that a call with this argument is."""
        return argument if self.tag is None else f"<{self.tag}>{argument}</{self.tag}>"


def tools_of(tags: Sequence[str]) -> tuple[Tool, ...]:
    """Return the tools of an action format: one for each tag, or ``act`` where there is none."""
    return tuple(Tool(tag, "text", tag) for tag in tags) or (Tool(ACT, "action", None),)


def read_call(calls: Sequence[object], tools: Sequence[Tool]) -> tuple[str | None, str]:
    """Return why the calls of an answer are no action (None if they are one), and the action.

    Args:
        calls: ``tool_calls`` of an answer, as they came: anything may stand in them.
        tools: That there are.
    """
    try:
        return None, _action(calls, {tool.name: tool for tool in tools})
    except _Wrong as wrong:
        return str(wrong), ""


def said(content: str, calls: Sequence[object]) -> dict[str, Any]:
    """Return an answer as the message that stands for it in the conversation.

    Calls that are broken are told as text: endpoints refuse a conversation that has such.
    """
    if calls and _can_be_sent(calls):
        sent = [{**call, "type": "function"} for call in calls if isinstance(call, Mapping)]
        return {"role": "assistant", "content": content or None, "tool_calls": sent}
    return {"role": "assistant", "content": as_text(content, calls)}


def replies(answer: Mapping[str, Any], reply: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the messages that say what came of an answer.

    Args:
        answer: The message that stands for it.
        reply: What the user says where it calls nothing; else each call is told the same.
    """
    if "tool_calls" not in answer:
        return [reply]
    told = {"role": "tool", "content": reply["content"]}
    return [{**told, "tool_call_id": call["id"]} for call in answer["tool_calls"]]


def as_text(content: str, calls: Sequence[object]) -> str:
    """Return an answer with its calls as people read it."""
    return content + "".join(f"<tool_call>{_written(call)}</tool_call>" for call in calls)


class _Wrong(Exception):  # noqa: N818 (what happened)
    """Calls are no action; the message says why."""


def _action(calls: Sequence[object], tools: Mapping[str, Tool]) -> str:
    if len(calls) != 1:
        count = f"are {len(calls)} tool calls, expected one" if calls else "is no tool call"
        raise _Wrong(f"there {count}")
    called = _called(calls[0])
    if called is None:
        raise _Wrong("the tool call has no function with a name and arguments")
    name, written = called
    if name not in tools:
        raise _Wrong(f"there is no tool {name[:_SHOWN]!r}; there is {' and '.join(tools)}")
    arguments, tool = _arguments(written), tools[name]
    if arguments is None:
        raise _Wrong("the arguments of the tool call are no object of JSON")
    if arguments.keys() != {tool.argument}:
        raise _Wrong(f"the tool {name} takes {tool.argument}, and nothing else")
    argument = arguments[tool.argument]
    if not isinstance(argument, str) or not argument.strip():
        what = "empty" if isinstance(argument, str) else "no string"
        raise _Wrong(f"the argument {tool.argument} of the tool call is {what}")
    return tool.action(argument)


def _called(call: object) -> tuple[str, str] | None:
    """Return name and arguments of a call, the latter as they were written."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return None
    name, arguments = function.get("name"), function.get("arguments")
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, str) else None


def _arguments(written: str) -> dict[str, Any] | None:
    try:
        read = json.loads(written)
    except (ValueError, RecursionError):  # the latter: nested without end
        return None
    return read if isinstance(read, dict) else None


def _can_be_sent(calls: Sequence[object]) -> bool:
    ids = [call.get("id") if isinstance(call, Mapping) else None for call in calls]
    called = [_called(call) for call in calls]
    sound = all(one is not None and _arguments(one[1]) is not None for one in called)
    return sound and all(isinstance(one, str) and one for one in ids) and len(set(ids)) == len(ids)


def _written(call: object) -> str:
    called = _called(call)
    if called is None:
        return json.dumps(call, ensure_ascii=False)
    name, arguments = called
    read = _arguments(arguments)
    shown = {"name": name, "arguments": arguments if read is None else read}
    return json.dumps(shown, ensure_ascii=False)
