"""The processes of the soak: which there are, what they hold, and the killing of them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from live_heap import live_heap_mb
from processes import (
    command,
    cpu_seconds,
    descendants,
    handles,
    marked,
    parent,
    resident_mb,
    threads,
)

T = TypeVar("T")

_MARK = f"AGENTGYM_SOAK={os.getpid()}"
_STARTED_S = 0.6  # of the processor; a process that has taken less may be starting
_BETWEEN_STARTS_S = 60.0  # a start that is killed again and again is an error, and rightly so
_PATIENCE_S = 10.0  # for a Java process to see that the one it served was killed


def mark() -> None:
    """Mark what this process will start, so that it is found even after its parent is gone."""
    name, _, value = _MARK.partition("=")
    os.environ[name] = value


def workers() -> list[int]:
    """Return the worker processes of this process."""
    me = os.getpid()
    return [pid for pid in descendants(me) if _is_worker(pid) and parent(pid) == me]


def javas() -> list[int]:
    """Return all Java processes that were started below this one, orphans too."""
    return [pid for pid in marked(_MARK) if _is_java(pid)]


def left_over() -> list[str]:
    """Return the processes that outlive the pools, after a while of patience."""

    def there() -> list[str]:
        others = [pid for pid in marked(_MARK) if pid != os.getpid()]
        return [command(pid) for pid in others if _is_worker(pid) or _is_java(pid)]

    return _patiently(there)


@dataclass(frozen=True, slots=True)
class Held:
    """What processes hold, on average where there are several."""

    memory_mb: float
    handles: float
    threads: float

    @classmethod
    def by(cls, pids: list[int]) -> Held:
        """Look at processes."""
        alive = [pid for pid in pids if command(pid)]
        if not alive:
            return cls(0.0, 0.0, 0.0)
        return cls(
            round(fmean(map(resident_mb, alive)), 1),
            round(fmean(map(handles, alive)), 2),
            round(fmean(map(threads, alive)), 2),
        )


@dataclass(frozen=True, slots=True)
class Health:
    """What there is after a round, when nothing is played."""

    own: Held  # this process
    spared: dict[str, Held]  # by environment, the worker that was never killed
    spared_java: Held
    spared_java_live_mb: float  # of its heap, after a collection
    workers: int
    javas: int
    orphans: int  # Java processes that serve nobody


def look(spared: dict[str, int]) -> Health:
    """Look at all processes.

    Args:
        spared: The process ids of the spared workers by environment.
    """
    me = os.getpid()
    serving = {me, *workers()}

    def orphans() -> list[int]:
        return [pid for pid in javas() if parent(pid) not in serving]

    left = _patiently(orphans)
    safe = set(spared.values())
    spared_javas = [pid for pid in javas() if parent(pid) in safe]
    return Health(
        own=Held.by([me]),
        spared={name: Held.by([pid]) for name, pid in spared.items()},
        spared_java=Held.by(spared_javas),
        spared_java_live_mb=round(sum(map(live_heap_mb, spared_javas)), 2),
        workers=len(serving) - 1,
        javas=len(javas()),
        orphans=len(left),
    )


class Killer:
    """Kills workers and Java processes at random moments, from a thread of its own.

    Args:
        spared: Process ids of workers that live on, with their Java.
        mean_s: Seconds between two kills, on average; the times are exponential.
        rng: Where moments and victims are drawn from.

    Attributes:
        killed: How many, by kind.
    """

    def __init__(self, spared: set[int], mean_s: float, rng: random.Random) -> None:
        self.killed: Counter[str] = Counter()
        self._spared = spared
        self._mean_s = mean_s
        self._rng = rng
        self._spare_starts_until = 0.0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._enough.wait(self._rng.expovariate(1 / self._mean_s)):
            victims = [pid for pid in workers() if pid not in self._spared]
            victims += [pid for pid in javas() if parent(pid) in victims]
            if time.monotonic() < self._spare_starts_until:
                victims = [pid for pid in victims if cpu_seconds(pid) > _STARTED_S]
            if victims:
                self._kill(self._rng.choice(victims))

    def _kill(self, pid: int) -> None:
        kind = "Java" if _is_java(pid) else "worker"
        if cpu_seconds(pid) <= _STARTED_S:
            kind = f"starting {kind}"
            self._spare_starts_until = time.monotonic() + _BETWEEN_STARTS_S
        with suppress(ProcessLookupError):  # it has ended by itself meanwhile
            os.kill(pid, signal.SIGKILL)
            self.killed[kind] += 1


def _is_worker(pid: int) -> bool:
    return "multiprocessing.spawn" in command(pid)


def _is_java(pid: int) -> bool:
    return "py4j.GatewayServer" in command(pid)


def _patiently(ask: Callable[[], list[T]]) -> list[T]:
    """Ask until nothing is found any more, or patience is at its end."""
    until = time.monotonic() + _PATIENCE_S
    while (found := ask()) and time.monotonic() < until:
        time.sleep(0.2)
    return found
