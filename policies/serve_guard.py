"""Runs a command, and ends it with all that it started when nobody holds this program's input.

A server must not outlive whoever started it, however that ended. This program is the leader of a
process group of its own; the command and its processes are in that group. Standard library only:
it is run as a file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

_GRACE_S = 10.0  # for a server to end by itself


def main() -> None:
    """Run the command that the arguments are, and exit as it does."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is sent to the group that this is in, too
    threading.Thread(target=_end_with_input, daemon=True).start()
    code = child.wait()
    sys.exit(code if code >= 0 else 128 - code)


def _end_with_input() -> None:
    while os.read(0, 1024):  # returns nothing when the other end is closed
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(_GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
