"""The commands that serve an environment on this machine."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agentgym.envs.webshop import WebShopEnv
from agentgym.envs.webshop_serve import Shop


@contextmanager
def open_once(shop: Shop) -> Iterator[http.client.HTTPResponse]:
    """Serve one request, which is made here."""
    thread = threading.Thread(target=shop.handle_request)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", shop.server_port, timeout=5)
    connection.request("GET", "/")
    yield connection.getresponse()
    connection.close()
    thread.join()


def test_the_shop_is_served_with_the_task_that_was_asked_for(
    agentgym: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def serve_once(shop: Shop) -> None:
        with open_once(shop) as response:
            pages.append(response.read().decode())
        raise KeyboardInterrupt

    monkeypatch.setattr(Shop, "serve_forever", serve_once)
    suite, task = "webshop/gen-easy-test", "teas-21-2"
    ran = agentgym("envs", "serve", "webshop", "--suite", suite, "--task", task, "--port", "0")
    assert ran.code == 130
    assert "the shop is open at http://127.0.0.1:" in ran.out
    assert f"task {task}" in pages[0]
    wish = WebShopEnv(suite).catalogue.goals[task].instruction
    assert wish in pages[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "webshop/gen-tset"), "webshop/gen-test"),
        (("--task", "teas-99-0"), "unknown task of the suite"),
        (("--suite", "webshop/gen-test", "--data", "."), "reads no files"),
    ],
)
def test_a_shop_that_there_is_not_is_refused(
    agentgym: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    ran = agentgym("envs", "serve", "webshop", *arguments)
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        (("envs", "serve", "webshop"), "AGENTGYM_TOKEN"),
        (("envs", "serve", "search"), "AGENTGYM_TOKEN"),
        (("serve", "alfworld-tiny"), "VLLM_API_KEY"),
    ],
)
def test_nothing_is_served_to_other_machines_without_a_secret(
    agentgym: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    variable: str,
) -> None:
    monkeypatch.delenv(variable, raising=False)
    ran = agentgym(*command, "--host", "0.0.0.0", "--port", "0")
    assert ran.code == 2
    assert f"${variable}" in ran.err
