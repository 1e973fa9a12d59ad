"""ALFWorld: household tasks in text, as TextWorld plays them.

Six types of tasks (put something somewhere; the same cleaned, heated or cooled; two of it; look
at it under a lamp) in 120 rooms. An action is a command such as ``take mug 1 from desk 2``; a
command the game does not know is answered *Nothing happens.* and costs a turn. The reward is 1 on
the step that wins, else 0.

The published games (suites ``train``, ``valid_seen``, ``valid_unseen``) are downloaded; generated
ones (``gen-…``) need nothing, and their results are not comparable with published numbers.

Source: Shridhar et al., "ALFWorld: Aligning Text and Embodied Environments for Interactive
Learning", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from agentgym.download import DataSet
from agentgym.envs import alfworld_generate as generated
from agentgym.envs.alfworld_engine import Engine, GameEngine
from agentgym.envs.alfworld_expert import plan
from agentgym.envs.alfworld_files import GameFiles, read_game
from agentgym.envs.alfworld_official import (
    GAMES,
    SPLITS,
    own_games,
    published_games,
    split_folder,
)
from agentgym.envs.alfworld_tasks import TASK_TYPES
from agentgym.envs.alfworld_textworld import TextWorldEngine
from agentgym.envs.base import Outcome, TextEnv, check_text
from agentgym.errors import UsageError, unknown
from agentgym.types import Info, Suite

ENGINES = ("native", "textworld")
HELP = "help"
"""A command of newer games; never among the admissible actions shown, as in the benchmark."""

_FOLDER = "folder"
_ABOUT = {
    "gen-train": "generated games in the training rooms",
    "gen-seen": "generated games in the training rooms, other placements",
    "gen-unseen": "generated games in the four rooms that training never sees",
    "train": "the published training games",
    "valid_seen": "the published test games in rooms seen in training",
    "valid_unseen": "the published test games in unseen rooms",
    _FOLDER: "the games in the folder that the option data names",
}


class ALFWorldEnv(TextEnv):
    """ALFWorld.

    Args:
        suite: ``alfworld/gen-train``, ``gen-seen`` or ``gen-unseen`` (generated); ``train``,
            ``valid_seen`` or ``valid_unseen`` (published); ``folder`` (your own).
        max_turns: Actions an episode may take; the benchmark's 50 by default.
        data: Where games lie. For published suites the folder that holds ``json_2.1.1``, by
            default ``$ALFWORLD_DATA`` or ``~/.cache/alfworld``; for ``alfworld/folder`` a folder
            of game folders, at any depth. Task ids are paths below it.
        engine: ``native``, or ``textworld``, the slow reference, which needs
            ``agentgym[alfworld]`` and a process of its own.

    Raises:
        UsageError: An unknown suite or engine, ``data`` that is no text or for a suite that reads
            none, or TextWorld is not installed.
        DataError: The suite's games are not there.
    """

    name: ClassVar[str] = "alfworld"
    default_suite: ClassVar[str] = "alfworld/gen-train"
    default_max_turns: ClassVar[int] = 50
    has_expert: ClassVar[bool] = True

    def __init__(
        self,
        suite: str | None = None,
        max_turns: int | None = None,
        data: str | None = None,
        engine: str = "native",
    ) -> None:
        if engine not in ENGINES:
            raise unknown("engine of alfworld", str(engine), ENGINES)
        check_text("data", data)
        self._data = data
        self._kind = engine
        self.needs_process = engine == "textworld"
        self._loaded: str | None = None
        super().__init__(suite, max_turns)

    @classmethod
    def suite_names(cls) -> tuple[str, ...]:
        """Return the generated suites, the published ones and the one for own games."""
        return tuple(f"{cls.name}/{short}" for short in _ABOUT)

    @classmethod
    def data_sets(cls) -> Mapping[str, DataSet]:
        """Return the published games."""
        return {"games": GAMES}

    def load_suite(self, name: str) -> Suite:
        """Return a suite; published games are found on disk, not read."""
        if name not in self.suite_names():
            raise self.unknown_suite(name)
        short = name.removeprefix(f"{self.name}/")
        return Suite(
            name=name,
            tasks=self._find(short),
            official=short in SPLITS,
            held_out=short in {"gen-seen", "gen-unseen", "valid_seen", "valid_unseen"},
            about=_ABOUT[short],
        )

    def _find(self, short: str) -> tuple[str, ...]:
        """Return the tasks of a suite, and remember how to read one."""
        if short == _FOLDER:
            folder, tasks = own_games(self._data)
        elif short in SPLITS:
            folder = split_folder(short, self._data)
            tasks = published_games(folder)
        elif self._data is not None:
            raise UsageError(
                f"suite alfworld/{short} is generated and reads no files, got data={self._data!r};"
                " for the games of a folder take suite alfworld/folder"
            )
        else:
            self._read = partial(generated.generate, short)
            return generated.task_ids(short)
        self._read = partial(_read_below, folder)
        return tasks

    def task_type(self, task: str) -> str:
        """Return the type of a task: generated and published ids begin with it."""
        kind = task.partition("-")[0]
        if kind in TASK_TYPES and self.suite.name != f"{self.name}/{_FOLDER}":
            return kind
        return str(self._read(task).trajectory["task_type"])

    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        """Start a game. The task alone decides everything: the seed changes nothing."""
        if task != self._loaded:
            self._load(task)
        observation = self._engine.reset()
        if self._engine is not self._native:
            self._native.reset()
        return observation, self._info(observation, admissible=True)

    def act(self, action: str) -> Outcome:
        """Do a command; it is compared to the letter, surrounding white space left out."""
        admissible = action.strip() in self._engine.admissible
        observation = self._engine.step(action)
        if self._engine is not self._native:
            self._native.step(action)
        won = self._engine.won
        return Outcome(observation, float(won), won, self._info(observation, admissible))

    def expert(self) -> str | None:
        """Return the first command of a shortest plan; None when the game is won."""
        commands = plan(self._native)
        return commands[0] if commands else None

    def close(self) -> None:
        """Release the engine."""
        self._unload()
        super().close()

    def _load(self, task: str) -> None:
        self._unload()
        files = self._read(task)
        self._native = Engine(files)  # what the expert looks at, whoever plays
        self._engine: GameEngine = self._native
        if self._kind == "textworld":
            self._engine = TextWorldEngine(files)
        self._loaded = task

    def _unload(self) -> None:
        if self._loaded is not None:
            self._engine.close()
            self._loaded = None

    def _info(self, observation: str, admissible: bool) -> Info:
        won = self._engine.won
        return Info(
            task_id=str(self._loaded),
            task_type=self._engine.task_type,
            goal=self._engine.goal,
            won=won,
            score=float(won),
            admissible=admissible,
            admissible_actions=tuple(one for one in self._engine.admissible if one != HELP),
            anchor=observation,
        )


def _read_below(folder: Path, task: str) -> GameFiles:
    return read_game(folder / task)
