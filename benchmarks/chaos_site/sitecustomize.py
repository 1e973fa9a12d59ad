"""A clock that jumps: Python runs this at its start where the folder is on its path.

``CHAOS_CLOCK`` is ``FILE:SECONDS``: once the file is there, ``time.time`` and ``time.time_ns`` say
so many seconds more. ``time.monotonic`` goes on as it promises to. ``datetime.now``, written in C,
does not jump: agentgym's code reads no such clock (``test_no_wall_clock_is_read``), so that these
two are for what it stands on.
"""

import os
import time

_FILE, _, _SECONDS = os.environ.get("CHAOS_CLOCK", ":0").rpartition(":")
_JUMP = float(_SECONDS)
_TIME, _TIME_NS = time.time, time.time_ns


def _jumped() -> bool:
    return bool(_FILE) and os.path.exists(_FILE)


def _time() -> float:
    return _TIME() + (_JUMP if _jumped() else 0.0)


def _time_ns() -> int:
    return _TIME_NS() + (int(_JUMP * 1e9) if _jumped() else 0)


time.time, time.time_ns = _time, _time_ns
