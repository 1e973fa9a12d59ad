"""What counts as an answer: the formats of actions and their strict parser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from agentgym.errors import unknown

_FORMATS = ("plain", "tags")


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
    and then the action inside ``<action>``; the first of several actions counts. ``lowercase``
    is for environments that know lower-case actions only.
    """

    name: str
    lowercase: bool = False

    def parse(self, text: str) -> Parsed:
        """Return the action in ``text``, or the reason why there is none."""
        error, action = _read_tags(text) if self.name == "tags" else (None, text)
        action = action.strip()
        if error is None and not action:
            error = "the action is empty"
        if error is not None:
            return Parsed(text, "", error)
        return Parsed(text, action.lower() if self.lowercase else action, None)

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings after which nothing more is wanted: none, the model ends its own turns."""
        return ()

    def describe(self) -> list[object]:
        """Return everything that tells this format from another, as JSON takes it."""
        return [self.name, self.lowercase, list(self.stop)]


def action_format(name: str, lowercase: bool = False) -> ActionFormat:
    """Return a format by name.

    Raises:
        UsageError: No format has that name.
    """
    if name not in _FORMATS:
        raise unknown("action format", name, _FORMATS)
    return ActionFormat(name, lowercase)


def _read_tags(text: str) -> tuple[str | None, str]:
    """Return why the tags are wrong (None if they are right) and what stands in the action."""
    for tag in ("think", "action"):
        for marker in (f"<{tag}>", f"</{tag}>"):
            if marker not in text:
                return f"there is no {marker}", ""
    thought = re.search(r"<think>.*?</think>", text, re.DOTALL)
    if thought is None:
        return "</think> stands before <think>", ""
    # An action inside the reasoning is a quotation, and so is looked for only after it.
    action = re.search(r"<action>(.*?)</action>", text[thought.end() :], re.DOTALL)
    if action is None:
        return "there is no whole <action>…</action> after </think>", ""
    if "<action>" in action[1]:
        return "an <action> is opened inside another", ""
    return None, action[1]
