"""Who plays a script in the environment benchmarks: this package, or the published software."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agentgym.envs.base import TextEnv
from agentgym.envs.registry import make_env
from agentgym.envs.scienceworld_tasks import parse_id
from agentgym.types import EnvSpec


class Player(Protocol):
    """An environment, whoever wrote it."""

    def reset(self, task: str) -> object:
        """Start a task."""

    def step(self, action: str) -> object:
        """Take an action."""

    def close(self) -> None:
        """Release what is held."""


class Ours:
    """An environment of this package."""

    def __init__(self, spec: EnvSpec) -> None:
        self._env: TextEnv = make_env(spec)

    def reset(self, task: str) -> object:
        """Start a task."""
        return self._env.reset(seed=0, options={"task": task})

    def step(self, action: str) -> object:
        """Take an action."""
        return self._env.step(action)

    def close(self) -> None:
        """Release what is held."""
        self._env.close()


class TextWorld:
    """ALFWorld as published: TextWorld plays the game, and names the admissible commands."""

    def __init__(self, spec: EnvSpec) -> None:
        from agentgym.envs.alfworld_textworld import TextWorldEngine  # not installed everywhere

        self._kind = TextWorldEngine
        self._set = str(spec.options["suite"]).removeprefix("alfworld/")
        self._engine: Any = None

    def reset(self, task: str) -> object:
        """Load a game and start it."""
        from agentgym.envs.alfworld_generate import generate

        self.close()
        self._engine = self._kind(generate(self._set, task))
        return self._engine.reset()

    def step(self, action: str) -> object:
        """Do a command, and ask for what an agent needs of every step."""
        return self._engine.step(action), self._engine.admissible, self._engine.won

    def close(self) -> None:
        """Release the game."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None


class ScienceWorldPackage:
    """ScienceWorld as published: the environment of the simulator's own package."""

    def __init__(self, spec: EnvSpec) -> None:
        from scienceworld import ScienceWorldEnv

        self._env = ScienceWorldEnv(envStepLimit=10**6)

    def reset(self, task: str) -> object:
        """Load a variation and start it."""
        self._env.load(*parse_id(task), "easy")
        return self._env.reset()

    def step(self, action: str) -> object:
        """Take an action."""
        return self._env.step(action)

    def close(self) -> None:
        """End the Java process."""
        self._env.close()


PLAYERS: Mapping[str, Callable[[EnvSpec], Player]] = {
    "ours": Ours,
    "textworld": TextWorld,
    "scienceworld": ScienceWorldPackage,
}
"""By name, as a probe is told."""
