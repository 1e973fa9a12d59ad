"""What processes spend and hold, as Linux tells it in ``/proc``; one that is gone has nothing."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Spent:
    """Times and the highest resident set of this process, inside blocks of ``with``."""

    def __init__(self) -> None:
        (_PROC / "self" / "clear_refs").write_text("5")  # the peak begins here
        self._before = _kilobytes(os.getpid(), "status", "VmRSS:")
        self._cpu: list[float] = []
        self._wall: list[float] = []

    def __enter__(self) -> None:
        self._begun = time.process_time(), time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        self._cpu.append(time.process_time() - self._begun[0])
        self._wall.append(time.perf_counter() - self._begun[1])

    def least(self) -> dict[str, float]:
        """Return the least times, in seconds, and bytes at the peak above those before."""
        above = _kilobytes(os.getpid(), "status", "VmHWM:") - self._before
        return {"cpu": min(self._cpu), "wall": min(self._wall), "above": above * 1024}


def descendants(root: int) -> list[int]:
    """Return the processes that ``root`` started, and those that they started, nearest first."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid in _all():
        children[parent(pid)].append(pid)
    found = [root]
    for pid in found:  # which grows meanwhile
        found += children[pid]
    return found[1:]


def marked(mark: str) -> list[int]:
    """Return the processes that were started with ``mark`` in their environment, by whomever."""
    return [pid for pid in _all() if mark.encode() in _read(pid, "environ")]


def parent(pid: int) -> int:
    """Return who started a process; 0 where it is gone."""
    fields = _fields(pid)
    return int(fields[1]) if fields else 0


def command(pid: int) -> str:
    """Return the command line of a process; empty for one that has ended."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of the children that it has waited for."""
    fields = _fields(pid)
    return sum(map(int, fields[11:15])) / _TICKS_A_SECOND if fields else 0.0


def resident_mb(pid: int) -> float:
    """Return the memory of a process, in MB; what it shares with others is counted in full."""
    return _kilobytes(pid, "status", "VmRSS:") / 1e3


def share_mb(pid: int) -> float:
    """Return the memory of a process, in MB; of what n processes share it has an nth."""
    return _kilobytes(pid, "smaps_rollup", "Pss:") / 1e3


def handles(pid: int) -> int:
    """Return how many files, pipes and sockets a process has open."""
    with suppress(OSError):
        return len(os.listdir(_PROC / str(pid) / "fd"))
    return 0


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    fields = _fields(pid)
    return int(fields[17]) if fields else 0


def _all() -> list[int]:
    return [int(one) for one in os.listdir(_PROC) if one.isdigit()]


def _fields(pid: int) -> list[bytes]:
    """Return the fields of ``/proc/PID/stat`` after the name, which may have blanks in it."""
    return _read(pid, "stat").rpartition(b") ")[2].split()


def _kilobytes(pid: int, name: str, label: str) -> int:
    for line in _read(pid, name).decode(errors="replace").splitlines():
        if line.startswith(label):
            return int(line.split()[1])
    return 0


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return (_PROC / str(pid) / name).read_bytes()
    return b""
