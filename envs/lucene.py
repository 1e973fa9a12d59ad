"""BM25 as Lucene computes it, to the last bit that decides an order.

No library ranks exactly as Lucene does: it keeps the length of a document in one byte, computes
in 32-bit floats, adds the scores of a query's terms in 64 bits and breaks ties by id. A benchmark
whose pages are Lucene's rankings needs all of it.

Source: Lucene's ``BM25Similarity`` and ``SmallFloat``; Anserini's ``SearchCollection``, for the
parameters, for breaking ties, and for query terms that occur twice, which weigh twice.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agentgym.envs.lucene_analysis import terms
from agentgym.envs.packed_strings import PackedStrings

K1 = 0.9
B = 0.4
"""Anserini's parameters; Lucene's own are 1.2 and 0.75."""

_QUERIES_KEPT = 4096
_EXACT_LENGTHS = 24  # document lengths that one byte keeps exactly

_Ints = npt.NDArray[np.int32]
_Floats = npt.NDArray[np.float32]


def _kept_length(length: int) -> int:
    """Return the byte that Lucene keeps of a document's length: exact to 24, then 3 bits."""
    rest = length - _EXACT_LENGTHS
    if rest < 0:
        return length
    shift = max(rest.bit_length() - 4, -1)
    code = rest if shift < 0 else (rest >> shift & 7) | (shift + 1 << 3)
    return _EXACT_LENGTHS + code


def _read_length(kept: int) -> int:
    """Return the length that a kept byte stands for."""
    code = kept - _EXACT_LENGTHS
    if code < 0:
        return kept
    shift = (code >> 3) - 1
    return _EXACT_LENGTHS + (code if shift < 0 else (code & 7 | 8) << shift)


class LuceneIndex:
    """An inverted index over documents; :meth:`build` makes one, :meth:`open` maps a saved one.

    Documents are numbered in the order of their ids, so that the smaller number wins a tie.
    """

    def __init__(
        self,
        ids: Sequence[str],
        vocabulary: Sequence[str],
        starts: npt.NDArray[np.int64],
        documents: _Ints,
        saturations: _Floats,
        filled: int,
    ) -> None:
        self._ids = ids  # sorted
        self._vocabulary = vocabulary  # sorted
        self._starts = starts  # of each term's postings, and the end of the last
        self._documents = documents  # of each posting
        self._saturations = saturations  # of each posting: 1 + frequency / length norm
        self._filled = filled  # documents that have a term
        self._rank_cached = lru_cache(maxsize=_QUERIES_KEPT)(self._rank)

    @classmethod
    def build(cls, documents: Iterable[tuple[str, str]]) -> LuceneIndex:
        """Index documents, each an id of its own and a text.

        Takes about 40 bytes a posting (a term of a document) while it works, 8 afterwards.
        """
        ids: list[str] = []
        vocabulary: dict[str, int] = {}
        lengths, used, owners, frequencies = (array("i") for _ in range(4))
        for number, (name, text) in enumerate(documents):
            counts = Counter(terms(text))
            ids.append(name)
            lengths.append(counts.total())
            used.extend(vocabulary.setdefault(term, len(vocabulary)) for term in counts)
            owners.extend([number] * len(counts))
            frequencies.extend(counts.values())
        term_numbers = _ranks(list(vocabulary))[_ints(used)]
        order = np.argsort(term_numbers, kind="stable")
        sizes = np.bincount(term_numbers, minlength=len(vocabulary))
        return cls(
            ids=sorted(ids),
            vocabulary=sorted(vocabulary),
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            documents=_ranks(ids)[_ints(owners)[order]],
            saturations=_saturations(_ints(lengths), _ints(owners), _ints(frequencies))[order],
            filled=int(np.count_nonzero(_ints(lengths))),
        )

    def save(self, folder: Path) -> None:
        """Write the index into a folder that is there."""
        PackedStrings.write(folder / "ids", self._ids)
        PackedStrings.write(folder / "vocabulary", self._vocabulary)
        np.save(folder / "starts.npy", self._starts)
        np.save(folder / "documents.npy", self._documents)
        np.save(folder / "saturations.npy", self._saturations)
        np.save(folder / "filled.npy", np.int64(self._filled))

    @classmethod
    def open(cls, folder: Path) -> LuceneIndex:
        """Map a saved index into memory; processes that do so share it."""
        return cls(
            ids=PackedStrings(folder / "ids"),
            vocabulary=PackedStrings(folder / "vocabulary"),
            starts=np.load(folder / "starts.npy", mmap_mode="r"),
            documents=np.load(folder / "documents.npy", mmap_mode="r"),
            saturations=np.load(folder / "saturations.npy", mmap_mode="r"),
            filled=int(np.load(folder / "filled.npy")),
        )

    def search(self, query: str, size: int) -> tuple[str, ...]:
        """Return the ids of at most ``size`` documents that have a term of the query, best first.

        Documents of equal score come in the order of their ids.
        """
        return self._rank_cached(query, size)

    def scores(self, query: str) -> _Floats:
        """Return each document's score, in the order of ids; 0 where no term is in it."""
        total = np.zeros(len(self._ids), np.float64)
        for term, count in Counter(terms(query)).items():
            number = bisect_left(self._vocabulary, term)
            if number == len(self._vocabulary) or self._vocabulary[number] != term:
                continue
            postings = slice(int(self._starts[number]), int(self._starts[number + 1]))
            weight = np.float32(count) * self._idf(postings.stop - postings.start)
            saturation = self._saturations[postings]
            total[self._documents[postings]] += weight - weight / saturation
        return total.astype(np.float32)

    def _idf(self, documents: int) -> np.float32:
        return np.float32(np.log(1 + (self._filled - documents + 0.5) / (documents + 0.5)))

    def _rank(self, query: str, size: int) -> tuple[str, ...]:
        scores = self.scores(query)
        found = np.flatnonzero(scores)
        if size < len(found):
            least = np.partition(scores[found], len(found) - size)[len(found) - size]
            found = found[scores[found] >= least]
        best = found[np.argsort(-scores[found], kind="stable")][:size]
        return tuple(self._ids[number] for number in best.tolist())


def _ranks(strings: list[str]) -> _Ints:
    """Return the place of each string among the sorted ones."""
    ranks = np.empty(len(strings), np.int32)
    ranks[sorted(range(len(strings)), key=strings.__getitem__)] = np.arange(len(strings))
    return ranks


def _ints(values: array[int]) -> _Ints:
    return np.frombuffer(values, np.int32) if values else np.empty(0, np.int32)


def _saturations(lengths: _Ints, owners: _Ints, frequencies: _Ints) -> _Floats:
    """Return ``1 + frequency / (k1 (1 - b + b length / mean length))`` of each posting.

    Every step is one of 32-bit floats, in Lucene's order; the length is the kept one.
    """
    if not len(lengths):
        return np.empty(0, np.float32)
    one, k1, b = np.float32(1), np.float32(K1), np.float32(B)
    filled = np.count_nonzero(lengths)
    mean = np.float32(lengths.sum(dtype=np.int64) / max(filled, 1))
    kept, where = np.unique(lengths, return_inverse=True)
    read = np.array([_read_length(_kept_length(one)) for one in kept.tolist()], np.float32)
    inverse = one / (k1 * ((one - b) + b * read / mean))
    return one + frequencies.astype(np.float32) * inverse[where][owners]
