"""Environments to play in: inside this process, or in spawned ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from agentgym.envs.base import TextEnv
from agentgym.envs.registry import make_env
from agentgym.errors import AgentGymError, EnvFault
from agentgym.types import EnvSpec


class Worker:
    """One environment, inside this process."""

    def __init__(self, env: TextEnv) -> None:
        self.env = env
        self.suite = env.suite.name
        self.faults = 0

    async def reset(self, task: str, seed: int) -> tuple[str, Any]:
        """Start an episode."""
        try:
            return self.env.reset(seed=seed, options={"task": task})
        except AgentGymError:
            raise
        except Exception as error:
            raise EnvFault(f"the environment raised {type(error).__name__}: {error}") from error

    async def step(self, action: str) -> tuple[str, float, bool, bool, Any]:
        """Take one turn."""
        try:
            return self.env.step(action)
        except AgentGymError:
            raise
        except Exception as error:
            raise EnvFault(f"the environment raised {type(error).__name__}: {error}") from error

    async def expert(self) -> str | None:
        """Return the expert's action."""
        return self.env.expert()


class WorkerPool:
    """Environments, used again from episode to episode."""

    def __init__(self, spec: EnvSpec, workers: int = 0) -> None:
        self.spec = spec
        self.capacity: int | None = workers or None
        self._idle: list[Worker] = []

    async def __aenter__(self) -> WorkerPool:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._idle:
            worker.env.close()
        self._idle.clear()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """Lend an environment for an episode."""
        worker = self._idle.pop() if self._idle else Worker(make_env(self.spec))
        worker.faults = 0
        try:
            yield worker
        finally:
            self._idle.append(worker)
