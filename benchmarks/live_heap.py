"""What a Java process really holds: the bytes of its heap that outlive a collection.

Its memory as the system sees it says little: a heap grows into the garbage that nobody has
collected yet. Java can be asked from outside, by the way that ``jcmd`` takes: a file that says
"attach", a signal to look for it, and a socket that it opens for its own user.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

_PATIENCE_S = 30.0
_USED = re.compile(  # in Java 25, and in those before
    r"^ ?(?:DefNew|Tenured|(?:def new|tenured) generation) +total \d+K, used (\d+)K", re.MULTILINE
)


def live_heap_mb(pid: int) -> float:
    """Return the live heap of a Java process that collects serially, in MB.

    Raises:
        OSError: The process is gone, or does not answer.
    """
    _ask(pid, "GC.run")
    used = _USED.findall(_ask(pid, "GC.heap_info"))
    if len(used) != 2:
        raise OSError(f"the Java process {pid} does not tell its two generations")
    return sum(map(int, used)) * 1024 / 1e6


def _ask(pid: int, command: str) -> str:
    """Return what a Java process answers to a command of ``jcmd``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE_S)
        connection.connect(str(_door(pid)))
        # The version of the protocol, and a command that always has three arguments.
        connection.sendall(b"".join(f"{one}\0".encode() for one in ("1", "jcmd", command, "", "")))
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
    status, _, said = answer.partition("\n")
    if status != "0":
        raise OSError(f"the Java process {pid} answers {answer[:200]!r} to {command}")
    return said


def _door(pid: int) -> Path:
    """Return the socket of a Java process, which opens it when it is told to look for a file."""
    door, please = Path(f"/tmp/.java_pid{pid}"), Path(f"/tmp/.attach_pid{pid}")
    if door.exists():
        return door
    please.touch()
    try:
        os.kill(pid, signal.SIGQUIT)
        until = time.monotonic() + _PATIENCE_S
        while not door.exists():
            if time.monotonic() > until:
                raise OSError(f"the Java process {pid} opens no door")
            time.sleep(0.05)
    finally:
        please.unlink()
    return door
