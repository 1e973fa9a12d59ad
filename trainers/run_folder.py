"""The folder of a run: what was asked for, what was measured, and where to go on from.

::

    config.toml              the resolved configuration
    env.json                 versions, commit, digests of the suites, command line
    metrics.jsonl            one flat object a step
    trajectories/step_000010.jsonl.gz
    eval/step_000050/{results.json,trajectories.jsonl.gz}
    checkpoints/step_000050/{hf/,trainer/}   checkpoints/latest
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agentgym.errors import DataError, UsageError
from agentgym.files import make_folder, write_atomic
from agentgym.trajectory_line import gzipped

CONFIG = "config.toml"
METRICS = "metrics.jsonl"


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
        write_atomic(path / "env.json", json.dumps(about, indent=2) + "\n")
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
        if path.is_dir() and any(path.iterdir()):
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
        """Append one line to ``metrics.jsonl``; it has a ``step``."""
        with (self.path / METRICS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(metrics) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """Return the metrics of all steps so far. A last line that was cut off is left out."""
        path = self.path / METRICS
        if not path.exists():
            return []
        *lines, tail = path.read_text(encoding="utf-8").split("\n")
        if tail:  # a write that was cut off by the end of the process
            lines = [*lines, *([tail] if _is_json(tail) else [])]
        return [json.loads(line) for line in lines]

    def cut(self, step: int) -> None:
        """Forget everything later than ``step``, so that steps done again are not doubled."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        write_atomic(self.path / METRICS, "".join(json.dumps(line) + "\n" for line in kept))
        for folder in ("trajectories", "eval", "checkpoints"):
            for path in sorted((self.path / folder).glob("step_*")):
                number = path.name.removeprefix("step_").split(".")[0]
                if (number.isdigit() and int(number) > step) or path.suffix == ".tmp":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    # Trajectories -------------------------------------------------------------------------------

    def write_trajectories(self, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write the trajectories of a step, one JSON object a line, gzipped."""
        _write_lines(self.path / "trajectories" / f"{step_name(step)}.jsonl.gz", lines)

    def write_eval_trajectories(self, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write the episodes of the evaluation after ``step``, likewise."""
        _write_lines(self.eval_folder(step) / "trajectories.jsonl.gz", lines)

    def eval_folder(self, step: int) -> Path:
        """Return where the evaluation after ``step`` belongs."""
        return self.path / "eval" / step_name(step)

    # Checkpoints --------------------------------------------------------------------------------

    def save_checkpoint(self, step: int, write: Callable[[Path], None], keep: int) -> Path:
        """Save a checkpoint whole or not at all, and remove all but the last ``keep``.

        Args:
            step: After which step.
            write: Writes the checkpoint's files into the folder it is given.
            keep: How many checkpoints stay on disk.
        """
        folder = self.path / "checkpoints"
        final = folder / step_name(step)
        partial = folder / f"{step_name(step)}.tmp"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        write_atomic(folder / "latest", final.name + "\n")
        for old in sorted(folder.glob("step_*"))[:-keep]:
            shutil.rmtree(old)
        return final

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Return the step and folder of the last whole checkpoint, or None before the first.

        Raises:
            DataError: ``latest`` names a checkpoint that is not there.
        """
        pointer = self.path / "checkpoints" / "latest"
        if not pointer.exists():
            return None
        name = pointer.read_text(encoding="utf-8").strip()
        folder = pointer.parent / name
        number = name.removeprefix("step_")
        if not number.isdigit() or not folder.is_dir():
            raise DataError(f"{pointer} names {name!r}, which is no checkpoint in {pointer.parent}")
        return int(number), folder


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, gzipped(lines))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
