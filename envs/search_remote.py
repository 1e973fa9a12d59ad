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
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentgym.door import TOKEN, bearer
from agentgym.envs.search_corpus import split_contents
from agentgym.envs.search_data import Article
from agentgym.envs.search_retrieval import Hit
from agentgym.errors import DataError, EnvFault, UsageError

if TYPE_CHECKING:
    import httpx2

TRIES = 4
TIMEOUT_S = 10.0
"""Of one try. All tries and waits together stay below the minute that a worker's step may take."""

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
        timeout_s: Seconds that one try may take.
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
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UsageError(f"a retriever is the address of a server, http://…, got {url!r}")
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
        key = json.dumps([self.url, query, k])
        body = None if self._cache is None else self._cache.get(key)
        if body is None:
            body = self._ask({"queries": [query], "topk": k, "return_scores": True})
            hits = self._read(body)
            if self._cache is not None:
                self._cache.put(key, body)
            return hits
        return self._read(body)

    def close(self) -> None:
        """Close the connection; the next search opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, question: dict[str, Any]) -> str:
        wait = self._first_wait_s
        for number in range(1, self._tries + 1):
            answer, why = self._try(question)
            if answer is not None and answer.is_success:
                return answer.text
            if answer is not None and not _may_pass(answer.status_code):
                raise EnvFault(f"the retriever {self.url} {why}; see its own log")
            if number < self._tries:
                time.sleep(wait)
                wait *= 2
        raise EnvFault(
            f"the retriever {self.url} {why} ({self._tries} tries); start it, or see its log"
        )

    def _try(self, question: dict[str, Any]) -> tuple[httpx2.Response | None, str]:
        """Return what came, and in words what is wrong about it."""
        import httpx2  # only who asks a server waits for it

        if self._client is None:
            # A proxy is for the web; it does not know this machine's own address.
            self._client = httpx2.Client(
                timeout=self._timeout_s, trust_env=not self._direct, headers=bearer()
            )
        try:
            answer = self._client.post(self.url, json=question)
        except httpx2.ConnectError as error:
            return None, f"cannot be reached: {error}"
        except httpx2.HTTPError as error:  # cut off, too slow, or no HTTP
            return None, f"does not answer: {error}"
        told = f"{answer.status_code} {answer.reason_phrase}: {_short(answer.content[:200])}"
        return answer, f"answers {told}"

    def _read(self, body: str) -> tuple[Hit, ...]:
        try:
            (result,) = json.loads(body)["result"]
            return tuple(_read_hit(one) for one in result)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise EnvFault(
                f"the retriever {self.url} sent {_short(body)}, expected"
                ' {"result": [[{"document": {"id", "contents"}, "score"}, …]]}; is it a server'
                " that speaks /retrieve?"
            ) from error


def _may_pass(status: int) -> bool:
    return status >= 500 or status in _NOT_NOW


def _read_hit(row: dict[str, Any]) -> Hit:
    """Read one result; a server that knows no scores sends the document itself."""
    document = row.get("document", row)
    contents = document["contents"]
    title, text = split_contents(contents)
    return Hit(Article(str(document.get("id", "")), title, text), float(row.get("score", 0.0)))


def _short(body: str | bytes) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    line = " ".join(text.split())
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
