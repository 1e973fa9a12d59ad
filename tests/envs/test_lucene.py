"""BM25 as Lucene computes it: scores by hand, ties, lengths, the saved index."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgym.envs.lucene import LuceneIndex


def test_scores_are_those_of_the_formula() -> None:
    index = LuceneIndex.build([("b", "red red cup"), ("a", "red mug")])
    # idf of red = ln(1 + 0.5 / 2.5) = 0.182322; mean length 2.5
    # a: 1 / (1 + 0.9 (0.6 + 0.4 * 2 / 2.5)) = 1 / 1.828 -> 0.099738
    # b: 2 / (2 + 0.9 (0.6 + 0.4 * 3 / 2.5)) = 2 / 2.972 -> 0.122693
    assert index.scores("red").tolist() == pytest.approx([0.099738, 0.122693], abs=1e-6)
    assert index.search("red", 2) == ("b", "a")


def test_a_term_that_is_asked_for_twice_weighs_twice() -> None:
    index = LuceneIndex.build([("a", "red mug"), ("b", "blue mug")])
    assert index.scores("red red").tolist() == pytest.approx([2 * index.scores("red")[0], 0])


def test_ties_are_broken_by_id_not_by_the_order_of_documents() -> None:
    index = LuceneIndex.build([("c", "mug"), ("a", "mug"), ("b", "mug"), ("d", "cup")])
    assert index.search("mug", 10) == ("a", "b", "c")
    assert index.search("mug", 2) == ("a", "b")


def test_lengths_are_kept_in_one_byte() -> None:
    def document(length: int) -> str:
        return " ".join(["mug", *(f"w{number}" for number in range(length - 1))])

    lengths = (39, 40, 41, 42, 1000, 1020)
    index = LuceneIndex.build((str(length), document(length)) for length in lengths)
    scores = dict(zip(sorted(map(str, lengths)), index.scores("mug").tolist(), strict=True))
    assert scores["39"] > scores["40"] == scores["41"] > scores["42"] > scores["1000"]
    assert scores["1000"] == scores["1020"]  # both are kept as 984


def test_what_is_in_no_document_finds_nothing() -> None:
    index = LuceneIndex.build([("a", "red mug")])
    assert index.search("green", 5) == ()
    assert index.search("the of", 5) == ()
    assert LuceneIndex.build([]).search("mug", 5) == ()


def test_documents_without_a_term_do_not_count() -> None:
    with_empty = LuceneIndex.build([("a", "red mug"), ("b", "blue mug"), ("c", "the")])
    without = LuceneIndex.build([("a", "red mug"), ("b", "blue mug")])
    assert with_empty.scores("red").tolist()[:2] == without.scores("red").tolist()


def test_a_saved_index_ranks_alike(tmp_path: Path) -> None:
    index = LuceneIndex.build([("b", "red red cup ★"), ("a", "red mug"), ("c", "")])
    index.save(tmp_path)
    opened = LuceneIndex.open(tmp_path)
    for query in ("red", "red mug", "★ cup", "none", "zzz", ""):
        assert opened.search(query, 5) == index.search(query, 5)
        assert opened.scores(query).tolist() == index.scores(query).tolist()
