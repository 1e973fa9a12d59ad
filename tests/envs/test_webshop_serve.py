"""The shop as web pages, over a real socket: a person can shop, and nothing else gets in."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from urllib.parse import urlencode

import pytest

from agentgym.door import Door
from agentgym.envs import webshop_serve
from agentgym.envs.webshop_catalogue import Catalogue
from agentgym.envs.webshop_generate import catalogue
from agentgym.envs.webshop_serve import Shop
from agentgym.errors import UsageError

SUITE = "gen-easy-test"
EVIL = "<script>alert('&\"')</script>"


class Visitor:
    """A browser: it keeps its cookie and follows redirects."""

    def __init__(self, shop: Shop) -> None:
        self.port = shop.server_port
        self.cookie = ""
        self.status = 0
        self.headers: dict[str, str] = {}

    def get(self, path: str = "/", **headers: str) -> str:
        return self.send("GET", path, "", headers)

    def post(self, **form: str) -> str:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = self.send("POST", "/", urlencode(form), headers)
        return self.get() if self.status == 303 else body

    def send(self, method: str, path: str, body: str, headers: dict[str, str]) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        cookie = {"Cookie": self.cookie} if self.cookie else {}
        connection.request(method, path, body or None, cookie | headers)
        response = connection.getresponse()
        self.status, self.headers = response.status, dict(response.getheaders())
        if "Set-Cookie" in self.headers:
            self.cookie = self.headers["Set-Cookie"].partition(";")[0]
        text = response.read().decode()
        connection.close()
        return text


def serve(shop: Catalogue, **options: object) -> Iterator[Shop]:
    with Shop(shop, shop.splits[SUITE], **options) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    yield from serve(catalogue(SUITE))


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    return Visitor(shop)


def buttons(page: str) -> list[str]:
    return [unescape(one) for one in re.findall(r'name="click" value="([^"]*)"', page)]


def test_a_person_can_shop_what_is_asked_for(visitor: Visitor) -> None:
    everything = catalogue(SUITE)
    goal = everything.goals[everything.splits[SUITE][0]]
    product = everything.products[goal.asin]
    page = visitor.get()
    assert visitor.status == 200
    assert goal.instruction in unescape(page)
    page = visitor.post(search=product.title)
    assert goal.asin.lower() in buttons(page)
    page = visitor.post(click=goal.asin.lower())
    assert product.title in unescape(page)
    for _, value in goal.options:
        assert value in buttons(page)
        page = visitor.post(click=value)
        assert f'value="{value}" class="chosen"' in page
    page = visitor.post(click="buy now")
    assert "<b>1.00</b> of 1.00" in page
    assert "4 actions" in page  # search, product, its only option, buy


def test_after_a_purchase_nothing_but_the_next_task_does_anything(visitor: Visitor) -> None:
    everything = catalogue(SUITE)
    visitor.post(search="lamp")
    visitor.post(click=buttons(visitor.get())[2])
    bought = visitor.post(click="buy now")
    assert "Your score" in bought
    assert visitor.post(search="lamp") == bought
    second = everything.goals[everything.splits[SUITE][1]]
    assert second.instruction in unescape(visitor.post(next="task"))
    assert "0 actions" in visitor.get()


def test_what_a_page_does_not_offer_does_nothing(visitor: Visitor) -> None:
    before = visitor.get()
    assert visitor.post(click="buy now") == before
    assert visitor.post(click="search") == before
    assert visitor.post(search="   ") == before
    assert visitor.post() == before


def test_visitors_do_not_see_each_other(shop: Shop) -> None:
    one, two = Visitor(shop), Visitor(shop)
    start = one.get()
    two.get()
    assert one.cookie != two.cookie
    one.post(search="lamp")
    assert two.get() == start != one.get()


def test_a_cookie_that_is_not_known_begins_anew(visitor: Visitor) -> None:
    start = visitor.get()
    for cookie in ("visitor=made-up", "visitor=", "a=b; c", ';;="'):
        visitor.cookie = cookie
        assert visitor.get() == start


def test_sessions_do_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webshop_serve, "MAX_VISITORS", 2)
    for shop in serve(catalogue(SUITE)):
        first, second, third = Visitor(shop), Visitor(shop), Visitor(shop)
        start = first.get()
        first.post(search="lamp")
        second.post(search="lamp")
        first.get()  # used last, so the second is forgotten
        third.get()
        assert first.get() != start
        assert second.get() == start


def test_every_text_is_escaped() -> None:
    plain = catalogue(SUITE)
    task = plain.splits[SUITE][0]
    goal = replace(plain.goals[task], instruction=EVIL)
    product = replace(
        plain.products[goal.asin],
        title=EVIL,
        description=EVIL,
        features=(EVIL,),
        price_tag=EVIL,
        options={EVIL: (EVIL.lower(),)},
    )
    evil = replace(
        plain, goals=plain.goals | {task: goal}, products=plain.products | {goal.asin: product}
    )
    title = plain.products[goal.asin].title
    for shop in serve(evil):
        visitor = Visitor(shop)
        pages = [visitor.get(), visitor.post(search=f"{title} {EVIL}")]
        pages.append(visitor.post(click=goal.asin.lower()))
        pages.append(visitor.post(click=EVIL.lower()))
        for sub in ("description", "features", "reviews"):
            pages += [visitor.post(click=sub), visitor.post(click="< prev")]
        pages.append(visitor.post(click="buy now"))
        assert "Your score" in pages[-1]
        assert all("<script" not in page for page in pages)
        assert all("&lt;script&gt;" in page for page in pages[:-1])


def test_nothing_is_loaded_from_elsewhere_and_no_page_is_framed(visitor: Visitor) -> None:
    page = visitor.get()
    assert not re.search(r"(src|href)=|url\(", page)
    policy = visitor.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "HttpOnly" in visitor.headers["Set-Cookie"]
    assert "SameSite=Strict" in visitor.headers["Set-Cookie"]


@pytest.mark.parametrize("path", ["/index.html", "/../../etc/passwd", "/?a=b"])
def test_there_is_one_page_only(visitor: Visitor, path: str) -> None:
    visitor.get(path)
    assert visitor.status == 404


def test_another_name_for_this_machine_is_refused(visitor: Visitor) -> None:
    visitor.get(Host=f"shop.example:{visitor.port}")
    assert visitor.status == 403


def test_a_form_of_another_site_is_refused(visitor: Visitor) -> None:
    visitor.send("POST", "/", "next=task", {"Origin": "http://shop.example"})
    assert visitor.status == 403
    visitor.send("POST", "/", "next=task", {"Origin": f"http://127.0.0.1:{visitor.port}"})
    assert visitor.status == 303


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"Content-Length": "4097"}, 413),
        ("POST", {"Content-Length": "-1"}, 411),
        ("POST", {"Content-Length": "many"}, 411),
        ("PUT", {}, 501),
    ],
)
def test_a_bad_request_is_refused_and_the_shop_stays_open(
    visitor: Visitor, method: str, headers: dict[str, str], status: int
) -> None:
    visitor.send(method, "/", "", headers)
    assert visitor.status == status
    assert "Search" in visitor.get()


def test_it_listens_on_this_machine_only(shop: Shop) -> None:
    assert shop.server_address[0] == "127.0.0.1"
    assert shop.address == f"http://127.0.0.1:{shop.server_port}/"


def test_a_shop_for_other_machines_is_open_to_who_has_the_token() -> None:
    door = Door("0.0.0.0", token="a secret of mine")
    with contextmanager(serve)(catalogue(SUITE), door=door) as shop:
        stranger = Visitor(shop)
        assert "Search" not in stranger.get()
        assert stranger.status == 401
        assert "password" in stranger.headers["WWW-Authenticate"]
        assert "Search" in stranger.get(Authorization="Bearer a secret of mine")


def test_a_task_that_is_not_there_and_a_port_that_is_taken_are_refused(shop: Shop) -> None:
    everything = catalogue(SUITE)
    with pytest.raises(UsageError, match="womens-dresses-20-0"):
        Shop(everything, everything.splits[SUITE], task="womens-dresses-20-9")
    with pytest.raises(UsageError, match="--port"):
        Shop(everything, everything.splits[SUITE], door=Door(port=shop.server_port))


def test_shopping_begins_at_the_task_that_was_asked_for() -> None:
    everything = catalogue(SUITE)
    task = everything.splits[SUITE][7]
    for shop in serve(everything, task=task):
        assert everything.goals[task].instruction in unescape(Visitor(shop).get())
