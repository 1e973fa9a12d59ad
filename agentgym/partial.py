"""The part of a file that has arrived, kept on the disk so that the rest can be asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from agentgym.errors import DataError
from agentgym.files import sync_folder, write_atomic


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of a part came from."""

    url: str
    validator: str | None  # of the version that was sent; without it nothing can be resumed


class Part:
    """The bytes of a file that have arrived, and the note of where they came from.

    Args:
        target: The file that is to be; beside it lie ``NAME.part`` and ``NAME.part.json``.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self.size = self.path.stat().st_size if self.path.exists() else 0
        self._source = self._read_note()

    def _read_note(self) -> Source | None:
        try:
            return Source(**json.loads(self._note.read_text(encoding="utf-8")))
        except (
            OSError,
            ValueError,
            TypeError,
            RecursionError,
        ):  # none, or none of ours: nothing to resume
            return None

    def conditions(self, url: str) -> dict[str, str]:
        """Return the headers that ask for the rest, if there is a rest to ask this address for."""
        source = self._source
        if not self.size or source is None or source.url != url or source.validator is None:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": source.validator}

    def begin(self, source: Source) -> None:
        """Start from nothing: older bytes are of no use any more."""
        self.discard()
        write_atomic(self._note, json.dumps(asdict(source)))
        self._source = source
        self.path.touch()

    @contextmanager
    def writing(self) -> Iterator[Callable[[bytes], None]]:
        """Yield what appends to the part."""
        try:
            with self.path.open("ab") as stream:

                def write(chunk: bytes) -> None:
                    stream.write(chunk)
                    self.size += len(chunk)

                yield write
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self.size = self.path.stat().st_size if self.path.exists() else 0
            raise DataError(
                f"cannot write {self.path}: {error.strerror or error}; what arrived is kept, run"
                " the same command again to go on"
            ) from error

    def discard(self) -> None:
        """Forget what has arrived."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.size, self._source = 0, None

    def finish(self) -> None:
        """Give the whole file its name."""
        self.path.replace(self.target)
        sync_folder(self.target.parent)
        self._note.unlink(missing_ok=True)
