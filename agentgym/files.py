"""Writing a file so that a crash leaves the old one or the new one; where to keep things."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from agentgym.errors import DataError, UsageError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path``, replacing what was there in one step.

    Text is written as UTF-8, its line ends as they are. When this returns, the content is on the
    disk; when it raises, ``path`` is as it was before.

    Raises:
        DataError: The folder is not there or cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    # In the same folder: only there is the final rename one step.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # as is_temporary knows it
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)


def is_temporary(path: Path) -> bool:
    """Return whether a file's name is one that :func:`write_atomic` gives before it is done.

    Such a file stays behind where its process was killed.
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def make_folder(path: Path) -> Path:
    """Make a folder and its parents where they are not there yet, and prove it can be written.

    Returns:
        ``path``, so that a caller can go on with it.

    Raises:
        DataError: It cannot be made or written; the message says which and why.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise DataError(f"cannot write into the folder {path}: {_reason(error)}") from error
    return path


def try_lock(stream: IO[Any]) -> bool:
    """Lock a file until it is closed, however this process ends.

    Returns:
        False where another process has it. True also on a file system that knows no locks.

    Raises:
        UsageError: The platform has no file locks.
    """
    try:
        import fcntl
    except ImportError:
        raise UsageError(
            "this platform has no file locks (Python's module fcntl), without which two processes"
            " would write into one folder; use Linux or macOS, on Windows its Subsystem for Linux"
        ) from None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # whoever moves first wins
        pass
    return True


def make_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Return a folder, made first if it is not there; it appears whole or not at all.

    Args:
        folder: Its name stands for its content: processes that make it at once make the same.
        fill: Writes the content into an empty folder.

    Raises:
        DataError: It cannot be written.
    """
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    unfinished = folder.with_name(f".unfinished-{uuid.uuid4().hex}")
    try:
        unfinished.mkdir()
        fill(unfinished)
        sync_tree(unfinished)
        with suppress(FileExistsError):  # another process was faster, with the same content
            unfinished.rename(folder)
            sync_folder(folder.parent)
    except OSError as error:
        if not folder.is_dir():  # an older Linux says "not empty" in place of "exists"
            raise DataError(
                f"cannot write {folder}: {_reason(error)}; free space there, or set"
                " XDG_CACHE_HOME to another folder"
            ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """Return the folder for what can be made or fetched again; it may not be there yet.

    It is ``$XDG_CACHE_HOME/agentgym``, else ``~/.cache/agentgym``.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "agentgym"


def named_folder(named: str | None, variable: str, default: Callable[[], Path]) -> Path:
    """Return the folder that is named, else the one that a variable names, else the default.

    A ``~`` at the beginning of a name is the home folder. The folder need not be there.
    """
    name = named or os.environ.get(variable)
    return Path(name).expanduser() if name else default()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder, and their names, to the disk.

    Raises:
        OSError: A file cannot be opened.
    """
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def fill_empty(folder: Path, fill: Callable[[Path], object]) -> None:
    """Make a folder that was not there, or is empty, whole or not at all.

    Args:
        folder: Its name.
        fill: Writes the content into an empty folder.

    Raises:
        DataError: It holds something, or cannot be written.
    """
    make_folder(folder.parent)
    unfinished = folder.with_name(f".unfinished-{uuid.uuid4().hex}")
    try:
        unfinished.mkdir()
        fill(unfinished)
        sync_tree(unfinished)
        unfinished.rename(folder)  # in the place of an empty one
        sync_folder(folder.parent)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {_reason(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, on systems that can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
