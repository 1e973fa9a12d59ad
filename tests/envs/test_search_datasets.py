"""Questions as papers publish them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from agentgym.envs.search_data import Question
from agentgym.envs.search_datasets import data_folder, find_corpus, load_questions, read_question
from agentgym.errors import DataError

SEARCH_R1 = {
    "id": "test_0",
    "question": "who wrote it?",
    "golden_answers": ["Ann Lee", "A. Lee"],
    "data_source": "nq",
    "prompt": [{"role": "user", "content": "Answer. <answer> Beijing </answer> Question: who?\n"}],
    "ability": "fact-reasoning",
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Ann Lee", "A. Lee"]}},
    "extra_info": {"split": "test", "index": 0},
}
VERL = {key: SEARCH_R1[key] for key in ("data_source", "prompt", "reward_model", "extra_info")}
IGPO = {
    "data_source": "2wiki",
    "prompt": [{"role": "user", "content": "Who wrote it?"}],
    "ability": "qa",
    "reward_model": {"style": "unknown", "ground_truth": "Ann Lee<|answer_split|>A. Lee"},
    "extra_info": {"split": "test", "index": 1},
}
ARPO = {
    "data_source": "musique",
    "prompt": [{"role": "system", "content": "put it in \boxed{}"}, {"content": "Who  wrote it?"}],
    "ability": "qa",
    "reward_model": {"style": "rule", "ground_truth": "Ann Lee"},
    "extra_info": {"index": 2, "question": "Who  wrote it?", "split": "train"},
}


@pytest.mark.parametrize(
    ("row", "text", "answers"),
    [
        (SEARCH_R1, "who wrote it?", ("Ann Lee", "A. Lee")),
        (VERL, "who?", ("Ann Lee", "A. Lee")),
        (IGPO, "Who wrote it?", ("Ann Lee", "A. Lee")),  # alternatives, not one string
        (ARPO, "Who wrote it?", ("Ann Lee",)),
        ({"question": "q", "answer": ["a", "b", "a"]}, "q", ("a", "b")),
        ({"question": "q", "answer": "yes"}, "q", ("yes",)),
        ({"question": "q", "golden_answers": [1912]}, "q", ("1912",)),
        ({"prompt": {"content": "Question: q"}, "answer": "a"}, "q", ("a",)),
        ({"prompt": "Question: q", "answer": "a"}, "q", ("a",)),
        ({"question": "q", "answer": "a", "extra_info": "s", "reward_model": "r"}, "q", ("a",)),
    ],
)
def test_each_papers_rows_have_a_question_and_its_alternatives(row, text, answers):
    assert read_question(row, "test-0", "nq") == Question("test-0", text, answers, "nq")


def test_a_row_that_names_its_type_has_it():
    row = {"question": "q", "answer": "a", "type": "bridge"}
    assert read_question(row, "x", "hotpotqa").kind == "bridge"


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        ({"answer": "a"}, "no question"),
        ({"question": " ", "answer": "a", "prompt": []}, "no question"),
        ({"answer": "a", "prompt": [7]}, "no question"),
        ({"question": "q"}, "no answer"),
        ({"question": "q", "answer": [" ", ""]}, "no answer"),
        ({"question": "q", "reward_model": {"ground_truth": {"target": []}}}, "no answer"),
    ],
)
def test_a_row_without_question_or_answer_is_named(row, missing):
    with pytest.raises(DataError, match=f"question test-3 has {missing}; expected question and"):
        read_question(row, "test-3", "nq")


@pytest.mark.parametrize(
    "answer", [{"value": "Paris", "aliases": ["the city"]}, [["Paris"]], [None], ["a", {}]]
)
def test_what_is_no_answer_is_not_taken_for_its_spelling(answer):
    with pytest.raises(DataError, match=r"test-3 has the answer .*expected a text, a number"):
        read_question({"question": "q", "answer": answer}, "test-3", "nq")


def write_rows(path: Path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_are_gathered_by_data_set_whatever_file_they_are_in(tmp_path):
    own = {"question": "q", "answer": "a"}
    write_rows(tmp_path / "test.jsonl", SEARCH_R1, IGPO, {**own, "data_source": "Bamboogle"})
    write_rows(tmp_path / "hotpotqa" / "test.jsonl", own, own)
    write_rows(tmp_path / "train_10k.jsonl", ARPO, {**ARPO, "ability": "math"})
    (tmp_path / "mine.json").write_text(json.dumps([own]))
    write_rows(tmp_path / "wiki_corpus.jsonl", {"contents": "x"})
    (tmp_path / "README.md").write_text("not a question")
    found = load_questions(tmp_path)
    assert {name: [one.id for one in questions] for name, questions in found.items()} == {
        "nq": ["test-0"],
        "2wikimultihopqa": ["test-1"],
        "bamboogle": ["test-2"],
        "hotpotqa": ["hotpotqa/test-0", "hotpotqa/test-1"],
        "mine": ["mine-0"],
        "train": ["train_10k-0"],  # without the mathematics
    }
    assert found["train"][0].kind == "musique"


def test_files_that_differ_in_their_suffix_alone_keep_all_their_questions(tmp_path):
    own = {"question": "q", "answer": "a"}
    write_rows(tmp_path / "mine.jsonl", own)
    (tmp_path / "mine.json").write_text(json.dumps([own]))
    assert [one.id for one in load_questions(tmp_path)["mine"]] == ["mine.json-0", "mine.jsonl-0"]


def test_files_that_change_are_read_again(tmp_path):
    write_rows(tmp_path / "mine.jsonl", {"question": "q", "answer": "a"})
    assert load_questions(tmp_path)["mine"][0].answers == ("a",)
    write_rows(tmp_path / "mine.jsonl", {"question": "q", "answer": "another"})
    assert load_questions(tmp_path)["mine"][0].answers == ("another",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"question": "q", "answer": "a"}\n{', r"cannot read .*x\.jsonl, line 2: "),
        ("x.json", "[", r"cannot read .*x\.json: .*get the file again"),
        ("x.json", "[" * 100_000, r"cannot read .*x\.json: "),
        ("x.jsonl", "[1]\n", r"x\.jsonl, row 0 is '\[1\]'; expected an object"),
        ("x.jsonl", '{"question": "q"}', "question x-0 has no answer"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_questions(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_in_another_encoding_is_one_clear_line(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"cannot read .*x\.jsonl: .*utf-8"):
        load_questions(tmp_path)


def test_a_folder_without_questions_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"has no questions; expected a \.jsonl, \.json or"):
        load_questions(tmp_path)


def test_the_data_folder_is_the_one_named_or_that_of_the_variable_or_the_cache(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("AGENTGYM_SEARCH_DATA", raising=False)
    with pytest.raises(DataError, match=r"there is no folder .*agentgym/search with questions"):
        data_folder(None)
    (tmp_path / "agentgym" / "search").mkdir(parents=True)
    assert data_folder(None) == tmp_path / "agentgym" / "search"
    monkeypatch.setenv("AGENTGYM_SEARCH_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder(str(tmp_path / "agentgym")) == tmp_path / "agentgym"


def test_the_corpus_of_a_folder_is_the_file_that_says_so(tmp_path):
    assert find_corpus(tmp_path) is None
    write_rows(tmp_path / "sub" / "my_Corpus.jsonl", {"contents": "x"})
    assert find_corpus(tmp_path) == tmp_path / "sub" / "my_Corpus.jsonl"
    write_rows(tmp_path / "corpus.jsonl", {"contents": "x"})
    with pytest.raises(DataError, match=r"more than one corpus: corpus\.jsonl, sub/my_"):
        find_corpus(tmp_path)


def test_parquet_has_the_rows_that_json_lines_have(tmp_path):
    pyarrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([SEARCH_R1]), tmp_path / "test.parquet")
    from_parquet = load_questions(tmp_path)
    (tmp_path / "test.parquet").unlink()
    write_rows(tmp_path / "test.jsonl", SEARCH_R1)
    assert from_parquet == load_questions(tmp_path)


def test_broken_parquet_is_one_clear_line(tmp_path):
    (tmp_path / "test.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"cannot read .*test\.parquet: .*get it again"):
        load_questions(tmp_path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    def absent(name: str):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    (tmp_path / "test.parquet").write_text("")
    with pytest.raises(DataError, match=r"needs pyarrow: pip install 'agentgym\[search\]'"):
        load_questions(tmp_path)
