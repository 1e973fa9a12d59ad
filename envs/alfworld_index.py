"""Which games below a folder can be solved, without reading a third of a gigabyte every time.

That a game can be solved stands somewhere inside its file. What was read once is kept in the
user's cache and believed as long as the file has the same size and time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agentgym.envs.alfworld_files import GAME_FILE, TRAJECTORY_FILE
from agentgym.errors import DataError
from agentgym.files import cache_folder, write_atomic

_SOLVABLE = re.compile(rb'"solvable"\s*:\s*(true|false|null)')  # quotes inside texts are escaped
_FLAGS = {b"true": True, b"false": False}
_WORTH_KEEPING = 100  # games read; fewer are read in no time


class _Seen(NamedTuple):
    """A game file as it was when it was read."""

    size: int  # bytes
    time: int  # of its last change, in nanoseconds
    solvable: bool | None  # None where the file does not say


def solvable_flags(folder: Path) -> dict[str, bool | None]:
    """Return whether each game below a folder can be solved, None where its file does not say.

    Args:
        folder: Game folders lie in it at any depth.

    Returns:
        By the game's path below ``folder``.

    Raises:
        DataError: A game file cannot be read.
    """
    known = _load(folder)
    seen: dict[str, _Seen] = {}
    read = 0
    root = str(folder)
    for game, state in _games(root):
        name = game[len(root) :].strip(os.sep).replace(os.sep, "/") or "."
        old = known.get(name)
        if old is not None and (old.size, old.time) == (state.st_size, state.st_mtime_ns):
            seen[name] = old
        else:
            seen[name] = _Seen(state.st_size, state.st_mtime_ns, _read_flag(Path(game)))
            read += 1
    if read >= _WORTH_KEEPING:
        _save(folder, seen)
    return {name: one.solvable for name, one in seen.items()}


def _games(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every game folder and what the file system says of its game file."""
    try:
        with os.scandir(folder) as entries:
            here = {entry.name: entry for entry in entries}
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    if GAME_FILE in here and TRAJECTORY_FILE in here:
        yield folder, here[GAME_FILE].stat()
    for entry in here.values():
        if entry.is_dir(follow_symlinks=False):
            yield from _games(entry.path)


def _read_flag(game: Path) -> bool | None:
    try:
        found = _SOLVABLE.search((game / GAME_FILE).read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {game / GAME_FILE}: {error}") from error
    return _FLAGS.get(found[1]) if found else None


# The index on the disk ----------------------------------------------------------------------------


def _path(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "alfworld-index" / f"{name}.json"


def _load(folder: Path) -> Mapping[str, _Seen]:
    try:
        read = json.loads(_path(folder).read_text(encoding="utf-8"))
        return {name: _Seen(*values) for name, values in read.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # there is none, or it is broken: everything is read again


def _save(folder: Path, seen: Mapping[str, _Seen]) -> None:
    path = _path(folder)
    with suppress(OSError, DataError):  # a cache that cannot be written is none
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(seen))
