"""A spawned process that holds environments: starting it, asking it, noticing that it is gone.

Processes are spawned, never forked: forking a program that has threads, a JVM or CUDA open hangs
sooner or later. The child ends when its parent does, however that ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, NoReturn

from agentgym.errors import WorkerError
from agentgym.hosted_envs import Act, HostedEnvs, opened
from agentgym.types import EnvSpec

_NAME = "agentgym-worker"
_NO_GUARD = 76  # exit code of a child whose import of the main module asked for workers
_STARTS = 3  # of a process that is killed before it is ready
_GRACE_S = 2.0  # for environments to close before their process is killed

_serving = False


class Died(Exception):  # noqa: N818 (an outside fault, not an error that anyone sees)
    """The process is gone; the next :meth:`WorkerProcess.start` makes another."""


class Hung(Exception):  # noqa: N818 (likewise)
    """The process did not answer in time and was killed."""


class WorkerProcess:
    """One process and the pipe to it. Not for use by two threads at once.

    Attributes:
        generation: How many times it was started; environments of earlier ones are lost.
    """

    def __init__(self, spec: EnvSpec, start_timeout_s: float) -> None:
        self.generation = 0
        self.closed = False
        self._spec = EnvSpec(spec.name, dict(spec.options))
        self._start_timeout_s = start_timeout_s
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Start the process unless it is running.

        Raises:
            WorkerError: It did not start, or was closed.
        """
        self._refuse_closed()
        if self._process is not None and self._process.is_alive():
            return
        self.kill()
        _refuse_to_spawn_from_a_starting_worker()
        starts = 1
        while (code := self._start_once()) is not None:
            # What fails by itself fails again; one that was killed by a signal need not.
            self._refuse_closed()
            if code >= 0 or starts == _STARTS:
                raise WorkerError(_failed_start(code))
            starts += 1

    def _refuse_closed(self) -> None:
        if self.closed:
            raise WorkerError("the workers are closed; make a new pool")

    def _start_once(self) -> int | None:
        """Start the process; return None when it is ready, or the exit code that it ended with."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._spec), name=_NAME, daemon=True
        )
        with _interrupts_blocked():  # the child inherits it: an interrupt is the parent's to handle
            self._process.start()
        theirs.close()
        self.generation += 1
        return self._wait_until_ready()

    def make(self, number: int) -> None:
        """Build the environment ``number`` in the process, in place of any other of that number."""
        self._ask((number, None), self._start_timeout_s)

    def ask(self, number: int, act: Act, timeout_s: float) -> Any:
        """Let an environment act and return what it answers.

        Raises:
            Hung: No answer within ``timeout_s``; the process was killed.
            Died: The process is gone.
            AgentGymError: What the environment raised, with its type and message.
            EnvFault: The environment raised anything else; it is not in the process any more.
        """
        return self._ask((number, act), timeout_s)

    def kill(self) -> int | None:
        """End the process at once; return its exit code, or None if there was none."""
        if self._process is None or self._pipe is None:
            return None
        self._pipe.close()
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        self._process = self._pipe = None
        return code

    def stop(self) -> None:
        """Let the environments close and the process end; kill it if it does not."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()  # which the child sees as the end
            self._process.join(_GRACE_S)
        self.kill()

    def interrupt(self) -> None:
        """Kill the process from another thread than the one that is waiting for it."""
        process = self._process
        if process is not None:
            with suppress(ValueError):  # closed in the meantime
                process.kill()

    def _ask(self, request: tuple[int, Act | None], timeout_s: float) -> Any:
        assert self._pipe is not None, "asked before start"
        try:
            self._pipe.send(request)
            if not self._pipe.poll(timeout_s):
                self.kill()
                raise Hung(f"the environment did not answer within {timeout_s:g} s")
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise Died(f"the worker process died {_ending(self.kill())}") from error
        return opened(answer)

    def _wait_until_ready(self) -> int | None:
        assert self._pipe is not None
        try:
            ready = self._pipe.poll(self._start_timeout_s) and self._pipe.recv()
        except (EOFError, OSError):
            # It has closed its pipe and is about to exit; killing it now would hide its exit code.
            if self._process is not None:
                self._process.join(_GRACE_S)
            return self.kill() or 0
        if not ready:
            self.kill()
            raise WorkerError(
                f"a worker process did not start within {self._start_timeout_s:g} s; allow more"
                " with start_timeout_s"
            )
        return None


def _failed_start(code: int) -> str:
    guard = 'put what it runs under `if __name__ == "__main__":`'
    if code == _NO_GUARD:
        main = getattr(sys.modules["__main__"], "__file__", None) or "the program"
        return f"{main} starts worker processes, each of which imports it again; {guard}"
    if code < 0:
        return (
            f"a worker process ended {_ending(code)} before it was ready, and so did others before"
            " it; if memory has run out, take fewer workers"
        )
    return (
        f"a worker process ended {_ending(code)} before it was ready; what it said is above. It"
        f" imports the program that started it, which must be a file: {guard}"
    )


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"with exit code {code}"
    try:
        return f"by signal {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _refuse_to_spawn_from_a_starting_worker() -> None:
    """Leave quietly if this is a worker that imports a main module which has no guard.

    The parent reads the exit code and says what to do. An error raised here would print a
    traceback for each worker, or be caught by the very program that is being imported.
    """
    if multiprocessing.current_process().name == _NAME and not _serving:
        os._exit(_NO_GUARD)


# In the child -------------------------------------------------------------------------------------


def _serve(pipe: Connection, spec: EnvSpec) -> None:
    """Answer requests until the parent closes the pipe."""
    global _serving
    _serving = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    envs = HostedEnvs(spec)
    pipe.send(True)
    with suppress(EOFError, OSError):  # the parent has closed the pipe, or is gone
        while True:
            pipe.send_bytes(envs.answer(*pipe.recv()))
    envs.close()


def _end_with_parent() -> NoReturn:
    """Exit when the parent has, even from the middle of an endless step."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
