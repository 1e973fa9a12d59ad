"""Environments to play in: inside this process, in spawned ones, or on the hosts of a Ray cluster.

A :class:`WorkerPool` lends a :class:`Worker` for each episode. Inline workers cost nothing beside
the step itself. Workers in processes use more than one core, and survive what an environment does
to its process: if the process dies, or does not answer in time, it is replaced, the episode is
restored from its seed and actions, and the step is done again. What cannot be healed ends the
episode with :class:`agentgym.errors.EnvFault`. An actor of Ray is treated as such a process.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from operator import methodcaller
from types import TracebackType
from typing import Any

from agentgym.envs.base import TextEnv
from agentgym.envs.registry import make_env
from agentgym.errors import AgentGymError, EnvFault, EpisodeError, UsageError, WorkerError
from agentgym.hosted_envs import Act, fault_of
from agentgym.ray_worker import RayWorker, cpus
from agentgym.types import EnvSpec, Snapshot
from agentgym.worker_process import Died, Hung, WorkerProcess

_HEALINGS = 2  # how often one step is done again
_HANGS = 2  # of one episode; the second is the environment's own fault
_CLOSE_S = 5.0  # for busy workers, all at once, to finish before their processes are killed


def check_workers(workers: int | str) -> int | str:
    """Return what was asked for, if it is a number of processes (or one in text), or of actors.

    Raises:
        UsageError: It is something else.
    """
    if isinstance(workers, str) and re.fullmatch(r"ray(:[1-9]\d*)?", workers):
        return workers
    if isinstance(workers, int) or workers.isdecimal():
        count = int(workers)
        if count >= 0:
            return count
    raise UsageError(
        f"workers is {workers!r}; expected how many processes, 0 for none, or ray:8 for so many"
        " actors of Ray, or ray for one on each processor of its cluster"
    )


def count_workers(workers: int | str) -> int:
    """Return how many processes are asked for; ``ray`` is one for each processor of the cluster.

    Raises:
        UsageError: It is no number, ``ray`` or ``ray:N``, or Ray is not installed.
        WorkerError: Ray cannot be used.
    """
    checked = check_workers(workers)
    if isinstance(checked, int):
        return checked
    count = checked.partition(":")[2]
    return int(count) if count else cpus()


class Worker(ABC):
    """One environment, somewhere.

    Every method raises the :class:`agentgym.errors.AgentGymError` that the environment raises, and
    :class:`agentgym.errors.EnvFault` where the environment fails; the episode is then over.

    Attributes:
        suite: The name of the suite that it plays.
        faults: Outside faults of this episode that were healed.
    """

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.faults = 0
        self._hangs = 0
        self._episode: Snapshot | None = None  # what to restore; None before an episode

    async def reset(self, task: str, seed: int) -> tuple[str, Any]:
        """Start an episode; return the first observation and info."""
        start = methodcaller("reset", seed=seed, options={"task": task})
        return await self._begin(Snapshot(self.suite, task, seed, ()), start)

    async def restore(self, snapshot: Snapshot) -> tuple[str, Any]:
        """Start an episode from a snapshot; return its last observation and info."""
        return await self._begin(snapshot, methodcaller("restore", snapshot))

    async def step(self, action: str) -> tuple[str, float, bool, bool, Any]:
        """Take one turn."""
        answer: tuple[str, float, bool, bool, Any] = await self._ask(methodcaller("step", action))
        if self._episode is not None:
            actions = (*self._episode.actions, action)
            self._episode = replace(self._episode, actions=actions)
        return answer

    async def expert(self) -> str | None:
        """Return the action an expert takes now, or None when it knows none."""
        action: str | None = await self._ask(methodcaller("expert"))
        return action

    def snapshot(self) -> Snapshot:
        """Return what brings this episode back, in any worker of the suite.

        Raises:
            EpisodeError: No episode was started, or it ended by a fault.
        """
        if self._episode is None:
            raise EpisodeError(f"no episode of {self.suite} was started; call reset first")
        return self._episode

    async def _begin(self, start: Snapshot, act: Act) -> tuple[str, Any]:
        self.faults = self._hangs = 0
        self._episode = None
        answer: tuple[str, Any] = await self._ask(act, 1 + len(start.actions))
        self._episode = start
        return answer

    @abstractmethod
    async def _ask(self, act: Act, steps: int = 1) -> Any:
        """Let the environment act, which takes as long as so many steps."""


class InlineWorker(Worker):
    """An environment inside this process. An endless step is endless."""

    def __init__(self, spec: EnvSpec, env: TextEnv) -> None:
        super().__init__(env.suite.name)
        self._spec = spec
        self._env: TextEnv | None = env

    async def _ask(self, act: Act, steps: int = 1) -> Any:
        if self._env is None:
            self._env = make_env(self._spec)
        try:
            return act(self._env)
        except EnvFault:
            self._discard()
            raise
        except AgentGymError:
            raise
        except Exception as error:  # environment code raises what it likes
            self._discard()
            raise fault_of(error) from error

    def _discard(self) -> None:
        """Give up the episode and the environment: what raised is not used again."""
        self._episode = None
        self.close()

    def close(self) -> None:
        """Release the environment."""
        if self._env is not None:
            with suppress(Exception):  # it may be broken; nobody will use it again
                self._env.close()
            self._env = None


class ProcessWorker(Worker):
    """An environment in a process, which may hold others beside it.

    The process is talked to by one thread of its own, so that its environments act one after
    another, each with its full time, and an event loop that ends leaves no answer behind.
    """

    def __init__(self, suite: str, home: _Home, number: int, step_timeout_s: float) -> None:
        super().__init__(suite)
        self._home = home
        self._number = number
        self._step_timeout_s = step_timeout_s
        self._generation: int | None = None  # of the process that has the environment

    async def _ask(self, act: Act, steps: int = 1) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._home.thread, self._answer, act, steps)

    def _answer(self, act: Act, steps: int) -> Any:
        """Ask until there is an answer, healing what can be healed."""
        healings = 0
        while True:
            try:
                self._move_in()
                return self._home.process.ask(self._number, act, steps * self._step_timeout_s)
            except EnvFault:
                self._episode = self._generation = None  # what raised is not used again
                raise
            except (Hung, Died) as fault:
                self._generation = None
                self._refuse_to_heal(fault, healings)
                self.faults += 1
                healings += 1

    def _move_in(self) -> None:
        """Make sure that the process runs and has the environment, in the right state."""
        process = self._home.process
        process.start()
        if self._generation == process.generation:
            return
        if self._generation is not None:
            self.faults += 1  # the process was lost to another environment's fault
        process.make(self._number)
        if self._episode is not None:
            steps = 1 + len(self._episode.actions)
            again = methodcaller("restore", self._episode)
            process.ask(self._number, again, steps * self._step_timeout_s)
        self._generation = process.generation

    def _refuse_to_heal(self, fault: Hung | Died, healings: int) -> None:
        if self._home.process.closed:
            raise WorkerError("the workers were closed while an environment acted") from fault
        self._hangs += isinstance(fault, Hung)
        if self._hangs < _HANGS and healings < _HEALINGS:
            return
        self._episode = None
        often = "in this episode, for the second time" if self._hangs == _HANGS else "three times"
        raise EnvFault(f"{fault} {often}") from fault


class _Home:
    """A process or actor, and the one thread that talks to it."""

    def __init__(self, process: WorkerProcess | RayWorker) -> None:
        self.process = process
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="agentgym-worker")


def _wait_or_kill(home: _Home, stopped: Future[None], until: float) -> None:
    """Wait for a process to stop; kill it where it has not by the time ``until``."""
    try:
        with suppress(TimeoutError):  # an environment is in the middle of a step
            stopped.result(max(0.0, until - time.monotonic()))
    finally:  # or somebody interrupts the waiting
        if not stopped.done():
            home.process.interrupt()


class WorkerPool:
    """Lends workers and keeps them warm between episodes.

    Use it as an asynchronous context manager, or call :meth:`close`. It may be used by one event
    loop after another, not by two at once.

    Args:
        spec: The environment.
        workers: Processes; 0 plays inside this process, unless the environment must have one of
            its own (``needs_process``), when it means 1. ``ray:8`` is 8 actors of Ray, and
            ``ray`` one for each processor of its cluster.
        step_timeout_s: Seconds that a step in a process may take; a restore may take as much for
            each of its actions. Inline steps are not timed.
        start_timeout_s: Seconds that a process may take to start, and an environment to be built.

    Attributes:
        capacity: How many workers are lent at once; a further one waits. None is any number:
            where a process may hold as many environments as one likes.

    Raises:
        UsageError: A number is out of range, or what building the environment raises; or Ray is
            asked for and not installed.
        WorkerError: Ray cannot be used.
        DataError: The suite's data is not there.
    """

    def __init__(
        self,
        spec: EnvSpec,
        workers: int | str = 0,
        step_timeout_s: float = 60.0,
        start_timeout_s: float = 120.0,
    ) -> None:
        if step_timeout_s <= 0 or start_timeout_s <= 0:
            raise UsageError(
                f"step_timeout_s is {step_timeout_s:g}, start_timeout_s {start_timeout_s:g};"
                " time-outs must be positive"
            )
        asked = count_workers(workers)
        self.spec = spec
        self._step_timeout_s = step_timeout_s
        env = make_env(spec)  # tells the suite and whether it needs a process
        self.suite = env.suite.name
        count = max(asked, int(env.needs_process))
        place = WorkerProcess if isinstance(check_workers(workers), int) else RayWorker
        self._homes = [_Home(place(spec, start_timeout_s)) for _ in range(count)]
        copies = 1 if env.needs_process else env.copies_per_process
        self.capacity: int | None = None if copies is None else copies * max(count, 1)
        self._idle: deque[Worker] = deque()
        self._made: list[Worker] = []
        if self._homes:
            env.close()
        else:
            self._idle.append(self._keep(InlineWorker(spec, env)))
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> WorkerPool:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """Lend a worker for an episode; wait for one if all are lent.

        Raises:
            WorkerError: The pool is closed.
        """
        async with self._slots():
            if self._closed:
                raise WorkerError("the workers are closed; make a new pool")
            worker = self._idle.popleft() if self._idle else self._make()
            try:
                yield worker
            finally:
                self._idle.append(worker)

    def close(self) -> None:
        """Release the environments and end the processes; closing twice is closing once."""
        if self._closed:
            return
        self._closed = True
        for worker in self._made:
            if isinstance(worker, InlineWorker):
                worker.close()
        for home in self._homes:
            home.process.closed = True
        until = time.monotonic() + _CLOSE_S
        stopping = [home.thread.submit(home.process.stop) for home in self._homes]
        with ExitStack() as endings:  # each is done, whatever another raises
            for home in self._homes:
                endings.callback(home.thread.shutdown, wait=True)
            for home, stopped in zip(self._homes, stopping, strict=True):
                endings.callback(_wait_or_kill, home, stopped, until)

    def _make(self) -> Worker:
        if not self._homes:
            return self._keep(InlineWorker(self.spec, make_env(self.spec)))
        number = len(self._made)
        home = self._homes[number % len(self._homes)]
        return self._keep(ProcessWorker(self.suite, home, number, self._step_timeout_s))

    def _keep(self, worker: Worker) -> Worker:
        self._made.append(worker)
        return worker

    def _slots(self) -> asyncio.Semaphore:
        """Return what counts the loans; each event loop needs one of its own."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._free = asyncio.Semaphore(self.capacity or sys.maxsize)
        return self._free
