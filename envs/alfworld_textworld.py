"""The second engine of ALFWorld: TextWorld itself, as the published benchmark runs it.

It is slow (seconds to load a game, a tenth of a second a step) and changes its process: it
replaces ``sys.argv`` and ``sys.stdout`` while it translates and keeps options in modules. It
belongs in a process of its own, one engine at a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agentgym.envs.alfworld_engine import task_sentence
from agentgym.envs.alfworld_files import GameFiles
from agentgym.errors import DataError, UsageError

_idle: list[Any] = []
"""Environments of engines that were closed. Each holds its own copy of the planner's library, which
crashes the process on exit if it is unloaded; so they are used again, as the benchmark does too."""


class TextWorldEngine:
    """Plays one game in TextWorld.

    Args:
        files: The game.

    Raises:
        UsageError: TextWorld is not installed.
        DataError: TextWorld cannot load the game; the message names it.
    """

    def __init__(self, files: GameFiles) -> None:
        self.task_type = str(files.trajectory["task_type"])
        with _process_restored():
            self._env = _idle.pop() if _idle else _build()
            try:
                self._env.load(dict(files.game))
                self._opening: str | None = self._start()
            # Its translator reports a broken game as an assertion, a lookup that failed, a
            # parse error of its own, or an exit of the whole process.
            except (Exception, SystemExit) as error:
                raise DataError(f"TextWorld cannot load {files.name}: {error!r}") from error
        self.goal = task_sentence(self._opening)

    def reset(self) -> str:
        """Start the game over and return its opening text."""
        if self._opening is None:
            with _process_restored():
                return self._start()
        opening, self._opening = self._opening, None  # loading has just started it
        return opening

    def _start(self) -> str:
        self._state = self._env.reset()
        return str(self._state.feedback)

    def step(self, command: str) -> str:
        """Do a command and return what the game says to it."""
        self._opening = None
        self._state, _, _ = self._env.step(command)
        return str(self._state.feedback)

    @property
    def won(self) -> bool:
        """Whether the goal holds now."""
        return bool(self._state["won"])

    @property
    def admissible(self) -> tuple[str, ...]:
        """The commands that do something now, sorted, each once."""
        return tuple(self._state["admissible_commands"])

    def close(self) -> None:
        """Keep the loaded planner for the next engine of this process."""
        if self._env is not None:
            _idle.append(self._env)
            self._env = None


def _build() -> Any:
    try:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
        from textworld.envs.pddl import PddlEnv
    except ImportError as error:
        raise UsageError(
            f"engine 'textworld' needs TextWorld and ALFWorld ({error}); with Python 3.12 or"
            " older: pip install 'agentgym[alfworld]'. The native engine needs neither"
        ) from error
    wanted = textworld.EnvInfos(won=True, admissible_commands=True)
    return AlfredInfos(AlfredDemangler(PddlEnv(wanted), shuffle=False))


@contextmanager
def _process_restored() -> Iterator[None]:
    """Put back what importing alfworld and translating a game change for everyone."""
    arguments, out, data = sys.argv, sys.stdout, os.environ.get("ALFWORLD_DATA")
    try:
        yield
    finally:
        sys.argv, sys.stdout = arguments, out
        if data is None:
            os.environ.pop("ALFWORLD_DATA", None)
        else:
            os.environ["ALFWORLD_DATA"] = data
