"""Runs a command, and ends it with all that it started when nobody holds this program's input.

A server must not outlive whoever started it, however that ended. This program is the leader of a
process group of its own; the command and its processes are in that group. Standard library only:
it is run as a file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

_GRACE_S = 10.0  # for a server to end by itself
_POLL_S = 0.1


def main() -> None:
    """Run the command that the arguments are, and exit as it does."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is sent to the group that this is in, too
    ending = threading.Event()
    ender = threading.Thread(target=_end_with_input, args=[ending], daemon=True)
    ender.start()
    code = child.wait()
    if ending.is_set():
        ender.join()  # what the command started may live longer than it
    sys.exit(code if code >= 0 else 128 - code)


def _end_with_input(ending: threading.Event) -> None:
    while os.read(0, 1024):  # returns nothing when the other end is closed
        pass
    ending.set()
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    while _has_others():
        if time.monotonic() > deadline:
            os.killpg(0, signal.SIGKILL)  # this program, too
        time.sleep(_POLL_S)


def _has_others() -> bool:
    """Return whether anything but this program lives in its group; True where nobody knows."""
    if not os.path.isdir("/proc/self"):
        return True
    mine = str(os.getpgid(0)).encode()
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # Its name stands in brackets and may have any character in it.
            state, _, group = file.read().rpartition(b")")[2].split()[:3]
            if group == mine and state not in (b"Z", b"X"):
                return True
    return False


if __name__ == "__main__":
    main()
