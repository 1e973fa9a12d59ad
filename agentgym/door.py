"""Who may ask a server of ours: this machine alone, or whoever has the token.

On the loopback address a request is answered if it names that address: a page of another site,
pointed here by a name of its own, gets nothing. Anywhere else every request needs the token, as
``Authorization: Bearer TOKEN``, or as the password that a browser asks for. It travels as it is: on
a network that others can listen to, put TLS in front or take an SSH tunnel.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from ipaddress import ip_address

from agentgym.errors import UsageError

TOKEN = "AGENTGYM_TOKEN"  # noqa: S105 (the variable's name)
"""The environment variable that has the token; it is never an argument or a setting."""

LOOPBACK = "127.0.0.1"
ASK = {"WWW-Authenticate": 'Basic realm="agentgym: any name, the token as password"'}
"""What is sent with a 401, so that a browser asks."""

_SHORTEST = 16  # characters


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens on ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Door:
    """Where a server listens, and who is let in. Use :func:`open_door`.

    Attributes:
        host: The address.
        port: 0 takes a free one.
        token: What everybody has to know; None on the loopback address.
    """

    host: str = LOOPBACK
    port: int = 0
    token: str | None = field(default=None, repr=False)

    @property
    def told(self) -> str:
        """For whom it is, in words."""
        return "for this machine only" if self.token is None else f"for who has ${TOKEN}"

    def refuses(self, headers: Message) -> HTTPStatus | None:
        """Return the status by which a request is refused; None lets it in."""
        if self.token is None:
            named = str(headers.get("Host", ""))
            return None if is_loopback(_without_port(named)) else HTTPStatus.FORBIDDEN
        given = _given(str(headers.get("Authorization", "")))
        known = hmac.compare_digest(given.encode(errors="replace"), self.token.encode())
        return None if known else HTTPStatus.UNAUTHORIZED


def open_door(host: str, port: int) -> Door:
    """Return where to listen.

    Raises:
        UsageError: ``host`` is not this machine's own, and no token is in the environment.
    """
    if is_loopback(host):
        return Door(host, port)
    token = os.environ.get(TOKEN, "")
    if len(token) < _SHORTEST or not token.isascii():
        raise UsageError(
            f"--host {host} is open to other machines, which needs a token of at least {_SHORTEST}"
            f" plain characters in ${TOKEN}: export {TOKEN}=$(openssl rand -hex 16)"
        )
    return Door(host, port, token)


def bearer() -> dict[str, str]:
    """Return the header that carries the token of the environment; none where there is none."""
    token = os.environ.get(TOKEN)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]")


def _given(authorization: str) -> str:
    """Return the token that a header carries: a bearer's, or a password."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
