"""The results of an evaluation: the whole protocol, the statistics, and how each episode went.

The folder of an evaluation that is done holds ``results.json`` and ``trajectories.jsonl.gz``, one
episode a line, in the same order.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agentgym import __version__
from agentgym.episodes import Episode, Summary
from agentgym.errors import DataError, UsageError
from agentgym.files import make_folder, write_atomic
from agentgym.journal import refuse_another_protocol, remove_journal
from agentgym.run_files import RESULTS_FILE, RESULTS_FORMAT

TRAJECTORIES_FILE = "trajectories.jsonl.gz"


@dataclass(frozen=True, slots=True)
class EvalProtocol:
    """Everything that the episodes of an evaluation are a function of."""

    agentgym: str  # the version of this package
    commit: str | None  # of the clone that it ran from
    versions: dict[str, str]  # of Python and the packages that decide what happens
    env: str
    options: dict[str, object]  # of the environment, beside suite and max_turns
    suite: str
    digest: str  # of the whole suite's task ids
    official: bool
    held_out: bool
    note: str | None  # what must be said beside the result
    suite_tasks: int  # tasks in the suite
    tasks: int  # tasks evaluated: the first of the suite
    samples: int  # episodes a task
    seed: int
    max_turns: int
    policy: str
    task_types: tuple[str, ...] = ()  # only these; all when empty
    sampling: dict[str, object] | None = None  # of a model
    prompt: str | None = None  # SHA-256 of what a model is told, and how its answers are read
    weights: str | None = None  # SHA-256 of a model's folder, or its commit on the hub
    tokenizer: str | None = None  # SHA-256 of a model's tokenizer and chat template
    endpoint: str | None = None  # that a model was asked at
    batch: int | None = None  # episodes sampled together, of a model in this process


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation, whole. Episodes are in the suite's order, the samples of a task together."""

    protocol: EvalProtocol
    summary: Summary
    data: str  # SHA-256 of what the tasks showed at first
    episodes: tuple[Episode, ...]

    def to_json(self) -> str:
        """Return the content of ``results.json``."""
        content = {"format": RESULTS_FORMAT, **asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def results_there(folder: Path, protocol: EvalProtocol) -> Evaluation | None:
    """Return the results that the same evaluation wrote before; None where there are none.

    Raises:
        UsageError: Something else is there.
    """
    if not has_results(folder):
        return None
    try:
        evaluation = read_results(folder)
    except DataError as error:
        raise UsageError(
            f"{folder / RESULTS_FILE} is already there; nothing was overwritten, choose another"
            f" folder ({error})"
        ) from error
    refuse_another_protocol(folder, asdict(evaluation.protocol), asdict(protocol))
    remove_journal(folder)  # left by a kill between the results and this
    return evaluation


def has_results(folder: Path) -> bool:
    """Return whether results were written into ``folder``."""
    return (folder / RESULTS_FILE).exists()


def read_results(path: Path) -> Evaluation:
    """Read ``results.json``.

    Args:
        path: The file, or its folder.

    Raises:
        DataError: It is not there, is something else, or was written by another version.
    """
    path = path / RESULTS_FILE if path.is_dir() else path
    if not path.exists():
        raise DataError(
            f"cannot read the results {path}: there is no such file; expected that of an"
            " evaluation, which agentgym eval --output FOLDER writes"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the results {path}: {error}") from error
    if not (isinstance(content, dict) and isinstance(content.get("protocol"), dict)):
        raise DataError(f"cannot read the results {path}: agentgym eval did not write this file")
    found = content.pop("format", 1)
    if found != RESULTS_FORMAT:
        by = content["protocol"].get("agentgym", "?")
        raise DataError(
            f"cannot read the results {path}: they were written by agentgym {by} in format {found},"
            f" and this version, {__version__}, reads format {RESULTS_FORMAT}; evaluate again"
        )
    try:
        return TypeAdapter(Evaluation).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"cannot read the results {path}: {where}: {first['msg']}") from error


def write_results(evaluation: Evaluation, folder: Path) -> Path:
    """Write ``results.json`` into ``folder`` and return its path.

    Raises:
        UsageError: It is there already.
        DataError: It cannot be written.
    """
    path = make_folder(folder) / RESULTS_FILE
    if path.exists():
        raise UsageError(f"{path} is already there; nothing was overwritten, choose another folder")
    write_atomic(path, evaluation.to_json())
    return path
