"""The folder of a run: what was asked for, what was measured, and where to go on from.

::

    config.toml              the resolved configuration
    env.json                 versions, commit, digests of the suites, command line
    metrics.jsonl            one flat object a step
    trajectories/step_000010.jsonl.gz
    eval/step_000050/{results.json,trajectories.jsonl.gz}   below the suite, where several are
    checkpoints/step_000050/{hf/,trainer/,metrics.jsonl,manifest.json}   checkpoints/latest
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agentgym.errors import DataError, UsageError
from agentgym.files import is_temporary, make_folder, sync_folder, try_lock, write_atomic
from agentgym.trainers.manifest import flaw, seal
from agentgym.trajectory_line import gzipped

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
ABOUT = "env.json"
LOCK = ".lock"
_UNFINISHED = ".tmp"


class SaveOptions(BaseModel):
    """What is kept on disk.

    Attributes:
        every: Checkpoint after every so many steps, and after the last.
        keep: How many checkpoints stay.
        trajectories_every: Write the trajectories of every so many steps; 0 writes none.
        token_fields: How many trajectories of a step carry their per-token fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(default=10, ge=1)
    keep: int = Field(default=2, ge=1)
    trajectories_every: int = Field(default=10, ge=0)
    token_fields: int = Field(default=8, ge=0)


def step_name(step: int) -> str:
    """Return how a step is called in file names; sorting names sorts steps."""
    return f"step_{step:06d}"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process that trains in a folder, until the block or the process ends.

    Args:
        path: A run's folder; it is made if need be.

    Raises:
        UsageError: Another process trains in it.
        DataError: It cannot be written.
    """
    try:
        stream = (make_folder(path) / LOCK).open("ab")
    except OSError as error:
        raise DataError(f"cannot write {path / LOCK}: {error.strerror}") from error
    with stream:
        if not try_lock(stream):
            raise UsageError(
                f"another process trains in {path}; wait until it has ended, or choose another"
                " --output"
            )
        yield


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: str, about: Mapping[str, Any]) -> RunFolder:
        """Make a new run folder.

        Args:
            path: Must not exist, or be empty.
            config: The resolved configuration as TOML.
            about: What else makes the run what it is; written to ``env.json``.

        Raises:
            UsageError: The folder holds a run or other files.
            DataError: It cannot be written.
        """
        cls.refuse(path)
        make_folder(path)
        write_atomic(path / ABOUT, json.dumps(about, indent=2) + "\n")
        write_atomic(path / CONFIG, config)
        return cls(path)

    @classmethod
    def refuse(cls, path: Path) -> None:
        """Raise if a new run cannot be made in ``path``; changes nothing.

        Raises:
            UsageError: The folder holds a run or other files.
        """
        if (path / CONFIG).exists():
            raise UsageError(
                f"{path} already holds a run; go on with --resume, or choose another --output"
            )
        if path.is_dir() and not all(_is_of_a_start(inside) for inside in path.iterdir()):
            raise UsageError(f"{path} is not empty; choose another --output")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the folder of a run that was begun before.

        Raises:
            UsageError: There is no run in it.
        """
        if not (path / CONFIG).is_file():
            raise UsageError(f"{path} holds no run to resume: it has no {CONFIG}")
        return cls(path)

    @property
    def config(self) -> str:
        """The resolved configuration, as TOML."""
        return (self.path / CONFIG).read_text(encoding="utf-8")

    # Metrics ------------------------------------------------------------------------------------

    def append_metrics(self, metrics: Mapping[str, float]) -> None:
        """Append one line to ``metrics.jsonl``; it has a ``step``.

        Raises:
            DataError: It cannot be written.
        """
        path = self.path / METRICS
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(metrics) + "\n")
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}; {_GO_ON}") from error

    def metrics(self) -> list[dict[str, float]]:
        """Return the metrics of all steps so far. A last line that was cut off is left out.

        Raises:
            DataError: The file holds something else.
        """
        return _metrics_of(self.path / METRICS)

    def cut(self, step: int) -> None:
        """Forget everything later than ``step``, so that steps done again are not doubled.

        What a process that was killed left half written is removed, too.

        The metrics until then are those that its checkpoint carries, if there is one: the file of
        a run that died may lack some.

        Raises:
            DataError: There is no checkpoint, and the metrics cannot be read.
        """
        carried = self.path / "checkpoints" / step_name(step) / METRICS
        lines = _metrics_of(carried) if carried.exists() else self.metrics()
        kept = [line for line in lines if line["step"] <= step]
        write_atomic(self.path / METRICS, "".join(json.dumps(line) + "\n" for line in kept))
        if carried.exists():
            write_atomic(carried.parent.with_name("latest"), step_name(step) + "\n")
        for path in list(self.path.rglob(".*")):
            if is_temporary(path) and path.is_file():
                path.unlink()
        for folder in ("trajectories", "eval", "checkpoints"):
            for path in sorted((self.path / folder).glob("step_*")):
                number = path.name.removeprefix("step_").split(".")[0]
                if (number.isdigit() and int(number) > step) or path.suffix == _UNFINISHED:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    # Trajectories -------------------------------------------------------------------------------

    def write_trajectories(self, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write the trajectories of a step, one JSON object a line, gzipped."""
        _write_lines(self.path / "trajectories" / f"{step_name(step)}.jsonl.gz", lines)

    def write_eval_trajectories(
        self, step: int, lines: Sequence[Mapping[str, Any]], suite: str = ""
    ) -> None:
        """Write the episodes of the evaluation after ``step``, likewise."""
        _write_lines(self.eval_folder(step, suite) / "trajectories.jsonl.gz", lines)

    def eval_folder(self, step: int, suite: str = "") -> Path:
        """Return where the evaluation after ``step`` belongs; that of a suite among several."""
        return self.path / "eval" / step_name(step) / suite

    # Checkpoints --------------------------------------------------------------------------------

    def save_checkpoint(self, step: int, write: Callable[[Path], None], keep: int) -> Path:
        """Save a checkpoint whole or not at all, and remove all but the last ``keep``.

        When this returns, it is on the disk, sealed by its manifest.

        Args:
            step: After which step.
            write: Writes the checkpoint's files into the folder it is given.
            keep: How many checkpoints stay on disk.

        Raises:
            DataError: It cannot be written; the one before stands.
        """
        folder = self.path / "checkpoints"
        final, partial = folder / step_name(step), folder / f"{step_name(step)}{_UNFINISHED}"
        try:
            self._write_checkpoint(partial, write)
            _remove(final)
            partial.rename(final)
        except (OSError, DataError) as error:
            shutil.rmtree(partial, ignore_errors=True)  # half a checkpoint is room that is needed
            raise DataError(f"cannot save the checkpoint {final}: {error}; {_GO_ON}") from error
        write_atomic(folder / "latest", final.name + "\n")
        for old in sorted(path for path in folder.glob("step_*") if not path.suffix)[:-keep]:
            _remove(old)
        return final

    def _write_checkpoint(self, folder: Path, write: Callable[[Path], None]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)
        if (self.path / METRICS).exists():
            shutil.copyfile(self.path / METRICS, folder / METRICS)
        seal(folder)

    def sound_checkpoint(self, say: Callable[[str], None]) -> tuple[int, Path] | None:
        """Return the last checkpoint whose files are as they were written.

        Args:
            say: Told of each later one that is broken.

        Returns:
            Its step and folder; None before the first.

        Raises:
            DataError: There are checkpoints, and none of them is whole.
        """
        latest = self.latest_checkpoint()
        if latest is None:
            return None
        for step, folder in self._checkpoints(latest[0]):
            wrong = flaw(folder)
            if wrong is None:
                return step, folder
            say(f"the checkpoint {folder} is broken: {wrong}; looking for the one before it")
        raise DataError(
            f"no checkpoint in {latest[1].parent} is whole; nothing was changed. Bring one back"
            " from a copy, or start a new run"
        )

    def _checkpoints(self, last: int) -> list[tuple[int, Path]]:
        """Return the steps and folders of the checkpoints until step ``last``, the last first."""
        folders = (self.path / "checkpoints").glob("step_*")
        numbered = ((path.name.removeprefix("step_"), path) for path in folders)
        found = [(int(number), path) for number, path in numbered if number.isdecimal()]
        return sorted((one for one in found if one[0] <= last), reverse=True)

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Return the step and folder of the last whole checkpoint, or None before the first.

        Raises:
            DataError: ``latest`` names a checkpoint that is not there.
        """
        pointer = self.path / "checkpoints" / "latest"
        if not pointer.exists():
            return None
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        folder = pointer.parent / name
        number = name.removeprefix("step_")
        if not number.isdecimal() or not _is_folder(folder):
            raise DataError(f"{pointer} names {name!r}, which is no checkpoint in {pointer.parent}")
        return int(number), folder


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for one
        return False


class BystanderFolder(RunFolder):
    """A run's folder as a process has it that leaves all writing to another."""

    def append_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write nothing."""

    def cut(self, step: int) -> None:
        """Write nothing."""

    def write_trajectories(self, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write nothing."""

    def write_eval_trajectories(
        self, step: int, lines: Sequence[Mapping[str, Any]], suite: str = ""
    ) -> None:
        """Write nothing."""

    def save_checkpoint(self, step: int, write: Callable[[Path], None], keep: int) -> Path:
        """Write nothing, and return where the other writes."""
        return self.path / "checkpoints" / step_name(step)


def _is_of_a_start(path: Path) -> bool:
    """Return whether a file is what a run that was killed while it began leaves behind."""
    return path.name == LOCK or is_temporary(path) or (path.name == ABOUT and _is_about_a_run(path))


def _is_about_a_run(path: Path) -> bool:
    """Return whether this package wrote an ``env.json``; other programs have files of that name."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and "agentgym" in about


_GO_ON = "the last checkpoint stands, make room and go on with --resume"


def _remove(folder: Path) -> None:
    """Remove a checkpoint such that a process that dies meanwhile leaves no half of one."""
    if folder.exists():
        sync_folder(folder.parent)  # what takes its place is there first
        doomed = folder.with_name(f"{folder.name}.old{_UNFINISHED}")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    make_folder(path.parent)
    write_atomic(path, gzipped(lines))


def _metrics_of(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    *lines, tail = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found = [_line(line) for line in lines]
    whole = [line for line in found if line is not None]
    if len(whole) < len(found):
        raise DataError(
            f"{path}, line {found.index(None) + 1} is no line of metrics; nothing was changed."
            " Remove the line, or bring the file back from a copy"
        )
    last = _line(tail)  # not whole where the process ended while it was written
    return whole if last is None else [*whole, last]


def _line(text: str) -> dict[str, float] | None:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) and isinstance(read.get("step"), int) else None
