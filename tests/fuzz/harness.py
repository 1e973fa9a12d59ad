"""Runs a target over many inputs and notes what must not be: exceptions, hangs, files outside."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from agentgym.errors import AgentGymError

HANG_S = 1.0  # of the processor: a machine that is busy with other things is no hang
_OURS = Path(__file__).parents[2]
_READING = frozenset({"os.listdir", "os.scandir"})
_CHANGING = {  # and how many paths come first
    "os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.symlink": 2, "os.link": 2,
    "os.truncate": 1,
}  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Result:
    """What a target did with its inputs."""

    name: str
    count: int = 0
    refused: int = 0  # by an error of this package
    slowest: float = 0.0  # seconds of the processor
    seconds: float = 0.0  # of all
    failures: dict[str, bytes] = field(default_factory=dict)  # by kind, the first input


class _Hang(BaseException):
    pass


def run(
    name: str, target: Callable[[bytes], object], inputs: Iterable[bytes], home: Path
) -> Result:
    """Run a target over inputs.

    Args:
        name: Of the target.
        target: May raise what this package raises, and nothing else; what must hold is asserted.
        inputs: What it gets.
        home: The only folder that it may look into, beside code, and where it works. Beside it
            nothing may be changed.
    """
    result = Result(name)
    begun = time.monotonic()
    with _watching(home) as outside, _alarm():
        for data in inputs:
            started = time.process_time()
            kind = _call(target, data, result)
            took = time.process_time() - started
            result.count += 1
            result.slowest = max(result.slowest, took)
            if outside:
                kind = kind or f"looked outside: {outside.pop()}"
                outside.clear()
            if kind is not None:
                result.failures.setdefault(kind, data)
    result.seconds = time.monotonic() - begun
    return result


def _call(target: Callable[[bytes], object], data: bytes, result: Result) -> str | None:
    """Return the kind of failure, if any."""
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        target(data)
    except AgentGymError:
        result.refused += 1
    except _Hang:
        return f"no end after {HANG_S:g} s"
    except Exception as error:
        return _kind(error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def _kind(error: Exception) -> str:
    """Return the error's type and the last places of ours that it came by."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if str(_OURS) in one.filename and ".venv" not in one.filename]
    places = [f"{Path(one.filename).name}:{one.lineno}" for one in ours[-2:]]
    return f"{type(error).__name__} by {' and '.join(places)}"


@contextmanager
def _alarm() -> Iterator[None]:
    def hang(number: int, frame: FrameType | None) -> None:
        raise _Hang

    before = signal.signal(signal.SIGVTALRM, hang)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)


_homes: list[tuple[str, set[str]]] = []  # an audit hook cannot be taken away again


@contextmanager
def _watching(home: Path) -> Iterator[set[str]]:
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    outside: set[str] = set()
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    # What is opened below an open folder is told by its name alone, as if it were here.
    with chdir(home):
        _homes.append((os.path.realpath(home), outside))
        try:
            yield outside
        finally:
            _homes.pop()
            sys.dont_write_bytecode = before


_hooked: list[bool] = []
_FOLDERS = [_OURS / name for name in ("agentgym", "envs", "policies", "trainers", "tests/fuzz")]
_PATH = [path for path in map(os.path.realpath, sys.path) if not _OURS.is_relative_to(path)]
_CODE = [*map(os.path.realpath, (sys.prefix, sys.base_prefix, *_FOLDERS)), *_PATH]


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _homes:
        return
    changes = event in _CHANGING
    if event == "open":
        changes = isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
    elif not changes and event not in _READING:
        return
    home, outside = _homes[-1]
    allowed = [home] if changes else [home, *_CODE]
    named = arguments[: _CHANGING.get(event, 1)]
    paths = [os.fsdecode(one) for one in named if isinstance(one, str | bytes)]  # no open files
    if event == "os.symlink":  # what it leads to is told from where it is
        paths[0] = os.path.join(os.path.dirname(paths[1]), paths[0])
    for path in map(os.path.realpath, paths):
        if not any(path == folder or path.startswith(folder + os.sep) for folder in allowed):
            outside.add(path)
