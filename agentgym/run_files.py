"""Reads a run folder for people: what can be read is read, and what cannot is said in one line.

Standard library only, so that looking at a run waits for nothing. Nothing here writes.
"""

from __future__ import annotations

import gzip
import json
import sys
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from agentgym import __version__
from agentgym.errors import DataError

METRICS_FILE = "metrics.jsonl"
RESULTS_FILE = "results.json"
RESULTS_FORMAT = 2
"""Of ``results.json``; raised when files of before cannot be read: a new field has a default."""
EVALUATION = "eval"
"""What the trajectories of an evaluation by itself are named; those in a run have a step."""

_EXPECTED: Mapping[str, type | tuple[type, ...]] = {
    "task": str,
    "member": int,
    "branch": int,
    "won": bool,
    "stop": str,
    "turns": list,
}
"""What every trajectory has, and of which kind; a line without them is of something else."""

_TURN = ("observation", "text", "action")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of trajectories: of a training step, of the evaluation after one, or of another."""

    name: str  # train/10, eval/10 (of several suites eval/10/SUITE) or EVALUATION
    kind: str  # train or eval
    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of a run, or of an evaluation by itself, as far as it can be read.

    ``problems`` has a line for each thing that cannot: which file, where in it, and what it is.
    """

    path: Path
    steps: tuple[Mapping[str, float], ...]  # finite metrics, by step; the last word on a step wins
    sources: tuple[Source, ...]  # sorted by step, training before evaluation
    config: Mapping[str, Any] = field(default_factory=dict)  # an evaluation's is its protocol
    about: Mapping[str, Any] = field(default_factory=dict)  # env.json
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def is_evaluation(self) -> bool:
        """Whether it is an evaluation by itself, whose configuration is a protocol."""
        return {"policy", "suite"} <= self.config.keys()

    @property
    def title(self) -> str:
        """What was trained or measured, how, by what seed, as far as the folder says."""
        if self.is_evaluation:
            seed = self.config.get("seed", 0)
            return f"{self.config['policy']} on {self.config['suite']}, seed {seed}"
        method = _inner(self.config, "method", "name") if self.config else None
        if not self.suites:
            return self.name
        suites = " and ".join(self.suites)
        return f"{method or 'grpo'} on {suites}, seed {self.config.get('seed', 0)}"

    @property
    def suites(self) -> tuple[str, ...]:
        """What it is trained on, as far as its configuration says."""
        mix = self.config.get("mix")
        envs = list(mix.values()) if isinstance(mix, dict) else [self.config.get("env")]
        found = [env.get("suite") for env in envs if isinstance(env, dict)]
        return tuple(suite for suite in found if isinstance(suite, str))


def open_run(folder: Path) -> Run:
    """Read a folder but for its trajectories, which :func:`read_source` reads.

    Raises:
        DataError: It is no folder, or holds neither metrics nor trajectories.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected that of a run, as runs/NAME")
    problems: list[str] = []
    measured = _results(folder / RESULTS_FILE, problems)
    begun = folder / "eval/step_000000"
    paths = sorted((*begun.glob(RESULTS_FILE), *begun.glob(f"*/*/{RESULTS_FILE}")))
    first = [measured] if measured else [_results(path, problems) for path in paths]
    steps = _with_first(first, _metrics(folder / METRICS_FILE, problems))
    sources = tuple(sorted(_sources(folder), key=lambda s: (s.step, s.kind == "eval", s.name)))
    if not (steps or sources):
        why = f"; {problems[0]}" if problems else ""
        raise DataError(
            f"{folder} is neither a run nor an evaluation that can be shown: it has no"
            f" {METRICS_FILE} with steps, no {RESULTS_FILE} and no trajectories{why}"
        )
    about = _table(folder / "env.json", json.loads, problems)
    problems += _of_another_version(folder, about, measured)
    config = _table(folder / "config.toml", tomllib.loads, problems) or _protocol(measured)
    return Run(folder, steps, sources, config, about, tuple(problems))


def _of_another_version(
    folder: Path, about: Mapping[str, Any], measured: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what is to be said of a run, or an evaluation by itself, that another version wrote."""
    path = folder / ("env.json" if about else RESULTS_FILE)
    version = about.get("agentgym") if about else _protocol(measured).get("agentgym", __version__)
    if version != __version__:
        what = "run" if about else "evaluation"
        yield (
            f"{path}: the {what} is of agentgym {version}, this is {__version__};"
            " what it calls otherwise is not shown"
        )
    written = measured.get("format", 1)
    if measured and written != RESULTS_FORMAT:
        yield (
            f"{folder / RESULTS_FILE}: written in format {written}, this version reads format"
            f" {RESULTS_FORMAT}; what is elsewhere there is not shown"
        )


def lines_of(source: Source) -> list[str]:
    """Return the lines of a file as they are, as far as it can be unpacked."""
    return _text(source.path)[0].split("\n")


def read_source(source: Source) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the trajectories of a file.

    Returns:
        Those that are whole, and a line for each thing that is wrong.
    """
    problems: list[str] = []
    found = [line for _, line in trajectories(source, problems)]
    return found, problems


def trajectories(source: Source, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the trajectories of a file that are whole, one after the other.

    Args:
        source: The file.
        problems: Gets a line for each thing that is wrong.

    Yields:
        The number of the line in the file, counted from 1, and the trajectory.
    """
    text, problem = _text(source.path)
    wrong = [problem] if problem else []
    for number, line in _json_lines(source.path, text, wrong):
        reason = _not_a_trajectory(line)
        if reason:
            wrong.append(f"{source.path} line {number}: {reason}; left out")
        else:
            yield number, line
    problems += _few(wrong)


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return what to call runs beside each other: so much of each path's end as tells them apart.

    What has the same path keeps the same name.
    """
    ends = [run.path.resolve().parts for run in runs]
    apart = len(set(ends))
    depth = next(n for n in count(1) if len({parts[-n:] for parts in ends}) == apart)
    return ["/".join(parts[-depth:]) for parts in ends]


def series(steps: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """Return the values of a metric as (step, value), in the order of the steps."""
    return [(line["step"], line[name]) for line in steps if name in line]


def metric_names(steps: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Return the names of all metrics, sorted."""
    return tuple(sorted({name for line in steps for name in line} - {"step"}))


def is_finite(value: Any) -> bool:
    """Return whether a JSON value is a number that a picture has room for."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return found


def unparsed(trajectory: Mapping[str, Any]) -> int:
    """Return how many turns did not follow the action format."""
    return sum(turn.get("parse_error") is not None for turn in trajectory["turns"])


def inadmissible(trajectory: Mapping[str, Any]) -> int:
    """Return how many turns had an action that the environment did not know."""
    return sum(turn.get("admissible") is False for turn in trajectory["turns"])


def repeated(trajectory: Mapping[str, Any]) -> int:
    """Return how many turns took the very action of the turn before."""
    actions = [turn.get("action") for turn in trajectory["turns"]]
    return sum(a == b for a, b in pairwise(actions))


# How the parts are read ---------------------------------------------------------------------------


def _sources(folder: Path) -> Iterator[Source]:
    for path in folder.glob("trajectories.jsonl*"):
        yield Source(EVALUATION, "eval", 0, path)
    for path in (folder / "trajectories").glob("step_*.jsonl*"):
        number = path.name.removeprefix("step_").split(".")[0]
        if number.isdigit():
            yield Source(f"train/{int(number)}", "train", int(number), path)
    files = "trajectories.jsonl*"
    for path in (*folder.glob(f"eval/step_*/{files}"), *folder.glob(f"eval/step_*/*/*/{files}")):
        step, *suite = path.parent.relative_to(folder / "eval").parts
        number = step.removeprefix("step_")
        if number.isdigit():
            name = "/".join(("eval", str(int(number)), *suite))
            yield Source(name, "eval", int(number), path)


def _metrics(path: Path, problems: list[str]) -> tuple[Mapping[str, float], ...]:
    if not path.exists():
        return ()
    text, problem = _text(path)
    wrong = [problem] if problem else []
    by_step: dict[float, Mapping[str, float]] = {}
    for number, line in _json_lines(path, text, wrong):
        numbers = {name: value for name, value in line.items() if is_finite(value)}
        if "step" not in numbers:
            wrong.append(f"{path} line {number}: no step in it; left out")
        else:
            by_step[numbers["step"]] = numbers
    problems += _few(wrong)
    return tuple(by_step[step] for step in sorted(by_step))


def _with_first(
    measured: Sequence[Mapping[str, Any]], steps: tuple[Mapping[str, float], ...]
) -> tuple[Mapping[str, float], ...]:
    """Return the metrics with what was measured before the first step, as step 0.

    No line of metrics has that: they are written after a step.
    """
    first: dict[str, float] = {}
    for one in measured:
        suite, rate = _inner(one, "protocol", "suite"), _inner(one, "summary", "success")
        if suite and isinstance(rate, dict):
            numbers = {"success_rate": rate.get("value"), "score": _inner(one, "summary", "score")}
            good = {n: v for n, v in numbers.items() if is_finite(v)}
            first |= {f"eval/{suite}/{n}": v for n, v in good.items()}
    if not first or any(line["step"] == 0 for line in steps):
        return steps
    return ({"step": 0, **first}, *steps)


def _protocol(measured: Mapping[str, Any]) -> Mapping[str, Any]:
    protocol = measured.get("protocol")
    return protocol if isinstance(protocol, dict) else {}


def _results(path: Path, problems: list[str]) -> Mapping[str, Any]:
    """Return the results of an evaluation; nothing of what is none."""
    told = _table(path, json.loads, problems)
    if told and "protocol" not in told:
        problems.append(f"{path}: no results of an evaluation, which have a protocol")
        return {}
    return told


def _table(path: Path, parse: Any, problems: list[str]) -> Mapping[str, Any]:
    try:
        table = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # both formats' errors are ValueErrors
        problems.append(f"{path}: {error}")
        return {}
    if not isinstance(table, dict):
        problems.append(f"{path}: expected a table, got {type(table).__name__}")
        return {}
    return table


def _text(path: Path) -> tuple[str, str | None]:
    """Return what a file says, as far as it can be unpacked, and what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return "", f"{path}: {error.strerror or error}"
    problem = None
    if path.suffix == ".gz":
        data, problem = _unpack(path, data)
    return data.decode("utf-8", errors="replace"), problem


def _unpack(path: Path, data: bytes) -> tuple[bytes, str | None]:
    unpacker = zlib.decompressobj(wbits=31)  # gzip
    try:
        return gzip.decompress(data), None
    except (OSError, EOFError, zlib.error) as error:
        broken = str(error)
    try:  # the beginning of a file that was cut off is still good
        return unpacker.decompress(data), f"{path}: cut off after {len(data)} bytes ({broken})"
    except zlib.error:
        return b"", f"{path}: not gzip, or broken ({broken})"


def _json_lines(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of JSON lines with the line's number, counted from 1."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            problems.append(f"{path} line {number}: no JSON, or cut off: {line[:40]!r}; left out")
            continue
        if isinstance(content, dict):
            yield number, content
        else:
            problems.append(f"{path} line {number}: expected an object; left out")


def _not_a_trajectory(line: Mapping[str, Any]) -> str | None:
    for name, kind in _EXPECTED.items():
        if not isinstance(line.get(name), kind):
            return f"no trajectory: {name} is {str(line.get(name))[:40]!r}"
    for k, turn in enumerate(line["turns"]):
        if not isinstance(turn, dict) or not all(isinstance(turn.get(n), str) for n in _TURN):
            return f"no trajectory: turn {k} lacks one of {', '.join(_TURN)}"
    return None


_MANY = 5


def _few(problems: list[str]) -> list[str]:
    """Return the first problems of a file, and how many more there are."""
    more = len(problems) - _MANY
    return problems if more <= 0 else [*problems[:_MANY], f"and {more} more in the same file"]


def _inner(table: Mapping[str, Any], section: str, key: str) -> Any:
    inside = table.get(section)
    return inside.get(key) if isinstance(inside, dict) else None
