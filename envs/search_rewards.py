r"""Rewards of whole search episodes, format included, as papers train with them, by name.

They read what the agent wrote and whether it was shown results, never the results themselves: a
tag in a retrieved text is nobody's answer. For the same reason one ``<answer>`` is enough.
Search-R1's own script demands two of them, because it reads the prompt too and the prompt has one
in its example; demanding two of what the agent wrote would make every answer worth 0.

A reward may lie outside [0, 1], which the score of an episode never does; IGPO's least is -2,
ARPO's most 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentgym.envs.search_metrics import exact_match, f1_closed, f1_of_sets
from agentgym.errors import unknown


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn: what the agent wrote, thoughts and tags included, and whether results came."""

    said: str
    shown: bool = False


Reward = Callable[[Sequence[Exchange], Sequence[str]], float]
"""From an episode's turns and the gold alternatives to its reward."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAG = re.compile(r"</?(?:think|search|information|answer)>")
_THINK = r"\s*<think>(?P<think>.*?)</think>"
_SEARCHING = re.compile(_THINK + r"\s*<search>(?P<act>.*?)</search>\s*", re.DOTALL)
_ANSWERING = re.compile(_THINK + r"\s*<answer>(?P<act>.*?)</answer>\s*", re.DOTALL)

_MANY_TAGS = 10  # more answers than that are guessing (verl)
_STRUCTURE = 0.2  # what the order of tags is worth (Search-R1 v0.3)
_ATTEMPT = 0.1  # what a wrong answer in a wrong format is worth (the same)
_IGPO_TAGS = ("code", "tool_call", "think", "answer")
_IGPO_INVALID = -2.0
_ARPO_INVALID = -1.0
_ARPO_BOTH_TOOLS = 0.1


def boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{}`` of a text, braces counted; None without."""
    begin = text.rfind(r"\boxed{")
    if begin < 0:
        return None
    begin += len(r"\boxed{")
    depth = 1
    for position, letter in enumerate(text[begin:], begin):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return text[begin:position]
    return None


def search_r1(turns: Sequence[Exchange], golds: Sequence[str]) -> float:
    """Return 1 if the last answer matches exactly, else 0 (Search-R1, arXiv 2503.09516)."""
    answer = _last_answer(turns)
    return 0.0 if answer is None else exact_match(answer, golds)


def verl(turns: Sequence[Exchange], golds: Sequence[str]) -> float:
    """Return :func:`search_r1`, a quarter of it where more than ten tags open or close answers."""
    text = _all_said(turns)
    most = max(text.count("<answer>"), text.count("</answer>"))
    return search_r1(turns, golds) / (4 if most > _MANY_TAGS else 1)


def search_r1_format(turns: Sequence[Exchange], golds: Sequence[str]) -> float:
    """Return Search-R1's reward with format (version 0.3 of its code).

    1 for a right answer in the right order of tags, 0.8 for one in a wrong order, 0.2 for the
    right order alone, 0.1 for a wrong answer in a wrong order, 0 without an answer. The order is:
    think, search, results, again and again, then think, answer, and no text between the tags.
    """
    answer = _last_answer(turns)
    valid = _in_order(turns)
    if answer is None:
        return 0.0
    if exact_match(answer, golds):
        return 1.0 if valid else 1.0 - _STRUCTURE
    return _STRUCTURE if valid else _ATTEMPT


def igpo(turns: Sequence[Exchange], golds: Sequence[str]) -> float:
    """Return the F1 of word sets of the first answer, -2 on bad format (IGPO, arXiv 2510.14967).

    The format is bad where a tag is opened more or less often than closed, or nothing answered.
    """
    text = _all_said(turns).lower()
    balanced = all(text.count(f"<{tag}>") == text.count(f"</{tag}>") for tag in _IGPO_TAGS)
    answer = _ANSWER.search(text)
    if not balanced or answer is None:
        return _IGPO_INVALID
    return f1_of_sets(answer[1], golds)


def arpo(turns: Sequence[Exchange], golds: Sequence[str]) -> float:
    r"""Return the reward of ARPO (arXiv 2507.19849) and AEPO (arXiv 2510.14545).

    -1 on bad format; else the F1 of what is boxed, yes and no matching whole; 0.1 more where it
    is above 0 and both tools were used. The format is bad where thoughts are unpaired or missing,
    there is not exactly one answer, the answer has no ``\boxed{}``, or a call brought no result.
    """
    text = _all_said(turns)
    answers = _ANSWER.findall(text)
    final = boxed(answers[0]) if len(answers) == 1 else None
    paired = text.count("<think>") == text.count("</think>") > 0
    calls = [one for one in turns if "</search>" in one.said or "</python>" in one.said]
    if final is None or not paired or not all(one.shown for one in calls):
        return _ARPO_INVALID
    found = f1_closed(final, golds)
    both = "</search>" in text and "</python>" in text
    return found + (_ARPO_BOTH_TOOLS if found > 0 and both else 0.0)


REWARDS: Mapping[str, Reward] = {
    "search_r1": search_r1,
    "search_r1_format": search_r1_format,
    "verl": verl,
    "igpo": igpo,
    "arpo": arpo,
}
"""Every reward by its name."""


def reward_of(name: str) -> Reward:
    """Return a reward by its name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in REWARDS:
        raise unknown("reward of search", str(name), REWARDS)
    return REWARDS[name]


def _all_said(turns: Sequence[Exchange]) -> str:
    return "\n".join(one.said for one in turns)


def _last_answer(turns: Sequence[Exchange]) -> str | None:
    answers = _ANSWER.findall(_all_said(turns))
    return answers[-1].strip() if answers else None


def _in_order(turns: Sequence[Exchange]) -> bool:
    if not turns:
        return False
    *searches, last = turns
    shapes = [(_SEARCHING, one, True) for one in searches] + [(_ANSWERING, last, False)]
    for shape, one, shown in shapes:
        found = shape.fullmatch(one.said)
        if found is None or one.shown is not shown:
            return False
        if any(_TAG.search(inside) for inside in found.groups()):
            return False
    return True
