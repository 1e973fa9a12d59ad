"""A retrieval server over a local corpus that answers ``/retrieve`` as Search-R1's do.

It is for experiments: any trainer that speaks to a Search-R1 server can search the same articles as
the environment does. It listens on this machine alone unless it is told another address, where
every request needs a token (:mod:`agentgym.door`).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agentgym.door import ASK, Door
from agentgym.envs.search_retrieval import Hit, Retriever
from agentgym.errors import AgentGymError, DataError

TOPK = 3
"""Results a query where the client names no number. Search-R1's script starts its server so; its
class alone would take 10."""

_MOST_RESULTS = 100
_MOST_QUERIES = 256
_MOST_BYTES = 1 << 20  # of a request


class _BadRequestError(AgentGymError):
    """The request is not one that can be answered."""


def answer(retriever: Retriever, body: bytes) -> dict[str, Any]:
    """Return what the server sends for the body of a request.

    Raises:
        _BadRequestError: The body is no request.
        EnvFault: The retriever failed.
    """
    queries, k, with_scores = _read_request(body)
    results = retriever.search_all(queries, k)
    return {"result": [[_row(hit, with_scores) for hit in hits] for hits in results]}


def _read_request(body: bytes) -> tuple[list[str], int, bool]:
    try:
        request: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _BadRequestError(f"the request is no JSON: {error}") from error
    given = request if isinstance(request, dict) else {}
    queries, k = given.get("queries"), given.get("topk")
    if not isinstance(queries, list) or not all(isinstance(one, str) for one in queries):
        raise _BadRequestError('expected {"queries": ["…"], "topk": 3, "return_scores": true}')
    if len(queries) > _MOST_QUERIES:
        raise _BadRequestError(
            f"there are {len(queries)} queries, expected {_MOST_QUERIES} at most"
        )
    k = TOPK if k is None else k
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= _MOST_RESULTS:
        raise _BadRequestError(f"topk is {k!r}, expected 1 to {_MOST_RESULTS}")
    return queries, k, bool(given.get("return_scores", False))


def _row(hit: Hit, with_scores: bool) -> dict[str, Any]:
    document = {**asdict(hit.article), "contents": hit.article.contents}
    return {"document": document, "score": hit.score} if with_scores else document


class RetrievalServer(ThreadingHTTPServer):
    """The server; ``serve_forever`` runs it, ``server_close`` frees its port.

    Args:
        retriever: What finds.
        door: Where to listen, and who is let in.

    Raises:
        DataError: It cannot listen there.
    """

    daemon_threads = True

    def __init__(self, retriever: Retriever, door: Door | None = None) -> None:
        self.retriever = retriever
        self.door = door = door or Door()
        try:
            super().__init__((door.host, door.port), _Handler)
        except OSError as error:
            raise DataError(
                f"cannot listen on {door.host}:{door.port}: {error.strerror}; choose another with"
                " --port"
            ) from error

    @property
    def url(self) -> str:
        """Where the server is asked."""
        return f"http://{self.door.host}:{self.server_address[1]}/retrieve"


class _Handler(BaseHTTPRequestHandler):
    server: RetrievalServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds of silence after which a connection is closed
    wbufsize = -1  # head and body in one piece: the second would wait for the first to be received

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if not size.isdigit() or int(size) > _MOST_BYTES:
            self.close_connection = True  # what else was sent cannot be told from a next request
            self._send(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"send 1 to {_MOST_BYTES} bytes"}
            )
            return
        body = self.rfile.read(int(size))
        refused = self.server.door.refuses(self.headers)
        if refused is not None:
            self._send(refused, {"error": f"this server is {self.server.door.told}"})
            return
        if self.path != "/retrieve":
            self._send(HTTPStatus.NOT_FOUND, {"error": "queries are sent to /retrieve"})
            return
        try:
            self._send(HTTPStatus.OK, answer(self.server.retriever, body))
        except _BadRequestError as error:
            self._send(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except AgentGymError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": str(error)})

    def do_GET(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "POST a query to /retrieve"})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base names it so)
        """Say nothing: a line a query would drown what matters."""

    def _send(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        body = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (ASK if status is HTTPStatus.UNAUTHORIZED else {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
