"""Where a server that is started here listens, and where it is asked."""

from __future__ import annotations

import errno
import socket
import time

from agentgym.door import LOOPBACK
from agentgym.errors import UsageError

_POLL_S = 0.1
_EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 (how to reach it from here)


def free_port() -> int:
    """Return a port of this machine that nobody has now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def url_of(host: str, port: int) -> str:
    """Return where this machine reaches what listens at ``host``."""
    near = _EVERYWHERE.get(host, host)
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def refuse_taken(host: str, port: int, patience: float = 0.0) -> None:
    """Refuse a port at which something else listens, which would be taken for the server.

    Args:
        host: The address.
        port: Of it.
        patience: Seconds to wait for it; who was killed may hold it for a moment.

    Raises:
        UsageError: It is taken, or nothing can listen there.
    """
    begun = time.monotonic()
    while (reason := _flaw(host, port)) is not None:
        if time.monotonic() - begun >= patience:
            raise UsageError(f"{reason}; choose another with --port (policy.serve.port)")
        time.sleep(_POLL_S)


def _flaw(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is taken by another program"
        return f"nothing can listen at {host}, port {port}: {error.strerror or error}"
    return None
