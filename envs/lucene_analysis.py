"""How Lucene's English analysis turns text into terms.

Words are found by the rules of Unicode (UAX #29) as Lucene's *StandardTokenizer* has them, which
also makes a term of each emoji, Han and Hiragana character; then a possessive 's goes, letters
become small, 33 stop words go, and what is left is stemmed (:mod:`agentgym.envs.porter`). This is
the chain of Anserini's default analyzer.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain

import regex

from agentgym.envs.porter import stem

_STOP_WORDS = """
    a an and are as at be but by for if in into is it no not of on or such that the their then there
    these they this to was will with
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_LONGEST = 255  # characters of a token; what is longer is cut into pieces

# Each class takes the marks that follow a character (UAX #29, rule WB4).
_MARKS = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+"
_LETTER = rf"(?:[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_MARKS})"
_DIGIT = rf"(?:\p{{WB=Numeric}}{_MARKS})"
_KATAKANA = rf"(?:\p{{WB=Katakana}}{_MARKS})"
_JOINER = rf"(?:\p{{WB=ExtendNumLet}}{_MARKS})"  # the underscore and its like
_IN_WORD = rf"(?:[\p{{WB=MidLetter}}:\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{_MARKS})"
_IN_NUMBER = rf"(?:[\p{{WB=MidNum}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{_MARKS})"
_LETTERS = rf"(?:{_LETTER}(?:(?:{_JOINER}*|{_IN_WORD}){_LETTER})*)"
_DIGITS = rf"(?:{_DIGIT}(?:(?:{_JOINER}*|{_IN_NUMBER}){_DIGIT})*)"
_RUN = rf"(?:{_KATAKANA}(?:{_JOINER}*{_KATAKANA})*|(?:{_LETTERS}|{_DIGITS})+)"
# Emoji and symbols that were set aside for emoji: those of Unicode 11, which Lucene has.
_PICTURES = (
    r"[\p{Extended_Pictographic}\u2388\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705"
    r"\u2708-\u2712\u2763-\u2767\U0001F000-\U0001F0FF\U0001F300-\U0001F64F\U0001F680-\U0001F6FF"
    r"\U0001F900-\U0001FAFF]"
)
_EMOJI = rf"(?:{_PICTURES}{_MARKS}(?:(?<=\u200D){_PICTURES}{_MARKS})*)"
_TOKEN = regex.compile(
    rf"{_JOINER}*{_RUN}(?:{_JOINER}+{_RUN})*{_JOINER}*"
    rf"|{_EMOJI}"
    rf"|\p{{WB=Regional_Indicator}}{_MARKS}\p{{WB=Regional_Indicator}}{_MARKS}"
    rf"|(?:\p{{LB=SA}}{_MARKS})+"
    rf"|[\p{{Script=Han}}\p{{Script=Hiragana}}]{_MARKS}"
)
_WORDS_KEPT = 1 << 17


def terms(text: str) -> list[str]:
    """Return the terms of a text in order, as Lucene indexes and queries them."""
    # No token has a space in it, and most words come again: so words are analysed once.
    return list(chain.from_iterable(map(_terms_of_word, text.split(" "))))


@lru_cache(maxsize=_WORDS_KEPT)
def _terms_of_word(word: str) -> tuple[str, ...]:
    tokens = chain.from_iterable(_pieces(match[0]) for match in _TOKEN.finditer(word))
    kept = (_without_possessive(token).lower() for token in tokens)
    return tuple(stem(token) for token in kept if token not in STOP_WORDS)


def _pieces(token: str) -> list[str]:
    return [token[start : start + _LONGEST] for start in range(0, len(token), _LONGEST)]


def _without_possessive(token: str) -> str:
    possessive = token[-1] in "sS" and token[-2:-1] in ("'", "\u2019", "\uff07")
    return token[:-2] if possessive else token
