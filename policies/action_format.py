"""What counts as an answer: the formats of actions and their strict parser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agentgym.blocks import first_block
from agentgym.errors import UsageError, unknown
from agentgym.policies.tool_calls import Tool, read_call, tools_of

_FORMATS = ("plain", "tags", "blocks", "tools")


class Parsed(NamedTuple):
    """An answer, read.

    An answer that breaks the format has the empty action, which no environment knows: it costs a
    turn and does nothing.
    """

    text: str  # the whole answer
    action: str
    error: str | None  # why the text did not follow the format


@dataclass(frozen=True, slots=True)
class ActionFormat:
    """How an action is written in an answer.

    ``plain``: the whole answer is the action. ``tags``: the reasoning stands inside ``<think>``
    and then the action inside ``<action>``; the first of several actions counts. ``blocks``: the
    action is a block such as ``<search>…</search>``, its tags included, wherever it stands; an
    answer ends with the first closing tag of a block, and what was written after it does not
    count. ``tools``: the action is a tool call, which an answer has beside its text: of ``act``,
    or of a tool for each tag. ``lowercase`` is for environments that know lower-case actions only.
    """

    name: str
    lowercase: bool = False
    tags: tuple[str, ...] = ()  # of ``blocks``: the tags that make one; of ``tools``: as blocks

    def parse(self, text: str, calls: Sequence[object] = ()) -> Parsed:
        """Return the action in an answer, or the reason why there is none.

        Args:
            text: What was said.
            calls: Tool calls beside it, as they came; of ``tools`` alone.
        """
        error, action = self._read(text, calls)
        action = action.strip()
        if error is None and not action:
            error = "the action is empty"
        if error is not None:
            return Parsed(text, "", error)
        return Parsed(text, action.lower() if self.lowercase else action, None)

    def write(self, action: str, like: str = "") -> str:
        """Return an answer whose action is ``action``.

        Args:
            action: As the environment takes it.
            like: An answer whose reasoning is kept.
        """
        if self.name == "plain":
            return action
        found = first_block(like, ("think",))
        thought = like[found.begin : found.end] if found else ""
        if self.name == "blocks":  # the action is the block itself, its tags included
            return thought + action
        return f"{thought or '<think></think>'}<action>{action}</action>"

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings after which nothing more is wanted; without any, the model ends its turns."""
        return self._closing if self.name == "blocks" else ()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What can be called; nothing where the action stands in the text."""
        return tools_of(self.tags) if self.name == "tools" else ()

    def describe(self) -> list[object]:
        """Return everything that tells this format from another, as JSON takes it."""
        return [self.name, self.lowercase, list(self._closing)]

    @property
    def _closing(self) -> tuple[str, ...]:
        return tuple(f"</{tag}>" for tag in self.tags)

    def _read(self, text: str, calls: Sequence[object]) -> tuple[str | None, str]:
        if self.name == "tags":
            return _read_tags(text)
        if self.name == "tools":
            return read_call(calls, self.tools)
        return _read_block(text, self.tags) if self.name == "blocks" else (None, text)


def action_format(name: str, lowercase: bool = False, tags: Sequence[str] = ()) -> ActionFormat:
    """Return a format by name.

    Raises:
        UsageError: No format has that name; or ``blocks`` has no tags, or another format has.
    """
    if name not in _FORMATS:
        raise unknown("action format", name, _FORMATS)
    if (name == "blocks") != bool(tags) and name != "tools":
        raise UsageError(
            f"the format {name} has {' '.join(tags) or 'no'} tags; the format blocks needs them,"
            " as in: tags: search answer; tools may have them, and no other"
        )
    return ActionFormat(name, lowercase, tuple(tags))


def _read_tags(text: str) -> tuple[str | None, str]:
    """Return why the tags are wrong (None if they are right) and what stands in the action."""
    for tag in ("think", "action"):
        for marker in (f"<{tag}>", f"</{tag}>"):
            if marker not in text:
                return f"there is no {marker}", ""
    thought = first_block(text, ("think",))
    if thought is None:
        return "</think> stands before <think>", ""
    # An action inside the reasoning is a quotation, and so is looked for only after it.
    action = first_block(text, ("action",), thought.end)
    if action is None:
        return "there is no whole <action>…</action> after </think>", ""
    if "<action>" in action.content:
        return "an <action> is opened inside another", ""
    return None, action.content


def _read_block(text: str, tags: tuple[str, ...]) -> tuple[str | None, str]:
    """Return why there is no block (None if there is one), and the block."""
    ends = [text.find(end) + len(end) for end in (f"</{tag}>" for tag in tags) if end in text]
    said = text[: min(ends, default=0)]
    block = first_block(said, tags)
    if block is None:
        wanted = " or ".join(f"<{tag}>…</{tag}>" for tag in tags)
        return f"there is no whole {wanted}", ""
    return None, said[block.begin : block.end]
