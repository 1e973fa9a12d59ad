"""The rounds of play of a run, each when it is asked for, or some steps ahead in a thread.

Ahead, the first round of step k+1 is played while the loop learns from step k, by weights that are
at most so many versions behind. Everything is played in the one thread, a round at a time, and
begun by the loop: no hook of a method, and no environment, is used by two threads at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from agentgym.trainers.collect import Play
from agentgym.types import Group, Trajectory

Played = tuple[list[Group], list[Trajectory]]
"""The groups, and the episodes that broke."""

Begin = Callable[[int, Sequence[str]], Callable[[], Played]]
"""Returns what plays a round of a step, from the step and the round's tasks."""


@dataclass(frozen=True, slots=True)
class Took:
    """What playing took, in seconds."""

    seconds: float = 0.0
    generated: float = 0.0  # in which something was sampled

    def __add__(self, other: Took) -> Took:
        return Took(self.seconds + other.seconds, self.generated + other.generated)


class Rollouts:
    """Plays rounds. A context manager: after it nothing is under way.

    Args:
        begin: Called in the thread of whoever asks; what it returns is called where rounds are
            played.
        tasks: Returns those of a step's first round.
        staleness: How many steps are played ahead. 0 plays where and when it is asked for.
        last: The last step.
        spent: Returns the seconds in which something was sampled, so far.
        stop: Ends what is under way when nobody will ask for it any more.

    Attributes:
        ahead: Whether steps are played ahead.
    """

    def __init__(
        self,
        begin: Begin,
        tasks: Callable[[int], Sequence[str]],
        staleness: int,
        last: int,
        spent: Callable[[], float],
        stop: Callable[[], None],
    ) -> None:
        self._begin, self._tasks, self._spent, self._stop = begin, tasks, spent, stop
        self.ahead = staleness > 0
        self._staleness, self._last = staleness, last
        self._thread = ThreadPoolExecutor(1, "agentgym-rollout") if staleness else None
        self._ahead: dict[int, Future[Played]] = {}  # first rounds, by step
        self._took: dict[int, Took] = {}

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Throw away what was played and not asked for."""
        if self._thread is None:
            return
        if not all(future.done() for future in self._ahead.values()):
            self._stop()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def of(self, step: int) -> Play:
        """Return what plays the rounds of a step; the first one may have been played already."""

        def play(tasks: Sequence[str]) -> Played:
            future = self._ahead.pop(step, None)
            if future is not None:
                return future.result()
            play = self._timed(step, self._begin(step, tasks))
            return play() if self._thread is None else self._thread.submit(play).result()

        return play

    def go_on(self, step: int) -> None:
        """Begin to play what may be played while the loop learns from ``step``."""
        if self._thread is None:
            return
        for later in range(step + 1, min(step + self._staleness, self._last) + 1):
            if later not in self._ahead:
                play = self._timed(later, self._begin(later, self._tasks(later)))
                self._ahead[later] = self._thread.submit(play)

    def took(self, step: int) -> Took:
        """Return what the rounds of a step took, and forget it."""
        return self._took.pop(step, Took())

    def _timed(self, step: int, play: Callable[[], Played]) -> Callable[[], Played]:
        def timed() -> Played:
            begun, sampled = time.perf_counter(), self._spent()
            played = play()
            took = Took(time.perf_counter() - begun, self._spent() - sampled)
            self._took[step] = self._took.get(step, Took()) + took
            return played

        return timed
