"""Text from outside: characters that are none, and blocks such as ``<search>…</search>``.

Blocks are found in time linear in the length of what a model says. A pattern that looks from
every opening tag to the end takes minutes for a text of a hundred thousand opening tags; a model
that repeats itself writes such texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


def whole(text: str) -> str:
    r"""Return a text with question marks for halves of characters.

    JSON can carry such halves (``\ud83d`` without its other half); no encoder of text takes them.
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class Block(NamedTuple):
    """A block: its tag, what stands inside, and where it begins and ends in the text."""

    tag: str
    content: str
    begin: int
    end: int


def first_block(text: str, tags: Sequence[str], start: int = 0) -> Block | None:
    """Return the first whole block; what it holds ends at the first closing tag of its kind.

    Args:
        text: What was said.
        tags: Which blocks count.
        start: Where to begin to look.

    Returns:
        None where no opening tag has a closing one behind it.
    """
    hopeless: set[str] = set()  # not closed behind one opening, and so behind no later one
    for opening in re.compile(f"<({'|'.join(map(re.escape, tags))})>").finditer(text, start):
        tag = opening[1]
        if tag in hopeless:
            continue
        close = text.find(f"</{tag}>", opening.end())
        if close >= 0:
            end = close + len(f"</{tag}>")
            return Block(tag, text[opening.end() : close], opening.start(), end)
        hopeless.add(tag)
        if len(hopeless) == len(set(tags)):
            return None
    return None
