"""What answers a query: an index in this process. What a server answers is in its own module.

An index is built once, kept in the user's cache folder and mapped into memory from then on, so
that any number of environment processes start at once and share one copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from agentgym.envs.search_corpus import WIKI_OFFLINE, JsonlArticles, scan_jsonl, wiki_offline
from agentgym.envs.search_data import Article
from agentgym.envs.search_generate import SETS, generate
from agentgym.envs.search_index import BM25Index
from agentgym.errors import DataError
from agentgym.files import cache_folder, make_once

_FORMAT = "agentgym search index 1"  # a change makes older saved indexes unknown
_OFFSETS = "offsets.npy"


@dataclass(frozen=True, slots=True)
class Hit:
    """An article that was found, and how well it fits: more is better, units are the engine's."""

    article: Article
    score: float


class Retriever(Protocol):
    """Finds articles."""

    def search(self, query: str, k: int) -> tuple[Hit, ...]:
        """Return at most ``k`` articles, best first; none where nothing fits.

        Raises:
            EnvFault: The engine failed. That is never told as an empty result.
        """

    def search_all(self, queries: Sequence[str], k: int) -> tuple[tuple[Hit, ...], ...]:
        """Return what :meth:`search` does, for each of several queries.

        Raises:
            EnvFault: The engine failed.
        """


class LocalRetriever:
    """BM25 in this process.

    Args:
        articles: What can be found.
        index: Over their contents, in the same order.
    """

    def __init__(self, articles: Sequence[Article], index: BM25Index) -> None:
        self.articles = articles
        self._index = index

    def search(self, query: str, k: int) -> tuple[Hit, ...]:
        """Return at most ``k`` articles that share a term with the query, best first."""
        found = self._index.top(query, k)
        return tuple(Hit(self.articles[number], score) for number, score in found)

    def search_all(self, queries: Sequence[str], k: int) -> tuple[tuple[Hit, ...], ...]:
        """Search for one query after the other."""
        return tuple(self.search(query, k) for query in queries)


@lru_cache(maxsize=4)
def retriever_over(articles: tuple[Article, ...]) -> LocalRetriever:
    """Return a retriever over articles in memory; their index is kept by their contents.

    Raises:
        DataError: There is no article, or the index cannot be saved.
    """
    contents = [one.contents for one in articles]
    known_by = hashlib.sha256("\0".join((_FORMAT, *contents)).encode()).hexdigest()

    def save(folder: Path) -> None:
        BM25Index.build(contents).save(folder)

    folder = _saved(known_by, save)
    return LocalRetriever(articles, _load(folder))


def open_corpus(corpus: str) -> LocalRetriever:
    """Return a retriever over a corpus; the first time its index is made, which takes a while.

    Args:
        corpus: The path of a JSONL file, ``wiki-offline``, or a generated set as ``gen-train``.

    Raises:
        DataError: It is not there, or broken; or the index cannot be saved.
    """
    if corpus in SETS:
        return retriever_over(generate(corpus).articles)
    if corpus == WIKI_OFFLINE:
        return retriever_over(wiki_offline())
    path = corpus_file(corpus)
    status = path.stat()
    return _open_file(path, status.st_size, status.st_mtime_ns)


def corpus_file(corpus: str) -> Path:
    """Return the path of a corpus file.

    Raises:
        DataError: It is not there.
    """
    path = Path(corpus).expanduser().resolve()
    if not path.is_file():
        raise DataError(
            f"there is no corpus file {path}; corpus names a JSONL file with an article a line,"
            f" {WIKI_OFFLINE} or one of {', '.join(SETS)}"
        )
    return path


@lru_cache(maxsize=4)
def _open_file(path: Path, size: int, changed_ns: int) -> LocalRetriever:
    # A corpus may be larger than memory: it is known by its file, its articles stay there.
    known_by = hashlib.sha256(f"{_FORMAT}\0{path}\0{size}\0{changed_ns}".encode()).hexdigest()

    def save(folder: Path) -> None:
        offsets: list[int] = []

        def contents(begin: int, article: Article) -> str:
            offsets.append(begin)
            return article.contents

        texts = (contents(begin, article) for begin, article in scan_jsonl(path))
        BM25Index.build(texts).save(folder)
        np.save(folder / _OFFSETS, np.array(offsets, dtype=np.int64))

    folder = _saved(known_by, save)
    offsets = np.load(folder / _OFFSETS, mmap_mode="r")
    return LocalRetriever(JsonlArticles(path, offsets), _load(folder))


def _load(folder: Path) -> BM25Index:
    try:
        return BM25Index.load(folder)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"cannot open the index {folder}: {error}; delete that folder, and it is built again"
        ) from error


def _saved(known_by: str, save: Callable[[Path], None]) -> Path:
    return make_once(cache_folder() / "search-indexes" / known_by[:32], save)
