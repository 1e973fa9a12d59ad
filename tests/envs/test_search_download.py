"""The questions that can be downloaded are found under the names of their suites."""

import json
from pathlib import Path

import pytest

from agentgym.download import WORK_FOLDER
from agentgym.envs.search import PUBLISHED, SearchEnv
from agentgym.envs.search_datasets import load_questions
from agentgym.envs.search_download import QUESTIONS
from agentgym.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as it is after the download, with a question a file."""
    monkeypatch.setenv("AGENTGYM_SEARCH_DATA", str(tmp_path))
    row = {"question": "Who?", "answer": ["Ada"]}
    for file in QUESTIONS.files:
        (tmp_path / file.name).write_text(json.dumps(row))
    return tmp_path


def test_every_file_is_a_published_suite(folder: Path) -> None:
    found = load_questions(folder)
    assert len(found) == len(QUESTIONS.files)
    assert set(found) <= set(PUBLISHED)


def test_the_suite_that_is_suggested_can_be_loaded(folder: Path) -> None:
    assert QUESTIONS.default_folder() == folder
    corpus = folder / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "0", "contents": '"Ada"\nAda wrote programs.'}))
    env = SearchEnv(QUESTIONS.suite)
    assert len(env.suite.tasks) == 1


def test_what_is_still_being_downloaded_is_not_read(folder: Path) -> None:
    before = load_questions(folder)
    (folder / WORK_FOLDER).mkdir()
    (folder / WORK_FOLDER / "musique.jsonl").write_text("{")
    (folder / WORK_FOLDER / "nq.jsonl.part.json").write_text("{")
    assert load_questions(folder) == before


def test_without_questions_the_command_that_gets_some_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTGYM_SEARCH_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match="agentgym envs download search"):
        SearchEnv("search/hotpotqa")
