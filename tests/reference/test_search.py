"""Search over real questions and articles; run by `make test-reference`.

``AGENTGYM_REFERENCE_DATA`` names a folder with ``hotpot100_corpus.jsonl`` (the 1,000 paragraphs
of 100 hard HotpotQA questions), ``hotpot100_qa.json`` and ``qa_<data set>.jsonl``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agentgym.envs.check import check_env
from agentgym.envs.search import SearchEnv
from agentgym.envs.search_datasets import load_questions
from agentgym.envs.search_retrieval import open_corpus

pytestmark = pytest.mark.reference

TOLERANCE = 2  # questions of 100


@pytest.fixture
def hotpot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the closed world."""
    named = os.environ.get("AGENTGYM_REFERENCE_DATA")
    if named is None:
        pytest.fail("AGENTGYM_REFERENCE_DATA is not set; it names the folder of reference data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "hotpot"
    folder.mkdir()
    for name in ("hotpot100_corpus.jsonl", "hotpot100_qa.json"):
        shutil.copy(Path(named) / name, folder)
    return folder


@pytest.mark.parametrize(("k", "expected"), [(3, 57), (10, 86)])
def test_one_search_finds_the_answer_of_so_many_of_100_questions(
    hotpot: Path, k: int, expected: int
) -> None:
    retriever = open_corpus(str(hotpot / "hotpot100_corpus.jsonl"))
    (questions,) = load_questions(hotpot).values()
    assert (len(retriever.articles), len(questions)) == (1000, 100)
    found = 0
    for question in questions:
        hits = retriever.search(question.text, k)
        contents = [hit.article.contents.lower() for hit in hits]
        found += any(question.answers[0].lower() in one for one in contents)
    assert abs(found - expected) <= TOLERANCE


@pytest.mark.parametrize("protocol", ["search_r1", "tool_call", "arpo"])
def test_the_closed_world_passes_every_environment_check(hotpot: Path, protocol: str) -> None:
    findings = check_env(
        lambda: SearchEnv("search/folder", data=str(hotpot), protocol=protocol), tasks=10
    )
    assert [one for one in findings if not one.passed] == []


def test_the_kinds_of_questions_are_those_of_the_data_set(hotpot: Path) -> None:
    env = SearchEnv("search/folder", data=str(hotpot))
    kinds = [env.task_type(task) for task in env.suite.tasks]
    assert {kind: kinds.count(kind) for kind in kinds} == {"bridge": 85, "comparison": 15}


@pytest.mark.parametrize(
    ("name", "size"), [("hotpotqa", 200), ("2wiki", 200), ("musique", 200), ("bamboogle", 125)]
)
def test_published_json_lines_are_read_whole(
    hotpot: Path, tmp_path: Path, name: str, size: int
) -> None:
    folder = tmp_path / "published" / name
    folder.mkdir(parents=True)
    source = Path(os.environ["AGENTGYM_REFERENCE_DATA"]) / f"qa_{name}.jsonl"
    shutil.copy(source, folder / "test.jsonl")
    env = SearchEnv(
        f"search/{'2wikimultihopqa' if name == '2wiki' else name}",
        data=str(folder.parent),
        corpus=str(hotpot / "hotpot100_corpus.jsonl"),
    )
    assert len(env.suite.tasks) == size
