"""The Porter stemmer as Lucene has it: Martin Porter's own program, not his paper.

It differs from the paper in two suffixes (``bli`` becomes ``ble``, ``logi`` becomes ``log``), and
from Snowball's *porter* in more. A ranking that is to equal Lucene's needs this one.

Source: M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, and the departures
that its author lists at https://tartarus.org/martin/PorterStemmer/.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

_STEP_2 = {  # suffix, what takes its place where the rest has a measure above 0
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "logi": "log",
}
_STEP_3 = {
    "icate": "ic",
    "ative": "",
    "alize": "al",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
}
_STEP_4 = (  # go where the rest has a measure above 1
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion"),
    *("ou", "ism", "ate", "iti", "ous", "ive", "ize"),
)


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """Return the stem of a lower-case word; words of one or two letters are their own stem."""
    if len(word) <= 2:
        return word
    word = _strip_inflection(_strip_plural(word))
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    for rules in (_STEP_2, _STEP_3):
        word = _replace_suffix(word, rules)
    return _tidy(_strip_suffix(word))


def _strip_plural(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith("ies"):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _strip_inflection(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return _mend(rest) if _has_vowel(rest) else word
    return word


def _mend(word: str) -> str:
    """Give a verb back what -ed and -ing took: *hopp* is ``hop``, *fil* is ``file``."""
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _ends_double(word):
        return word if word[-1] in "lsz" else word[:-1]
    if _measure(word) == 1 and _ends_short(word):
        return word + "e"
    return word


def _replace_suffix(word: str, rules: Mapping[str, str]) -> str:
    if not word.endswith(tuple(rules)):  # as most words do not
        return word
    for suffix, instead in rules.items():
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return rest + instead if _measure(rest) > 0 else word
    return word


def _strip_suffix(word: str) -> str:
    if not word.endswith(_STEP_4):
        return word
    for suffix in _STEP_4:
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            if suffix == "ion" and not rest.endswith(("s", "t")):
                continue
            return rest if _measure(rest) > 1 else word
    return word


def _tidy(word: str) -> str:
    measure = _measure(word)
    if word.endswith("e") and (measure > 1 or (measure == 1 and not _ends_short(word[:-1]))):
        word = word[:-1]
    if word.endswith("ll") and measure > 1:
        word = word[:-1]
    return word


def _consonants(word: str) -> list[bool]:
    """Return for each letter whether it is a consonant; y is one at the start or after a vowel."""
    found: list[bool] = []
    for letter in word:
        if letter == "y":
            found.append(not found or not found[-1])
        else:
            found.append(letter not in "aeiou")
    return found


def _measure(word: str) -> int:
    """Return how often a vowel is followed by a consonant."""
    consonants = _consonants(word)
    return sum(not before and after for before, after in pairwise(consonants))


def _has_vowel(word: str) -> bool:
    return not all(_consonants(word))


def _ends_double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _consonants(word)[-1]


def _ends_short(word: str) -> bool:
    """Return whether a word ends consonant, vowel, consonant, the last not w, x or y."""
    return _consonants(word)[-3:] == [True, False, True] and word[-1] not in "wxy"
