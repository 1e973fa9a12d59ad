"""An episode as one line of JSON, without its tokens: for people, for tools, and to go on from.

The files of such lines are ``trajectories.jsonl.gz`` of an evaluation and of a training step, and
the demonstrations that ``agentgym play`` saves.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentgym.errors import DataError
from agentgym.types import Key, Stop, Trajectory, Turn, Usage

Line = dict[str, Any]
"""A line, read: an object of JSON."""


def trajectory_line(trajectory: Trajectory) -> Line:
    """Return a trajectory without its tokens."""
    parent = trajectory.parent
    line: Line = {
        "task": trajectory.key.task,
        "member": trajectory.key.member,
        "branch": trajectory.key.branch,
        "parent": None if parent is None else [parent.member, parent.branch],
        "shared_turns": trajectory.shared,
        "suite": trajectory.suite,
        "task_type": trajectory.task_type,
        "goal": trajectory.goal,
        "won": trajectory.won,
        "score": trajectory.score,
        "stop": trajectory.stop.value,
        "error": trajectory.error,
        "faults": trajectory.faults,
        "turns": [_turn_line(turn) for turn in trajectory.turns],
    }
    return line if trajectory.usage is None else line | {"usage": asdict(trajectory.usage)}


def _turn_line(turn: Turn) -> Line:
    return {
        "observation": turn.observation,
        "text": turn.text,
        "action": turn.action,
        "parse_error": turn.parse_error,
        "admissible": turn.admissible,
        "reward": turn.reward,
    }


def trajectory_of(line: Mapping[str, Any]) -> Trajectory:
    """Return the trajectory that a line tells, without its tokens and anchors.

    Raises:
        KeyError, TypeError, ValueError: The line is of something else.
    """
    task, parent, usage = line["task"], line["parent"], line.get("usage")
    turns = tuple(Turn(**turn, anchor="") for turn in line["turns"])
    return Trajectory(
        key=_key(task, line["member"], line["branch"]),
        suite=line["suite"],
        task_type=line["task_type"],
        goal=line["goal"],
        turns=turns,
        rows=(),
        stop=Stop(line["stop"]),
        won=line["won"],
        score=line["score"],
        error=line["error"],
        faults=line["faults"],
        parent=None if parent is None else _key(task, *parent),
        shared=line["shared_turns"],
        usage=None if usage is None else Usage(**usage),
    )


def _key(task: Any, member: Any, branch: Any) -> Key:
    if not (isinstance(task, str) and isinstance(member, int) and isinstance(branch, int)):
        raise TypeError(f"{task!r}, {member!r}, {branch!r} are no task, member and branch")
    return Key(task, member, branch)


def json_line(line: Mapping[str, Any]) -> bytes:
    """Return an object as a line of JSON, as it is written."""
    return (json.dumps(line) + "\n").encode()


def gzipped(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Return lines of JSON, compressed: the same lines are the same bytes."""
    # No time stamp in the header.
    return gzip.compress(b"".join(map(json_line, lines)), compresslevel=6, mtime=0)


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file, compressed or not.

    A last line without its line end was cut off while it was written, and is left out.

    Raises:
        DataError: The file cannot be read, or a line is no object of JSON; the message says which.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        yield read_line(line, path, number)


def read_line(line: bytes, path: Path, number: int) -> Line:
    """Return one line, read.

    Raises:
        DataError: It is no object of JSON.
    """
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:  # the latter: nested without end
        raise DataError(f"{path}, line {number} is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise DataError(f"{path}, line {number} is no object of JSON; expected one episode a line")
    return read
