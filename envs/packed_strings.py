"""Many strings in two files that are mapped into memory: opened at once, read where needed."""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """Strings that lie in ``PATH.txt``, one after the other, and ``PATH.npy``, where each begins.

    Sorted ones can be searched with :mod:`bisect`.
    """

    def __init__(self, path: Path) -> None:
        self._starts = np.load(_starts_of(path), mmap_mode="r")
        with _texts_of(path).open("rb") as stream:
            empty = len(self._starts) == 1 or not int(self._starts[-1])
            self._bytes = b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    @staticmethod
    def write(path: Path, strings: Iterable[str]) -> None:
        """Write strings, one at a time; what is there is replaced."""
        starts = array("q", [0])
        with _texts_of(path).open("wb") as stream:
            for text in strings:
                starts.append(starts[-1] + stream.write(text.encode()))
        np.save(_starts_of(path), np.array(starts, np.int64))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one string, or those of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} strings, got index {index}")
        return self._bytes[int(self._starts[index]) : int(self._starts[index + 1])].decode()


def _texts_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.txt")


def _starts_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.npy")
