"""BM25 over texts: an index that is built once, saved, and mapped into memory by who opens it.

Terms are those of Lucene's English analysis, and scores those of its formula: ``sum over query
terms of idf * tf / (tf + k1 (1 - b + b length / mean))`` with ``idf = ln(1 + (N - df + 0.5) / (df
+ 0.5))``, k1 0.9 and b 0.4 as the field's baselines take them (Pyserini). Lengths are exact here
and one byte in Lucene, so texts of nearly equal score may change places.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import bm25s
import numpy as np

from agentgym.envs.lucene import K1, B
from agentgym.envs.lucene_analysis import terms
from agentgym.errors import DataError


class BM25Index:
    """Which texts have the terms of a query, best first. Make one with :meth:`build`."""

    def __init__(self, engine: bm25s.BM25) -> None:
        self._engine = engine
        self._vocabulary: dict[str, int] = engine.vocab_dict

    @classmethod
    def build(cls, texts: Iterable[str]) -> BM25Index:
        """Index texts; they are numbered from 0 in their order.

        Raises:
            DataError: There is none, or not a term in any.
        """
        known: dict[str, int] = {}
        rows = [[known.setdefault(term, len(known)) for term in terms(text)] for text in texts]
        if not known:
            raise DataError("there is nothing to search in: the corpus has not a single word")
        engine = bm25s.BM25(method="lucene", k1=K1, b=B)
        engine.index((rows, known), create_empty_token=False, show_progress=False)
        return cls(engine)

    def __len__(self) -> int:
        return int(self._engine.scores["num_docs"])

    def top(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the numbers and scores of the best texts that share a term with ``query``.

        At most ``k``; of equal scores the lower number comes first. A term that is there twice
        counts twice.
        """
        ids = [self._vocabulary[term] for term in terms(query) if term in self._vocabulary]
        if not ids:
            return []
        scores = self._engine.get_scores_from_ids(ids)
        least = np.partition(scores, -k)[-k] if k < len(scores) else 0.0
        found = np.flatnonzero((scores >= least) & (scores > 0))
        best = found[np.argsort(-scores[found], kind="stable")[:k]]
        return [(int(number), float(scores[number])) for number in best]

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        self._engine.save(str(folder), show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> BM25Index:
        """Map a saved index into memory: processes that load the same one share it."""
        return cls(bm25s.BM25.load(str(folder), mmap=True, show_progress=False))
