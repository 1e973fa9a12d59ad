"""How right an answer is: exact match, and F1 over words, in each paper's variant by name.

Their numbers are not comparable: variants disagree on articles, on punctuation, on words that
come twice and on yes and no. Every metric takes the answer and its gold alternatives and returns
the best over the alternatives, in [0, 1].
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from agentgym.errors import unknown

Metric = Callable[[str, Sequence[str]], float]
"""From an answer and its gold alternatives to how right it is, in [0, 1]."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_DELETE = str.maketrans("", "", string.punctuation)
_TO_SPACES = str.maketrans(dict.fromkeys(string.punctuation, " "))
_CLOSED = frozenset({"yes", "no", "noanswer"})  # answers that are right whole or not at all


def normalise(text: str) -> str:
    """Return a text in lower case, without ASCII punctuation, articles and needless spaces.

    Punctuation is deleted, not replaced: ``mid-May`` becomes one word. P. Rajpurkar et al.,
    "SQuAD", EMNLP 2016, evaluation script.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_DELETE)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """Return 1 if the normalised answer is one of the normalised alternatives (Search-R1)."""
    said = normalise(answer)
    return float(any(said == normalise(gold) for gold in golds))


def sub_exact_match(answer: str, golds: Sequence[str]) -> float:
    """Return 1 if an alternative stands somewhere in the answer, both normalised (Search-R1).

    An alternative of which nothing is left, such as *The*, must be the whole answer: it stands in
    every text.
    """
    said = normalise(answer)
    found = (normalise(gold) for gold in golds)
    return float(any(gold in said if gold else not said for gold in found))


def f1(answer: str, golds: Sequence[str]) -> float:
    """Return the F1 of words, normalised, each as often as it is there (SQuAD)."""
    return max(_f1(normalise(answer).split(), normalise(gold).split()) for gold in golds)


def f1_closed(answer: str, golds: Sequence[str]) -> float:
    """Return :func:`f1`; yes, no and noanswer must match whole (HotpotQA; ARPO and AEPO)."""

    def one(gold: str) -> float:
        said, right = normalise(answer), normalise(gold)
        if said != right and not _CLOSED.isdisjoint((said, right)):
            return 0.0
        return _f1(said.split(), right.split())

    return max(one(gold) for gold in golds)


def f1_of_sets(answer: str, golds: Sequence[str]) -> float:
    """Return the F1 of the sets of words: a word that is there twice counts once (IGPO).

    Punctuation separates words, and articles are words.
    """
    said = _word_set(answer)
    return max(_f1(said, _word_set(gold)) for gold in golds)


def _word_set(text: str) -> list[str]:
    return sorted(set(text.lower().translate(_TO_SPACES).split()))


def _f1(said: Sequence[str], right: Sequence[str]) -> float:
    if not said or not right:  # nothing is left of one of them
        return float(said == right)
    common = (Counter(said) & Counter(right)).total()
    return 2 * common / (len(said) + len(right))


METRICS: Mapping[str, Metric] = {
    "em": exact_match,
    "sub_em": sub_exact_match,
    "f1": f1,
    "f1_closed": f1_closed,
    "f1_of_sets": f1_of_sets,
}
"""Every metric by its name."""


def metric_of(name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in METRICS:
        raise unknown("metric of search", str(name), METRICS)
    return METRICS[name]
