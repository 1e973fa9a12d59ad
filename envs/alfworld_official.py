"""Folders of ALFWorld games: the published splits, and anyone's own."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from agentgym.envs.alfworld_files import GAME_FILE, TRAJECTORY_FILE
from agentgym.errors import DataError, UsageError

SPLITS = ("train", "valid_seen", "valid_unseen")
"""The published splits; each is a folder below ``json_2.1.1`` of the data."""

_EXCLUDED = ("movable", "Sliced")  # in a path: tasks that the text game does not support
_SOLVABLE = re.compile(rb'(?<!\\)"solvable"\s*:\s*(true|false|null)')


def data_folder(data: str | None) -> Path:
    """Return where the published games lie: ``data``, else ``$ALFWORLD_DATA``, else the default.

    The default is where ``alfworld-download`` puts them, ``~/.cache/alfworld``.
    """
    named = data or os.environ.get("ALFWORLD_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "alfworld"


def split_folder(split: str, data: str | None) -> Path:
    """Return the folder of a published split.

    Raises:
        DataError: It is not there; the message says how to get it.
    """
    folder = data_folder(data) / "json_2.1.1" / split
    if not folder.is_dir():
        raise DataError(
            f"suite alfworld/{split} needs the published games, and there is no {folder}; get"
            " them with: pip install 'agentgym[alfworld]', then alfworld-download; if they lie"
            " elsewhere, set ALFWORLD_DATA. Generated games need no download:"
            " alfworld/gen-train, gen-seen, gen-unseen"
        )
    return folder


@cache
def published_games(folder: Path) -> tuple[str, ...]:
    """Return the games of a split that the benchmark plays, as paths below ``folder``, sorted.

    It plays what is said to be solvable, and neither movable receptacles nor slices.

    Raises:
        DataError: There is no such game.
    """
    return _found(
        folder,
        [
            game
            for game in _game_folders(folder)
            if not any(word in str(game) for word in _EXCLUDED) and _flag(game) == b"true"
        ],
    )


@cache
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
    return folder, _found(folder, [one for one in _game_folders(folder) if _flag(one) != b"false"])


def _game_folders(folder: Path) -> list[Path]:
    return [
        Path(found)
        for found, _, names in os.walk(folder)
        if TRAJECTORY_FILE in names and GAME_FILE in names
    ]


def _flag(game: Path) -> bytes | None:
    """Return a game's ``solvable`` as JSON writes it, without parsing a gigabyte of a split."""
    try:
        found = _SOLVABLE.search((game / GAME_FILE).read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {game / GAME_FILE}: {error}") from error
    return found[1] if found else None


def _found(folder: Path, games: list[Path]) -> tuple[str, ...]:
    if not games:
        raise DataError(
            f"{folder} holds no playable ALFWorld game; a game is a folder with {GAME_FILE}"
            f" and {TRAJECTORY_FILE}"
        )
    return tuple(sorted(game.relative_to(folder).as_posix() for game in games))
