"""Official data of environments: fetched, verified, unpacked, and only then put in its place.

An environment says what it needs as a :class:`DataSet`. Everything is gathered in a hidden folder
beside its place and moved there when it is whole, so that a data set is there or not, never half.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agentgym.errors import DataError
from agentgym.fetch import RemoteFile, Watch, fetch
from agentgym.files import make_folder, sync_folder, try_lock
from agentgym.unpack import BrokenArchiveError, unpack

WORK_FOLDER = ".agentgym-download"
"""Below the data's folder: what was fetched and is not yet in its place."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """Data that suites of an environment need, and where it can be had."""

    about: str  # in a few words
    licence: str
    files: tuple[RemoteFile, ...]
    default_folder: Callable[[], Path]
    """Where suites look for it when nothing else is said."""
    variable: str
    """The environment variable that names another folder."""
    suite: str
    """A suite that can be played with it."""
    unpacked: tuple[str, ...] = ()
    """Folders that are there when the archives are unpacked, as paths below the data's folder."""
    note: str = ""
    """What else it takes to play the suite."""
    prepare: Callable[[Path, Watch], None] | None = None
    """Make from the data's folder what suites need beside the files; quick where it is made."""
    check: Callable[[Path], None] | None = None
    """Raise a DataError where ``prepare`` would miss something, before anything is fetched."""

    @property
    def size(self) -> int | None:
        """Bytes to fetch; None if that is not known of every file."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None


def download(data: DataSet, folder: Path, watch: Watch | None = None) -> bool:
    """Bring a data set into a folder, unless it is there; a broken attempt is taken up again.

    Args:
        data: What is wanted.
        folder: Where to; made if it is not there.
        watch: Who is told how it goes.

    Returns:
        Whether anything had to be fetched or unpacked.

    Raises:
        DataError: It cannot be had, is not what is expected, does not fit on the disk, something
            else lies in its place, another download into the folder is running, or what prepares
            it is not installed.
    """
    watch = watch or Watch()
    if data.check is not None:
        data.check(folder)
    missing = _missing(data, folder)
    if missing:
        with _alone(make_folder(folder)) as work:
            missing = _missing(data, folder)  # another download may have ended just now
            _bring(data, missing, folder, work, watch)
            for file in missing:
                (work / file.name).unlink(missing_ok=True)
    if data.prepare is not None:
        data.prepare(folder, watch)
    return bool(missing)


def _missing(data: DataSet, folder: Path) -> list[RemoteFile]:
    """Return the files to fetch, and refuse what is in their way."""
    unpacked = all((folder / path).is_dir() for path in data.unpacked)
    in_the_way = [str(folder / top) for top in _tops(data) if os.path.lexists(folder / top)]
    if in_the_way and not unpacked:
        raise DataError(
            f"{', '.join(in_the_way)} is in the way: it has not all of {', '.join(data.unpacked)};"
            " move it away, or choose another folder with --to"
        )
    for file in data.files:
        _refuse_another(folder / file.name, file)
    return [
        file
        for file in data.files
        if not (unpacked if file.archive else (folder / file.name).exists())
    ]


def _tops(data: DataSet) -> list[str]:
    """Return what the archives bring, as names directly below the data's folder."""
    return list(dict.fromkeys(PurePosixPath(path).parts[0] for path in data.unpacked))


def _refuse_another(path: Path, file: RemoteFile) -> None:
    """Refuse a file that is not the expected one, by its size: its hash takes a while."""
    if not file.archive and path.exists() and file.size not in (None, path.stat().st_size):
        raise DataError(
            f"{path} has {path.stat().st_size} bytes, expected {file.size}; move it away, or choose"
            " another folder with --to"
        )


def _bring(
    data: DataSet, missing: list[RemoteFile], folder: Path, work: Path, watch: Watch
) -> None:
    """Gather everything in ``work``, then move it to its place."""
    fetched = {file: fetch(file, work, watch) for file in missing}
    archives = [path for file, path in fetched.items() if file.archive]
    tree = work / "unpacked"
    shutil.rmtree(tree, ignore_errors=True)  # of an attempt that was killed
    try:
        for path in archives:
            _unpack(path, make_folder(tree), watch)
        if archives:
            _refuse_incomplete(data, tree)
            _move([tree / top for top in _tops(data)], folder)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    _move([path for file, path in fetched.items() if not file.archive], folder)


def _unpack(archive: Path, tree: Path, watch: Watch) -> None:
    try:
        unpack(archive, tree, watch)
    except BrokenArchiveError as error:
        archive.unlink()
        raise DataError(f"{error}. It was removed; the same command fetches it again") from error


def _refuse_incomplete(data: DataSet, tree: Path) -> None:
    absent = [path for path in data.unpacked if not (tree / path).is_dir()]
    if absent:
        raise DataError(
            f"the archives hold no {', '.join(absent)}: what is at their addresses is not what it"
            " was. Nothing was put in its place"
        )


def _move(paths: list[Path], folder: Path) -> None:
    for path in paths:
        try:
            path.rename(folder / path.name)
            sync_folder(folder)
        except OSError as error:
            raise DataError(
                f"cannot move {path} into {folder}: {error.strerror or error}"
            ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Yield the work folder below ``folder``, which nobody else uses meanwhile."""
    work = make_folder(folder / WORK_FOLDER)
    with (work / "lock").open("w") as lock:
        if not try_lock(lock):
            raise DataError(f"another download into {folder} is running; wait for it, or end it")
        try:
            yield work
        finally:
            if len(list(work.iterdir())) == 1:  # the lock: nothing to take up again
                shutil.rmtree(work, ignore_errors=True)
