"""What each token of a turn reads as, so that people can look at tokens without the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

_UNFINISHED = "\ufffd"  # what decoding writes for a part of a character
_LONGEST = 4  # bytes of a character in UTF-8, and so tokens that may share one


def token_texts(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Return the text that each token adds; joined they are what the tokens say.

    A token is decoded beside the one before it, as some tokenizers drop a blank at the beginning.
    A character that several tokens share belongs to the last of them; the others add nothing.

    Args:
        ids: Tokens in their order.
        decode: Returns the text of tokens, special ones included.
    """

    @cache  # the same pairs of tokens come again and again
    def text_of(some: tuple[int, ...]) -> str:
        return decode(some)

    texts: list[str] = []
    begun = 0  # the first token whose text was not told yet
    for end in range(1, len(ids) + 1):
        before = max(0, begun - 1)
        text = text_of(tuple(ids[before:end]))[len(text_of(tuple(ids[before:begun]))) :]
        if text.endswith(_UNFINISHED) and end - begun < _LONGEST and end < len(ids):
            texts.append("")
            continue
        texts.append(text)
        begun = end
    return texts
