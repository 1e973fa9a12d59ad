"""A retriever behind HTTP that speaks ``/retrieve`` as Search-R1's servers do.

The client sends ``{"queries": ["…"], "topk": 3, "return_scores": true}`` and is sent ``{"result":
[[{"document": {"id": "0", "contents": "…"}, "score": 1.0}, …]]}``, one inner list a query. What
goes wrong on the way is an error and never an empty result: an agent must not learn that there is
nothing to be found because a server was down. A token in ``$AGENTGYM_TOKEN`` goes with each query.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from agentgym.door import TOKEN, bearer
from agentgym.envs.search_corpus import split_contents
from agentgym.envs.search_data import Article
from agentgym.envs.search_retrieval import Hit
from agentgym.errors import DataError, EnvFault, UsageError
from agentgym.http_url import http_parts

if TYPE_CHECKING:
    import httpx2

TRIES = 4
TIMEOUT_S = 10.0
"""Of one try. All tries and waits together stay below the minute that a worker's step may take."""

_MOST_BYTES = 8 << 20  # of an answer
_FIRST_WAIT_S = 0.5  # doubles from try to try
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_NOT_NOW = frozenset({408, 425, 429})  # the statuses below 500 that may pass


class RemoteRetriever:
    """Asks a server, over one connection that is kept as long as both like.

    Args:
        url: Of the server, with or without ``/retrieve``.
        cache: A file (SQLite) that keeps what was found; None keeps nothing. Processes may share
            it. It knows a result by the server's address, the exact query and the number asked
            for, so delete it when the server's corpus changes.
        tries: How often a query is sent before it counts as failed; only what may pass is tried
            again: no connection, a time-out, a server error.
        timeout_s: Seconds of silence after which one try is given up: while it connects, sends, or
            waits for the answer. An answer that is longer on its way is one that failed.
        first_wait_s: Seconds before the second try; each further wait is twice as long.

    Raises:
        UsageError: The address is none, or carries a password.
        DataError: The cache cannot be opened.
    """

    def __init__(
        self,
        url: str,
        cache: str | None = None,
        tries: int = TRIES,
        timeout_s: float = TIMEOUT_S,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        parts = _address(url)
        if parts.username or parts.password:
            raise UsageError(
                f"the address of the retriever {parts.hostname} carries a password, which would be"
                f" written into logs and run folders; name it without, and set ${TOKEN}"
            )
        self.url = url.rstrip("/").removesuffix("/retrieve") + "/retrieve"
        self._direct = parts.hostname in _THIS_MACHINE
        self._client: httpx2.Client | None = None
        self._tries, self._timeout_s, self._first_wait_s = tries, timeout_s, first_wait_s
        self._cache = None if cache is None else DiskCache(Path(cache).expanduser())

    def search(self, query: str, k: int) -> tuple[Hit, ...]:
        """Return at most ``k`` articles, best first.

        Raises:
            EnvFault: The server did not answer, refused, or sent what is no result.
        """
        return self.search_all((query,), k)[0]

    def search_all(self, queries: Sequence[str], k: int) -> tuple[tuple[Hit, ...], ...]:
        """Return what :meth:`search` does for each query, asking once for all that is not kept.

        Raises:
            EnvFault: The server did not answer, refused, or sent what is no result.
        """
        bodies = {query: self._kept(query, k) for query in queries}
        new = [query for query, body in bodies.items() if body is None]
        found = {query: self._read(body, 1)[0] for query, body in bodies.items() if body}
        if new:
            body = self._ask({"queries": new, "topk": k, "return_scores": True})
            found |= zip(new, self._read(body, len(new)), strict=True)
            self._keep(new, k, body)
        return tuple(found[query][:k] for query in queries)  # some servers send more than asked for

    def close(self) -> None:
        """Close the connection; the next search opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _kept(self, query: str, k: int) -> str | None:
        return None if self._cache is None else self._cache.get(json.dumps([self.url, query, k]))

    def _keep(self, queries: Sequence[str], k: int, body: str) -> None:
        if self._cache is not None:
            for query, found in zip(queries, _lists(body, len(queries)), strict=True):
                key = json.dumps([self.url, query, k])
                self._cache.put(key, json.dumps({"result": [found]}))

    def _ask(self, question: dict[str, Any]) -> str:
        wait = self._first_wait_s
        for number in range(1, self._tries + 1):
            answer, said = self._try(question)
            if answer is not None and answer.is_success:
                return said
            why = said if answer is None else f"answers {_told(answer)}: {_short(said)}"
            if answer is not None and not _may_pass(answer.status_code):
                raise EnvFault(f"the retriever {self.url} {why}; see its own log")
            if number < self._tries:
                time.sleep(wait)
                wait *= 2
        raise EnvFault(
            f"the retriever {self.url} {why} ({self._tries} tries); start it, or see its log"
        )

    def _try(self, question: dict[str, Any]) -> tuple[httpx2.Response | None, str]:
        """Return an answer and its body; or None, and in words why there is none."""
        import httpx2  # only who asks a server waits for it

        if self._client is None:
            # A proxy is for the web; it does not know this machine's own address.
            self._client = httpx2.Client(
                timeout=self._timeout_s, trust_env=not self._direct, headers=bearer()
            )
        try:
            with self._client.stream("POST", self.url, json=question) as answer:
                return answer, self._receive(answer)
        except (httpx2.ConnectError, httpx2.InvalidURL) as error:
            return None, f"cannot be reached: {error}"
        except httpx2.HTTPError as error:  # cut off, too slow, or no HTTP
            return None, f"does not answer: {error}"

    def _receive(self, answer: httpx2.Response) -> str:
        """Return the body; a server that never comes to an end is not asked again."""
        until, body = time.monotonic() + self._timeout_s, bytearray()
        for part in answer.iter_bytes():
            body += part
            if len(body) > _MOST_BYTES:
                raise EnvFault(f"the retriever {self.url} sends more than {_MOST_BYTES:,} bytes")
            if time.monotonic() > until:
                raise EnvFault(
                    f"the retriever {self.url} sends its answer for longer than"
                    f" {self._timeout_s:g} seconds"
                )
        return body.decode(errors="replace")

    def _read(self, body: str, count: int) -> list[tuple[Hit, ...]]:
        try:
            return [tuple(map(_read_hit, found)) for found in _lists(body, count)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise EnvFault(
                f"the retriever {self.url} sent {_short(body)}, expected"
                ' {"result": [[{"document": {"id", "contents"}, "score"}, …]]}; is it a server'
                " that speaks /retrieve?"
            ) from error


def _address(url: str) -> SplitResult:
    """Return the parts of a server's address.

    Raises:
        UsageError: It is none.
    """
    parts = http_parts(url)
    if parts is None:
        shown = url.rpartition("@")[2]  # no password in a message
        raise UsageError(f"a retriever is the address of a server, http://…, got {shown!r}")
    return parts


def _may_pass(status: int) -> bool:
    return status >= 500 or status in _NOT_NOW


def _told(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {answer.reason_phrase}"


def _lists(body: str, count: int) -> list[list[Any]]:
    lists = json.loads(body)["result"]
    if len(lists) != count or not all(isinstance(one, list) for one in lists):
        raise ValueError(f"expected a list for each of {count} queries")
    return list(lists)


def _read_hit(row: dict[str, Any]) -> Hit:
    """Read one result; a server that knows no scores sends the document itself."""
    document = row.get("document", row)
    contents = document["contents"]
    title, text = split_contents(contents)
    return Hit(Article(str(document.get("id", "")), title, text), float(row.get("score", 0.0)))


def _short(body: str) -> str:
    line = " ".join(body.split())
    return repr(line[:80] + ("…" if len(line) > 80 else ""))


class DiskCache:
    """Text by text in one SQLite file, which any number of processes may use at once.

    Args:
        path: The file; it is made if it is not there.

    Raises:
        DataError: It cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS found (key TEXT PRIMARY KEY, body TEXT)")
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"cannot open the cache {path}: {error}; name another file, or delete it"
            ) from error

    def get(self, key: str) -> str | None:
        """Return what is kept for a key.

        Raises:
            EnvFault: The file cannot be read any more.
        """
        row = self._do("SELECT body FROM found WHERE key = ?", key)
        return None if row is None else str(row[0])

    def put(self, key: str, body: str) -> None:
        """Keep ``body`` for a key.

        Raises:
            EnvFault: The file cannot be written any more.
        """
        self._do("INSERT OR REPLACE INTO found VALUES (?, ?)", key, body)

    def _do(self, statement: str, *values: str) -> tuple[Any, ...] | None:
        # Opened for each use: the object then crosses threads and processes like any value.
        try:
            with closing(self._open()) as file, file:
                row: tuple[Any, ...] | None = file.execute(statement, values).fetchone()
                return row
        except sqlite3.Error as error:
            raise EnvFault(f"the cache {self._path} fails: {error}; delete it") from error

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30)
