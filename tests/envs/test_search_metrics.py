"""Metrics of the search environment, on cases worked by hand."""

from __future__ import annotations

import pytest

from agentgym.envs.search_metrics import METRICS, metric_of, normalise
from agentgym.errors import UsageError


def test_normalising_deletes_punctuation_and_articles_and_folds_case_and_spaces():
    assert normalise("  The  New-York, an\tera ") == "newyork era"
    assert normalise("a theory") == "theory"  # an article is a word, not the start of one
    assert normalise("The U.S.A.") == "usa"


@pytest.mark.parametrize(
    ("answer", "golds", "worth"),
    [
        # em, sub_em, f1, f1_closed, f1_of_sets
        ("New York", ["New York"], (1, 1, 1, 1, 1)),
        ("the new york.", ["New York"], (1, 1, 1, 1, 0.8)),  # set: {the new york} 2*2/(3+2)
        ("New, new york", ["New York"], (0, 1, 0.8, 0.8, 1)),  # twice: 2*2/(3+2); as sets equal
        ("the Eiffel tower", ["Eiffel Tower"], (1, 1, 1, 1, 0.8)),
        ("in Paris, France", ["Paris"], (0, 1, 0.5, 0.5, 0.5)),  # 2*1/(3+1)
        ("mid-May", ["May"], (0, 1, 0, 0, 2 / 3)),  # deleted: midmay; to a space: mid may
        ("no idea", ["no"], (0, 1, 2 / 3, 0, 2 / 3)),  # yes and no are right whole or not at all
        ("no", ["No."], (1, 1, 1, 1, 1)),
        ("London", ["Paris"], (0, 0, 0, 0, 0)),
        ("London", ["Paris", "London"], (1, 1, 1, 1, 1)),  # the best alternative counts
        ("", ["Paris"], (0, 0, 0, 0, 0)),
        ("The", ["A"], (1, 1, 1, 1, 0)),  # nothing is left of either
        ("Paris", ["The"], (0, 0, 0, 0, 0)),  # nothing is in every text, and is no answer
    ],
)
def test_each_metric_gives_each_answer_what_its_paper_gives(answer, golds, worth):
    found = [METRICS[name](answer, golds) for name in METRICS]
    assert found == pytest.approx(worth, abs=1e-12)
    assert list(METRICS) == ["em", "sub_em", "f1", "f1_closed", "f1_of_sets"]


def test_alternatives_joined_in_one_string_are_never_matched():
    assert METRICS["em"]("Paris", ["Paris<|answer_split|>City of Paris"]) == 0


def test_an_unknown_metric_is_one_clear_line():
    with pytest.raises(UsageError, match="unknown metric of search 'emm'; did you mean em"):
        metric_of("emm")
