"""Says when nothing has advanced for a while: in which stage, and where in the code it waits."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_PACKAGE = Path(__file__).parent
_CHECKS = 4  # in the time that it is patient


class Watchdog:
    """Watches one thread from another.

    Args:
        patience: Seconds without any advance after which it barks, once a standstill.
        pulse: Returns a value that changes whenever something advances within a stage.
        bark: Told what is wrong; also when it goes on again.
        clock: Seconds.
    """

    def __init__(
        self,
        patience: float,
        pulse: Callable[[], object],
        bark: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience, self._pulse, self._bark, self._clock = patience, pulse, bark, clock
        self._watched = threading.get_ident()
        self._stage = "start"
        self._last: object = pulse()
        self._since = clock()
        self._barked = False

    def enter(self, stage: str) -> None:
        """Take note that a stage begins, which is an advance."""
        self._stage = stage
        self._advance()

    def check(self) -> None:
        """Bark if nothing has advanced for too long."""
        pulse = self._pulse()
        if pulse != self._last:
            self._last = pulse
            self._advance()
        waited = self._clock() - self._since
        if waited >= self._patience and not self._barked:
            self._barked = True
            self._bark(
                f"nothing has advanced for {waited:.0f} s in the stage {self._stage!r}:"
                f" {waiting_at(self._watched)}; it may be slow, or stuck: guard.stall_after says"
                " how long is too long, Ctrl-C twice ends the run"
            )

    def _advance(self) -> None:
        waited = self._clock() - self._since
        self._since = self._clock()
        if self._barked:
            self._barked = False
            self._bark(f"it goes on, after {waited:.0f} s, in the stage {self._stage!r}")


@contextmanager
def watching(
    patience: float, pulse: Callable[[], object], bark: Callable[[str], None]
) -> Iterator[Callable[[str], None]]:
    """Watch this thread; yield what is told the stages. A patience of 0 watches nothing."""
    if not patience:
        yield lambda _stage: None
        return
    dog, done = Watchdog(patience, pulse, bark), threading.Event()

    def watch() -> None:
        while not done.wait(patience / _CHECKS):
            dog.check()

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield dog.enter
    finally:
        done.set()
        thread.join()


def waiting_at(thread: int) -> str:
    """Return where a thread is in this package's code, and, in an event loop, where its tasks are.

    The places are the innermost of this package, the most frequent first, with how many wait
    there.
    """
    frame = sys._current_frames().get(thread)
    loop = _loop_of(frame)
    tasks = () if loop is None else asyncio.all_tasks(loop)
    places = Counter(filter(None, (_place_of_task(task) for task in tasks)))
    if places:
        return ", ".join(
            f"{count} at {place}" if count > 1 else place for place, count in places.most_common(3)
        )
    return _innermost(frame) or "outside of agentgym's own code"


def _loop_of(frame: FrameType | None) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that a thread runs: no other thread is told it otherwise."""
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, asyncio.AbstractEventLoop):
            return candidate
        frame = frame.f_back
    return None


def _innermost(frame: FrameType | None) -> str | None:
    while frame is not None:
        if _is_own(frame.f_code):
            return _named(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return None


def _place_of_task(task: asyncio.Task[Any]) -> str | None:
    """Return the innermost place of this package in a task that waits."""
    waits: Any = task.get_coro()
    place = None
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None and _is_own(frame.f_code):
            place = _named(frame.f_code, frame.f_lineno)
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return place


def _is_own(code: CodeType) -> bool:
    return code.co_filename.startswith(str(_PACKAGE)) and code.co_filename != __file__


def _named(code: CodeType, line: int) -> str:
    path = Path(code.co_filename).relative_to(_PACKAGE.parent)
    return f"{code.co_name} ({path} line {line})"
