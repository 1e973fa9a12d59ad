"""A Ray actor that holds environments, on any host of a cluster: asked as a process is.

A program that asks for one is connected once, to the cluster that ``RAY_ADDRESS`` names, or to one
that runs on this host (``ray start``), or to one of its own on this host alone, which ends with it.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from importlib import import_module
from typing import Any

from agentgym import __version__
from agentgym.errors import UsageError, WorkerError
from agentgym.hosted_envs import Act, HostedEnvs, opened
from agentgym.types import EnvSpec
from agentgym.worker_process import Died, Hung

_STARTS = 3  # of an actor that dies before it is ready
_REACH_S = 10.0
_GRACE_S = 2.0  # for environments to close before their actor is killed


def connect() -> Any:
    """Return the module ``ray``, connected.

    Raises:
        UsageError: Ray is not installed.
        WorkerError: The cluster that ``RAY_ADDRESS`` names cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for a report to anyone
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise UsageError(
            f"workers on Ray need the package ray ({error}); install it with: pip install"
            " 'agentgym[ray]'"
        ) from error
    if not ray.is_initialized():
        try:
            _reach(os.environ.get("RAY_ADDRESS", ""))
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            where = os.environ.get("RAY_ADDRESS", "this host")
            raise WorkerError(
                f"cannot use Ray at {where}: {_first_line(error)}; start it there with `ray start"
                " --head`, or unset RAY_ADDRESS"
            ) from error
    return ray


def _reach(address: str) -> None:
    """Raise OSError where nothing listens at ``host:port``; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), _REACH_S).close()


def cpus() -> int:
    """Return how many workers the cluster takes: one for each of its processors."""
    return max(1, int(connect().cluster_resources().get("CPU", 1)))


class RayWorker:
    """One actor. Not for use by two threads at once, but for :meth:`interrupt`.

    Attributes:
        generation: How many times it was started; environments of earlier ones are lost.
    """

    def __init__(self, spec: EnvSpec, start_timeout_s: float) -> None:
        self.generation = 0
        self.closed = False
        self._spec = EnvSpec(spec.name, dict(spec.options))
        self._start_timeout_s = start_timeout_s
        self._ray = connect()
        self._actor: Any = None

    def start(self) -> None:
        """Start the actor unless there is one; that it died is found when it is asked.

        Raises:
            WorkerError: It did not start, or was closed.
        """
        if self.closed:
            raise WorkerError("the workers are closed; make a new pool")
        starts = 0
        while self._actor is None:
            starts += 1
            try:
                self._start_once()
            except self._ray.exceptions.RayError as error:
                self.kill()
                if starts == _STARTS:
                    raise WorkerError(
                        f"no worker could be started on Ray: {_why(error)}"
                    ) from error

    def _start_once(self) -> None:
        host = self._ray.remote(_Host)
        placed = host.options(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")
        self._actor = placed.remote(self._spec)
        try:
            found = self._ray.get(self._actor.version.remote(), timeout=self._start_timeout_s)
        except self._ray.exceptions.GetTimeoutError as error:
            self.kill()
            free = self._ray.available_resources().get("CPU", 0)
            raise WorkerError(
                f"no worker was ready on Ray within {self._start_timeout_s:g} s; each takes one"
                f" processor, and of the cluster's {cpus()} {free:g} are free: take fewer workers,"
                " or add hosts, or allow more with start_timeout_s"
            ) from error
        if found != __version__:
            self.kill()
            raise WorkerError(
                f"a host of the Ray cluster has agentgym {found}, and this one {__version__};"
                " install the same on all hosts"
            )
        self.generation += 1

    def make(self, number: int) -> None:
        """Build the environment ``number`` in the actor, in place of any other of that number."""
        self._ask(number, None, self._start_timeout_s)

    def ask(self, number: int, act: Act, timeout_s: float) -> Any:
        """Let an environment act and return what it answers.

        Raises:
            Hung: No answer within ``timeout_s``; the actor was killed.
            Died: The actor is gone, or its host.
            AgentGymError: What the environment raised, with its type and message.
            EnvFault: The environment raised anything else; it is not in the actor any more.
        """
        return self._ask(number, act, timeout_s)

    def kill(self) -> None:
        """End the actor at once."""
        if self._actor is not None:
            self.interrupt()
            self._actor = None

    def stop(self) -> None:
        """Let the environments close and the actor end; kill it if it does not."""
        if self._actor is not None:
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(self._actor.close.remote(), timeout=_GRACE_S)
        self.kill()

    def interrupt(self) -> None:
        """Kill the actor, also from another thread than the one that is waiting for it."""
        actor = self._actor
        if actor is not None:
            with suppress(self._ray.exceptions.RayError):  # the cluster may be gone as well
                self._ray.kill(actor)

    def _ask(self, number: int, act: Act | None, timeout_s: float) -> Any:
        assert self._actor is not None, "asked before start"
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(self._actor.answer.remote(number, act), timeout=timeout_s)
        except errors.GetTimeoutError as error:
            self.kill()
            raise Hung(f"the environment did not answer within {timeout_s:g} s") from error
        except errors.RayError as error:
            self.kill()
            raise Died(f"the worker on Ray died ({_why(error)})") from error
        return opened(answer)


class _Host:
    """What runs on the other side."""

    def __init__(self, spec: EnvSpec) -> None:
        self._envs = HostedEnvs(spec)

    def version(self) -> str:
        return __version__

    def answer(self, number: int, act: Act | None) -> bytes:
        return self._envs.answer(number, act)

    def close(self) -> None:
        self._envs.close()


def _why(error: Exception) -> str:
    """Return what Ray says is the cause: a sentence of its many lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    because = [line for line in lines if " because " in line]
    return (because or [_first_line(error)])[0].partition(". ")[0]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
