"""An ALFWorld game as the published benchmark stores it: a folder of two JSON files.

``game.tw-pddl`` holds the PDDL domain and problem, the text grammar and whether the game can be
solved; ``traj_data.json`` the task's type and parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.envs.alfworld_tasks import TASK_TYPES
from agentgym.errors import DataError
from agentgym.files import make_folder, write_atomic

GAME_FILE = "game.tw-pddl"
TRAJECTORY_FILE = "traj_data.json"


@dataclass(frozen=True, slots=True)
class GameFiles:
    """The two files of one game, parsed. ``name`` says which game in messages."""

    name: str
    game: Mapping[str, Any]
    """``pddl_domain``, ``grammar``, ``pddl_problem`` (str), ``solvable`` (bool or None),
    ``walkthrough`` (list of str or None)."""
    trajectory: Mapping[str, Any]
    """At least ``task_type`` and ``pddl_params``."""


def read_game(folder: Path) -> GameFiles:
    """Read a game folder.

    Raises:
        DataError: A file is missing or broken, or its task is of no known type.
    """
    game = _read_object(folder / GAME_FILE, ("pddl_domain", "grammar", "pddl_problem", "solvable"))
    trajectory = _read_object(folder / TRAJECTORY_FILE, ("task_type", "pddl_params"))
    if trajectory["task_type"] not in TASK_TYPES:
        raise DataError(
            f"{folder / TRAJECTORY_FILE} has the task type {str(trajectory['task_type'])[:60]!r};"
            f" ALFWorld's are {', '.join(TASK_TYPES)}"
        )
    return GameFiles(str(folder), game, trajectory)


def write_game(files: GameFiles, folder: Path) -> None:
    """Write a game into ``folder``, which must not hold one.

    Raises:
        DataError: The folder holds a game already or cannot be written.
    """
    parts = {GAME_FILE: files.game, TRAJECTORY_FILE: files.trajectory}
    if any((make_folder(folder) / name).exists() for name in parts):
        raise DataError(f"{folder} already holds a game; nothing was overwritten")
    for name, content in parts.items():
        write_atomic(folder / name, json.dumps(content))


def _read_object(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: nested without end
        raise DataError(f"cannot read {path}: {error}") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(f"{path} is not an ALFWorld file: it has no {', '.join(missing)}")
    return dict(content)
