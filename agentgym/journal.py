"""The finished episodes of an evaluation, on the disk as soon as they are finished.

While an evaluation runs its folder holds::

    protocol.json     what is evaluated; another evaluation is refused
    episodes.jsonl    one finished episode a line, in the order they finished

so that one that was killed goes on where it was. A line is on the disk before the next episode
counts, and a last line that was cut off does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from agentgym.errors import DataError, UsageError
from agentgym.files import make_folder, try_lock, write_atomic
from agentgym.trajectory_line import json_line, read_lines, trajectory_line, trajectory_of
from agentgym.types import Key, Trajectory

PROTOCOL_FILE = "protocol.json"
EPISODES_FILE = "episodes.jsonl"


class Journal:
    """The finished episodes of one evaluation. Use :func:`open_journal`, which is alone in it.

    Attributes:
        finished: The episodes that were there, without their tokens.
    """

    def __init__(self, folder: Path, finished: dict[Key, Trajectory], stream: BinaryIO) -> None:
        self.folder = folder
        self.finished = finished
        self._stream = stream

    def append(self, trajectories: Sequence[Trajectory]) -> None:
        """Write down finished episodes; when this returns they are on the disk.

        Raises:
            DataError: They cannot be written.
        """
        lines = b"".join(json_line(trajectory_line(one)) for one in trajectories)
        try:
            self._stream.write(lines)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise DataError(
                f"cannot write {self.folder / EPISODES_FILE}: {error.strerror}; the episodes before"
                " are kept, make room and run the same command again"
            ) from error


@contextmanager
def open_journal(folder: Path, protocol: Mapping[str, Any]) -> Iterator[Journal]:
    """Yield the journal of an evaluation; begin it where there is none.

    Args:
        folder: Is made if need be.
        protocol: What is evaluated, as JSON takes it.

    Raises:
        UsageError: The folder holds an evaluation of another protocol; the message says where
            they differ.
        DataError: The folder cannot be written, another process evaluates into it, or what it
            holds is no journal.
    """
    path = make_folder(folder) / EPISODES_FILE
    with _append(path) as stream:
        _refuse_others(stream, folder)
        _check_protocol(folder, protocol, began=stream.tell() > 0)
        finished = {one.key: one for one in _read(path)}
        _cut_torn_line(path, stream)
        yield Journal(folder, finished, stream)


def remove_journal(folder: Path) -> None:
    """Delete the journal of a folder: what it kept is now in the results."""
    for name in (EPISODES_FILE, PROTOCOL_FILE):
        (folder / name).unlink(missing_ok=True)


def _append(path: Path) -> BinaryIO:
    try:
        return path.open("ab")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def _refuse_others(stream: BinaryIO, folder: Path) -> None:
    """Lock the journal until the stream is closed, however this process ends."""
    if not try_lock(stream):
        raise DataError(
            f"another process evaluates into {folder}; wait for it, or choose another folder"
        )


def _check_protocol(folder: Path, protocol: Mapping[str, Any], *, began: bool) -> None:
    path = folder / PROTOCOL_FILE
    if not path.exists():
        if began:
            raise DataError(
                f"{folder} has {EPISODES_FILE} and no {PROTOCOL_FILE} to tell of what; choose"
                " another folder"
            )
        write_atomic(path, json.dumps(protocol, indent=1) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}; choose another folder") from error
    refuse_another_protocol(folder, found, protocol)


def refuse_another_protocol(folder: Path, found: Any, protocol: Mapping[str, Any]) -> None:
    """Refuse to go on with, or to show, what another protocol made.

    Raises:
        UsageError: The protocols differ.
    """
    fields = found if isinstance(found, dict) else {}
    for name in (*protocol, *fields):
        there, here = json.dumps(fields.get(name)), json.dumps(protocol.get(name))
        if there != here:
            raise UsageError(
                f"{folder} holds an evaluation of another protocol ({name} is {there} there,"
                f" {here} here); nothing was overwritten, choose another folder"
            )


def _read(path: Path) -> Iterator[Trajectory]:
    for number, line in enumerate(read_lines(path), 1):
        try:
            yield trajectory_of(line)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}, line {number} is no episode of an evaluation ({error!r}); choose another"
                " folder"
            ) from error


def _cut_torn_line(path: Path, stream: BinaryIO) -> None:
    content = path.read_bytes()
    stream.truncate(content.rfind(b"\n") + 1)
    stream.seek(0, os.SEEK_END)
