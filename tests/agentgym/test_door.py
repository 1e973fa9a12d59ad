"""Who is let in to what listens."""

import base64
from email.message import Message

import pytest

from agentgym.door import Door, bearer, is_loopback, open_door
from agentgym.errors import UsageError

SECRET = "0123456789abcdef"


def headers(**given: str) -> Message:
    message = Message()
    for name, value in given.items():
        message[name] = value
    return message


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "localhost:80", "[::1]:80", "[::1]"])
def test_on_the_loopback_address_who_names_it_is_let_in(host: str) -> None:
    assert Door().refuses(headers(Host=host)) is None


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:80", "10.0.0.1", "127.0.0.1.io"]
)
def test_on_the_loopback_address_another_name_is_refused(host: str) -> None:
    assert Door().refuses(headers(Host=host)) == 403


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {SECRET}", None),
        (f"bearer {SECRET} ", None),
        (basic(f"anybody:{SECRET}"), None),
        ("", 401),
        ("Bearer", 401),
        (f"Bearer {SECRET}x", 401),
        (f"Bearer {SECRET[:-1]}", 401),
        (SECRET, 401),
        (basic(SECRET), 401),
        (basic(f"{SECRET}:"), 401),
        ("Basic ====", 401),
        ("Basic \udcff", 401),
        ("Bearer \udcff", 401),
        (f"Digest {SECRET}", 401),
    ],
)
def test_elsewhere_the_token_is_asked_for(given: str, status: int | None) -> None:
    door = Door("0.0.0.0", 0, SECRET)
    assert door.refuses(headers(Host="anything", Authorization=given)) == status


def test_a_door_to_other_machines_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_door("127.0.0.1", 7) == Door("127.0.0.1", 7)
    for short in (None, "", SECRET[:-1], "é" * 20):
        if short is None:
            monkeypatch.delenv("AGENTGYM_TOKEN", raising=False)
        else:
            monkeypatch.setenv("AGENTGYM_TOKEN", short)
        for host in ("0.0.0.0", "192.168.0.2", "::", "my.host", ""):
            with pytest.raises(UsageError, match=r"needs a token of at least 16 .*AGENTGYM_TOKEN"):
                open_door(host, 0)
    monkeypatch.setenv("AGENTGYM_TOKEN", SECRET)
    door = open_door("0.0.0.0", 0)
    assert door.token == SECRET
    assert SECRET not in repr(door) + door.told


def test_the_token_is_sent_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTGYM_TOKEN", raising=False)
    assert bearer() == {}
    monkeypatch.setenv("AGENTGYM_TOKEN", SECRET)
    assert Door("0.0.0.0", 0, SECRET).refuses(headers(**bearer())) is None


def test_only_this_machines_own_addresses_are_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "localhost.example", "10.0.0.1")))
