"""The shop as web pages, to be looked at and shopped in by a person.

Every visitor has a session of their own, told by a cookie. The pages show what an agent reads,
text by text, as HTML: a person and an agent have the same buttons. Nothing is loaded from
elsewhere. Only this machine is answered unless another address is given, where every visitor needs
a token (:mod:`agentgym.door`).
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from agentgym.door import ASK, Door
from agentgym.envs import webshop_html
from agentgym.envs.webshop_catalogue import Catalogue, Goal
from agentgym.envs.webshop_pages import Page, show
from agentgym.envs.webshop_reward import score
from agentgym.envs.webshop_session import Place, Session
from agentgym.errors import UsageError, unknown

MAX_VISITORS = 200
"""Sessions that are kept; the one that was not used for longest is forgotten first."""

_COOKIE = "visitor"
_MAX_FORM = 4096  # bytes
_TIMEOUT = 10  # seconds that a visitor may take to send a request
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(slots=True)
class Visit:
    """One visitor's task and where they stand in it."""

    catalogue: Catalogue
    tasks: Sequence[str]
    number: int  # of the task in the suite
    session: Session = field(default_factory=Session)
    turns: int = 0  # actions so far

    @property
    def task(self) -> str:
        """The id of the task."""
        return self.tasks[self.number]

    @property
    def goal(self) -> Goal:
        """What is asked for."""
        return self.catalogue.goals[self.task]

    @property
    def score(self) -> float:
        """What the purchase is worth, in [0, 1]; 0 before it."""
        if self.session.place is not Place.DONE:
            return 0.0
        products = self.catalogue.products
        wanted, bought = products[self.goal.asin], products[self.session.asin]
        return score(self.goal, wanted, bought, self.session.options)

    def page(self) -> Page:
        """Return the page the visitor is on."""
        return show(self.catalogue, self.goal, self.session, self.score)

    def do(self, form: dict[str, str]) -> None:
        """Search, click, or go to the next task. What the page does not offer does nothing."""
        page = self.page()
        if "next" in form:
            self.number = (self.number + 1) % len(self.tasks)
            self.session, self.turns = Session(), 0
        elif self.session.place is Place.DONE:
            return
        elif form.get("search", "").strip():
            self.session.search(form["search"].lower(), self.catalogue.engine)
            self.turns += 1
        elif form.get("click") in set(page.clickables) - {"search"}:
            self.session.click(form["click"], dict(page.options))
            self.turns += 1


class Shop(ThreadingHTTPServer):
    """Serves one suite of WebShop to whoever visits.

    Args:
        catalogue: The shop.
        tasks: What visitors are asked to buy, one after the other.
        task: The first of them for every visitor; None begins at the first.
        door: Where to listen, and who is let in; :attr:`address` tells the port.

    Raises:
        UsageError: There is no such task, or it cannot listen there.
    """

    daemon_threads = True

    def __init__(
        self,
        catalogue: Catalogue,
        tasks: Sequence[str],
        task: str | None = None,
        door: Door | None = None,
    ) -> None:
        if task is not None and task not in tasks:
            raise unknown("task of the suite", task, tasks)
        self._catalogue, self._tasks = catalogue, tasks
        self._first = 0 if task is None else tasks.index(task)
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self.lock = threading.Lock()
        self.door = door = door or Door()
        try:
            super().__init__((door.host, door.port), _Handler)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {door.host}:{door.port}: {error.strerror}; choose another --port"
            ) from error

    @property
    def address(self) -> str:
        """Where to point a browser."""
        return f"http://{self.door.host}:{self.server_port}/"

    def visit(self, cookie: str) -> tuple[str, Visit]:
        """Return a visitor's session, a new one if the cookie is not known, and its cookie."""
        if cookie not in self._visits:
            cookie = secrets.token_urlsafe(16)
            self._visits[cookie] = Visit(self._catalogue, self._tasks, self._first)
            if len(self._visits) > MAX_VISITORS:
                self._visits.popitem(last=False)
        self._visits.move_to_end(cookie)
        return cookie, self._visits[cookie]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless a visitor just left in the middle of a page."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Shop
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        """Show the page that the visitor is on."""
        if self._refused():
            return
        with self.server.lock:
            cookie, visit = self.server.visit(self._cookie())
            body = webshop_html.render(
                visit.page(), visit.session, visit.task, visit.turns, visit.score
            )
        self._answer(HTTPStatus.OK, body, cookie)

    def do_POST(self) -> None:
        """Do what was clicked, then send the visitor to the page that it led to."""
        if self._refused():
            return
        form = self._form()
        if form is None:
            return
        with self.server.lock:
            cookie, visit = self.server.visit(self._cookie())
            visit.do(form)
        self._answer(HTTPStatus.SEE_OTHER, "", cookie, location="/")

    def _refused(self) -> bool:
        """Refuse what is not for this server: other paths, and other sites' names for it."""
        refused = self.server.door.refuses(self.headers)
        host = self.headers.get("Host", "")
        if refused is HTTPStatus.UNAUTHORIZED:
            self._ask()
        elif refused is not None:
            self.send_error(refused, "This shop is open to its own machine only")
        elif self.headers.get("Origin") not in {None, f"http://{host}", f"https://{host}"}:
            self.send_error(HTTPStatus.FORBIDDEN, "This form was sent by another site")
        elif self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            return False
        return True

    def _ask(self) -> None:
        """Let the browser ask its user for the token."""
        self.send_response(HTTPStatus.UNAUTHORIZED)
        for name, value in {**ASK, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _form(self) -> dict[str, str] | None:
        """Return the fields that were sent; None if they were refused."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
            return None
        if int(length) > _MAX_FORM:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        text = self.rfile.read(int(length)).decode("utf-8", "replace")
        return {name: values[0] for name, values in parse_qs(text).items()}

    def _cookie(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            return ""
        return found.value if found else ""

    def _answer(
        self, status: HTTPStatus, body: str, cookie: str, location: str | None = None
    ) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Set-Cookie", f"{_COOKIE}={cookie}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Content-Length", str(len(data)))
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Log nothing: a person shops here, and the terminal is theirs."""
