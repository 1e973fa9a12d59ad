"""A run as a page: served to this machine alone, or written as one file.

The page carries its style and its script; it loads nothing from elsewhere. A policy in its head
forbids every script but its own, so that text of a model stays text even where a view forgot to
treat it as such. The server listens on the loopback address unless it is told another, where every
request needs a token (:mod:`agentgym.door`), and serves no files: only what was read of the run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from agentgym.door import ASK, Door
from agentgym.errors import DataError, UsageError
from agentgym.files import make_folder, write_atomic
from agentgym.run_files import Run, open_run
from agentgym.view_data import Place, Reader, embedded, page_data

_PARTS = files("agentgym") / "data" / "view"
_SCRIPTS = ("dom.js", "charts.js", "list.js", "trajectory.js", "compare.js", "main.js")


def page(told: Mapping[str, Any], *, served: bool) -> str:
    """Return the page as HTML.

    Args:
        told: What it shows (see :mod:`agentgym.view_data`).
        served: Whether it may ask the server that it came from for more.
    """
    style = _part("style.css")
    script = '"use strict";\n' + "\n".join(_part(name) for name in _SCRIPTS)
    title = ", ".join(run["title"] for run in told["runs"])
    parts = {
        "policy": "; ".join(
            (
                "default-src 'none'",
                f"script-src '{_digest(script)}'",
                f"style-src '{_digest(style)}'",
                "connect-src 'self'" if served else "connect-src 'none'",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        "title": escape(f"{title} · agentgym"),
        "style": style,
        "script": script,
        "data": embeddable(told),
    }
    # Split once, so that nothing in a part is taken for the place of another.
    before, *places = _part("page.html").split("@")
    text = [before]
    for name, after in zip(places[::2], places[1::2], strict=True):
        text += [parts[name], after]
    return "".join(text)


def embeddable(told: Mapping[str, Any]) -> str:
    """Return JSON that may stand inside a ``script`` element: nothing in it can end the element."""
    return _json(told).replace("<", "\\u003c")


class Exported(NamedTuple):
    """What an exported page has of trajectories."""

    carried: int
    left_out: int
    problems: tuple[str, ...]  # a line for each thing that could not be read


def export(runs: Sequence[Run], out: Path, limit: int) -> Exported:
    """Write the page with trajectories in it as one file.

    Args:
        runs: What it shows.
        out: The file.
        limit: How many trajectories it carries at most.

    Raises:
        UsageError: ``out`` is a folder.
        DataError: The file cannot be written.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder; expected the name of a file, as report.html")
    carried = embedded(Reader(runs), limit)
    make_folder(out.parent)
    write_atomic(out, page(page_data(runs) | carried, served=False))
    told = carried["rows"]
    return Exported(len(carried["trajectories"]), told["left_out"], tuple(told["problems"]))


class ViewServer(ThreadingHTTPServer):
    """Serves the pages of runs.

    Args:
        folders: The run folders; they are read again when the page is loaded, so that a run can
            be watched while it goes.
        door: Where to listen, and who is let in.

    Raises:
        UsageError: It cannot listen there.
        DataError: A folder is no run.
    """

    daemon_threads = True

    def __init__(self, folders: Sequence[Path], door: Door | None = None) -> None:
        self.door = door = door or Door()
        self.folders = tuple(folders)
        self.reader = Reader([open_run(folder) for folder in folders])
        self.reading = Lock()  # one thread at a time reads files
        try:
            super().__init__((door.host, door.port), _Answer)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {door.host}:{door.port}: {error.strerror}; choose another --port"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.door.host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong with a request, but nothing of a page that did not wait for it."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[str, str] | None:
        """Return the kind and the text of what is at a path; None where there is nothing.

        Raises:
            DataError: It cannot be read.
        """
        with self.reading:
            if path == "/":
                runs = [open_run(folder) for folder in self.folders]
                self.reader = Reader(runs, self.reader.known)
                return "text/html", page(page_data(self.reader.runs), served=True)
            if path == "/rows":
                return "application/json", _json(self.reader.rows())
            if path == "/trajectory":
                return "application/json", _json(self.reader.trajectory(_place(query)))
        return None


class _Answer(BaseHTTPRequestHandler):
    server: ViewServer
    server_version = "agentgym"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        refused = self.server.door.refuses(self.headers)
        if refused is not None:
            self._send(refused, "text/plain", f"this page is at {self.server.url}")
            return
        try:
            asked = urlsplit(self.path)
        except ValueError as error:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", f"this is no address: {error}")
            return
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        try:
            answer = self.server.answer(asked.path, query)
        except DataError as error:
            self._send(404, "text/plain", str(error))
            return
        if answer is None:
            self._send(404, "text/plain", "there is nothing here")
        else:
            self._send(200, *answer)

    def _send(self, status: int, kind: str, text: str) -> None:
        content = text.encode("utf-8", errors="replace")
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            **(ASK if status == HTTPStatus.UNAUTHORIZED else {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_anything: object) -> None:
        """Say nothing of each request."""


def _place(query: Mapping[str, str]) -> Place:
    run, line = query.get("run", ""), query.get("line", "")
    if not (run.isdecimal() and line.isdecimal() and len(run + line) < 20):
        raise DataError("a trajectory is asked for as /trajectory?run=0&source=train/10&line=1")
    return Place(int(run), query.get("source", ""), int(line))


def _json(told: Any) -> str:
    """Return JSON; a date, which a configuration may have, is a text."""
    return json.dumps(told, allow_nan=False, separators=(",", ":"), default=str)


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
