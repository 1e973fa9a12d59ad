"""Unpacking a zip archive that somebody else made: all of it, below one folder, or an error."""

from __future__ import annotations

import os
import re
import shutil
import stat
import zlib
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from agentgym.errors import DataError
from agentgym.fetch import Watch

_CHUNK = 1 << 20
_NOT_POSIX = re.compile(r"[A-Za-z]:|.*\\")  # names that lead elsewhere on other systems


class BrokenArchiveError(DataError):
    """An archive cannot be unpacked, or must not be."""


def unpack(archive: Path, into: Path, watch: Watch | None = None) -> None:
    """Unpack a zip archive.

    Every name is looked at before the first file is written. A file that is already there, from
    an archive unpacked before, stays.

    Args:
        archive: The zip file.
        into: Where to; it exists. After an error it holds a part of the archive.
        watch: Who is told how it goes.

    Raises:
        BrokenArchiveError: The archive is broken, or holds something that leads out of ``into`` or
            is no ordinary file.
        DataError: There is no room for what it holds.
    """
    watch = watch or Watch()
    try:
        with ZipFile(archive) as opened:
            members = opened.infolist()
            _refuse_unsafe(archive, members)
            _refuse_without_room(archive, members, into)
            total, done = sum(one.file_size for one in members), 0
            for member in members:
                _write(opened, member, into)
                done += member.file_size
                watch.moved(f"unpacking {archive.name}", done, total)
    except (BadZipFile, zlib.error, LZMAError, EOFError, ValueError, RuntimeError) as error:
        # The last two: a name that is no text; a compression or encryption that is not known.
        raise BrokenArchiveError(f"{archive} is no whole zip archive: {error}") from error
    except OSError as error:
        raise DataError(
            f"cannot unpack {archive} into {into}: {error.strerror or error}"
        ) from error


def _refuse_unsafe(archive: Path, members: list[ZipInfo]) -> None:
    seen = set()
    for member in members:
        path = PurePosixPath(member.filename)
        leads_out = path.is_absolute() or ".." in path.parts or not path.parts
        leads_out = leads_out or _NOT_POSIX.match(member.filename) is not None
        special = stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
        if leads_out or special or path in seen:
            raise BrokenArchiveError(
                f"{archive} holds {member.filename!r}; only ordinary files below one folder are"
                " unpacked, each once"
            )
        seen.add(path)


def _refuse_without_room(archive: Path, members: list[ZipInfo], into: Path) -> None:
    needed, free = sum(one.file_size for one in members), shutil.disk_usage(into).free
    if needed > free:
        raise DataError(
            f"no room to unpack {archive}: {needed} bytes are needed in {into} and {free} are free;"
            " make room and run the same command again"
        )


def _write(opened: ZipFile, member: ZipInfo, into: Path) -> None:
    path = into / member.filename
    if member.is_dir():
        path.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member) as source, path.open("xb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
            target.flush()
            os.fsync(target.fileno())
