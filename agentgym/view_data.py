"""What the page of a run is told: its curves, a short row for each trajectory, and a whole one.

Rows are short so that ten thousand of them are one megabyte; a trajectory is read again when it is
looked at.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentgym.curves import label, panels_of
from agentgym.errors import DataError
from agentgym.run_files import (
    Run,
    Source,
    flat,
    inadmissible,
    is_finite,
    lines_of,
    metric_names,
    names_of,
    repeated,
    series,
    trajectories,
    unparsed,
)

COLUMNS = (
    "run",
    "source",
    "line",
    "task",
    "goal",
    "member",
    "branch",
    "parent",
    "shared",
    "task_type",
    "won",
    "score",
    "stop",
    "turns",
    "unparsed",
    "inadmissible",
    "repeated",
    "return",
    "tokens",
)
"""What a row says, in this order; ``line`` is where it stands in its file, counted from 1."""

_TOKEN_FIELDS = (
    "ids",
    "text",
    "behaviour_logprob",
    "logprob",
    "advantage",
    "entropy",
)
_FILES_KEPT = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trajectory is: the number of its run, the name of its source, its line there."""

    run: int
    source: str
    line: int

    @property
    def key(self) -> str:
        """The name that the page knows it by."""
        return f"{self.run} {self.source} {self.line}"


@dataclass
class Reader:
    """Reads the trajectories of runs.

    It keeps the text of the files that were read last, and the rows of all files for as long as
    they do not change: a run that goes on adds files and leaves the others.

    Attributes:
        runs: What is read.
        known: Rows and problems by file, size and time of the last change.
    """

    runs: Sequence[Run]
    known: dict[tuple[Path, int, int], tuple[list[list[Any]], list[str]]] = field(
        default_factory=dict
    )
    _kept: OrderedDict[tuple[int, str], list[str]] = field(default_factory=OrderedDict)

    def rows(self) -> dict[str, Any]:
        """Return a row for each trajectory of all runs, and what could not be read."""
        rows: list[list[Any]] = []
        problems: list[str] = []
        for number, run in enumerate(self.runs):
            for source in run.sources:
                found, wrong = self._rows_of(number, source)
                rows += found
                problems += wrong
        return {"columns": COLUMNS, "rows": rows, "problems": problems, "left_out": 0}

    def _rows_of(self, run: int, source: Source) -> tuple[list[list[Any]], list[str]]:
        key = (source.path, *_stamp(source.path))
        if key not in self.known:
            problems: list[str] = []
            found = trajectories(source, problems)
            rows = [_row(run, source.name, line, trajectory) for line, trajectory in found]
            self.known[key] = rows, problems
        return self.known[key]

    def trajectory(self, place: Place) -> dict[str, Any]:
        """Return a trajectory whole, with its tokens by turn where they were recorded.

        Raises:
            DataError: There is none at that place.
        """
        lines = self._lines(place)
        try:
            content = json.loads(lines[place.line - 1]) if place.line > 0 else None
        except (IndexError, ValueError):
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("turns"), list):
            raise DataError(f"there is no trajectory in line {place.line} of {place.source}")
        rows = content.pop("rows", None)
        told: dict[str, Any] = _finite(content | {"tokens": _tokens(rows, len(content["turns"]))})
        return told

    def _lines(self, place: Place) -> list[str]:
        key = (place.run, place.source)
        if key not in self._kept:
            self._kept[key] = lines_of(self._source(place))
        self._kept.move_to_end(key)
        while len(self._kept) > _FILES_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _source(self, place: Place) -> Source:
        if 0 <= place.run < len(self.runs):
            for source in self.runs[place.run].sources:
                if source.name == place.source:
                    return source
        raise DataError(f"the run has no trajectories of {place.source!r}")


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the page shows at once."""
    named = zip(runs, names_of(runs), strict=True)
    return {"runs": [_run(run, name) for run, name in named], "panels": _panels(runs)}


def embedded(reader: Reader, limit: int) -> dict[str, Any]:
    """Return what an exported page carries of trajectories.

    Args:
        reader: Of the runs.
        limit: How many at most; the first of each source, in equal shares, so that whole groups
            and the same tasks of each evaluation stay.
    """
    told = reader.rows()
    by_source: dict[tuple[int, str], list[list[Any]]] = {}
    for row in told["rows"]:
        by_source.setdefault((row[0], row[1]), []).append(row)
    shares = _shares([len(rows) for rows in by_source.values()], limit)
    kept = [row for rows, n in zip(by_source.values(), shares, strict=True) for row in rows[:n]]
    places = [Place(row[0], row[1], row[2]) for row in kept]
    left_out = len(told["rows"]) - len(kept)
    return {
        "rows": told | {"rows": kept, "left_out": left_out},
        "trajectories": {place.key: reader.trajectory(place) for place in places},
    }


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Divide ``limit`` as equally as the sizes allow; the small ones first, that none is lost."""
    shares = [0] * len(sizes)
    left = limit
    for done, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        shares[i] = min(sizes[i], left // (len(sizes) - done))
        left -= shares[i]
    return shares


def _run(run: Run, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": run.title,
        "config": _finite(flat(run.config)),
        "about": _finite(flat(run.about)),
        "problems": run.problems,
        "sources": [{"name": s.name, "kind": s.kind, "step": s.step} for s in run.sources],
        "metrics": {name: series(run.steps, name) for name in metric_names(run.steps)},
    }


def _panels(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [
        {
            "title": panel.title,
            "unit": panel.unit,
            "low": panel.low,
            "high": panel.high,
            "heat": panel.heat,
            "names": names,
            "labels": [label(name) for name in names],
        }
        for panel, names in panels_of(runs)
    ]


def _row(run: int, source: str, line: int, trajectory: Mapping[str, Any]) -> list[Any]:
    told = trajectory.get
    parent = told("parent")
    return [
        run,
        source,
        line,
        trajectory["task"],
        _text(told("goal")),
        trajectory["member"],
        trajectory["branch"],
        parent if _is_key(parent) else None,
        _number(told("shared_turns")) or 0,
        _text(told("task_type")),
        trajectory["won"],
        _number(told("score")),
        trajectory["stop"],
        len(trajectory["turns"]),
        unparsed(trajectory),
        inadmissible(trajectory),
        repeated(trajectory),
        _number(told("return")),
        isinstance(told("rows"), list),
    ]


def _tokens(rows: Any, turns: int) -> list[list[dict[str, Any]]] | None:
    """Return the tokens that were sampled in each turn, or None where none were recorded."""
    if not isinstance(rows, list):
        return None
    tokens: list[list[dict[str, Any]]] = [[] for _ in range(turns)]
    for row in rows:
        if not isinstance(row, dict):
            continue
        fields = {name: row[name] for name in _TOKEN_FIELDS if isinstance(row.get(name), list)}
        numbers = row.get("turn")
        for i, turn in enumerate(numbers if isinstance(numbers, list) else ()):
            if isinstance(turn, int) and 0 <= turn < turns:
                token = {name: values[i] for name, values in fields.items() if i < len(values)}
                tokens[turn].append(token)
    return tokens


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and time of the last change; of a file that is gone, what no file has."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _is_key(parent: Any) -> bool:
    """Return whether it is the member and the branch of an episode."""
    return isinstance(parent, list) and len(parent) == 2 and all(isinstance(n, int) for n in parent)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return value if is_finite(value) else None


def _finite(value: Any) -> Any:
    """Return a JSON value with None in place of numbers that JSON has no way to write."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
