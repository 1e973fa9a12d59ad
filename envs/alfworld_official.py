"""Folders of ALFWorld games: the published splits and where they can be had, and anyone's own."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from agentgym.download import DataSet
from agentgym.envs.alfworld_files import GAME_FILE, TRAJECTORY_FILE
from agentgym.envs.alfworld_index import solvable_flags
from agentgym.errors import DataError, UsageError
from agentgym.fetch import RemoteFile
from agentgym.files import named_folder

SPLITS = ("train", "valid_seen", "valid_unseen")
"""The published splits; each is a folder below ``json_2.1.1`` of the data."""

VARIABLE = "ALFWORLD_DATA"
"""The environment variable that the benchmark's own tools, too, find their data by."""

_TREE = "json_2.1.1"
_RELEASES = "https://github.com/alfworld/alfworld/releases/download"
_EXCLUDED = ("movable", "Sliced")  # in a path: tasks that the text game does not support


def data_folder(data: str | None = None) -> Path:
    """Return where the published games lie: ``data``, else ``$ALFWORLD_DATA``, else the default.

    The default is where ``alfworld-download`` puts them, ``~/.cache/alfworld``.
    """
    return named_folder(data, VARIABLE, lambda: Path.home() / ".cache" / "alfworld")


# What `alfworld-download` of ALFWorld 0.5.0 fetches for text: one archive has the games, the other
# the tasks' types and parameters. Sizes and hashes are those that several users wrote down.
GAMES = DataSet(
    about="the published games: train, valid_seen and valid_unseen",
    licence="that of the repository, MIT",
    files=(
        RemoteFile(
            "json_2.1.1_json.zip",
            (f"{_RELEASES}/0.2.2/json_2.1.1_json.zip",),
            size=72_018_818,
            sha256="25171f16e20ad7b048c47275c45b0babf3aa1cbab29cec97387922350a9844bc",
            archive=True,
        ),
        RemoteFile(
            "json_2.1.3_tw-pddl.zip",
            (f"{_RELEASES}/0.4.2/json_2.1.3_tw-pddl.zip",),
            size=36_507_267,
            sha256="5df77ea759f2211a4106082839ddbbb790f1ba4e7d097ed732cf453f72aa36cf",
            archive=True,
        ),
    ),
    default_folder=data_folder,
    variable=VARIABLE,
    suite="alfworld/valid_unseen",
    unpacked=tuple(f"{_TREE}/{split}" for split in SPLITS),
)


def split_folder(split: str, data: str | None) -> Path:
    """Return the folder of a published split.

    Raises:
        DataError: It is not there; the message says how to get it.
    """
    base = data_folder(data)
    folder = base / _TREE / split
    if folder.is_dir():
        return folder
    source = "the option data" if data else VARIABLE
    if base.is_file():
        raise DataError(f"{source} names the file {base}; name the folder that holds {_TREE}")
    if (base / split).is_dir():
        raise DataError(f"{source} names {base}, which holds {split} itself; name the folder above")
    raise DataError(
        f"suite alfworld/{split} needs the published games, and there is no {folder}; get them"
        f" with: agentgym envs download alfworld; if they lie elsewhere, set {VARIABLE}. Generated"
        " games need no download: alfworld/gen-train, gen-seen, gen-unseen"
    )


def published_games(folder: Path) -> tuple[str, ...]:
    """Return the games of a split that the benchmark plays, as paths below ``folder``, sorted.

    It plays what is said to be solvable, and neither movable receptacles nor slices.

    Raises:
        DataError: There is no such game.
    """
    return _published(folder, _state(folder))


@lru_cache(maxsize=16)
def _published(folder: Path, state: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """Return the games as they are in one state of the folder, which tells answers apart."""
    return _found(
        folder,
        [
            game
            for game, solvable in solvable_flags(folder).items()
            if solvable and not any(word in game for word in _EXCLUDED)
        ],
    )


def _state(folder: Path) -> tuple[tuple[str, int], ...]:
    """Return what changes when a game is added or removed, two levels down as all games lie."""
    with os.scandir(folder) as tasks:
        return tuple(sorted((task.name, task.stat().st_mtime_ns) for task in tasks))


def own_games(data: str | None) -> tuple[Path, tuple[str, ...]]:
    """Return a folder of games and those in it that are not said to be unsolvable, sorted.

    Raises:
        UsageError: No folder is named.
        DataError: There is no such folder, or no game in it.
    """
    if data is None:
        raise UsageError("suite alfworld/folder plays your own games; name their folder: data=…")
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; data names a folder of ALFWorld games")
    flags = solvable_flags(folder)
    return folder, _found(folder, [game for game in flags if flags[game] is not False])


def _found(folder: Path, games: list[str]) -> tuple[str, ...]:
    if not games:
        raise DataError(
            f"{folder} holds no playable ALFWorld game; a game is a folder with {GAME_FILE}"
            f" and {TRAJECTORY_FILE}"
        )
    return tuple(sorted(games))
