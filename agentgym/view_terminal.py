"""The essentials of a run in a terminal: how it went, and which trajectories to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from agentgym.console import say, say_table, spark, warn, width
from agentgym.curves import label, panels_of
from agentgym.run_files import (
    EVALUATION,
    Run,
    Source,
    inadmissible,
    read_source,
    repeated,
    series,
    unparsed,
)

_SHOWN = 8  # trajectories
_CUT = 60  # characters of a goal
_NAME = 31  # characters of a curve's name: with bars and two numbers it fits 80 columns
_WIDE = 110  # columns of a terminal that has room for
_BARS, _FEW_BARS = 30, 16


def show_run(run: Run) -> None:
    """Show a run: its curves as lines of bars, and its last trajectories."""
    say(f"{run.name}: {run.title}")
    _show_curves(run)
    for source in _last_of_each_kind(run.sources):
        _show_source(source)


def _show_curves(run: Run) -> None:
    bars = _BARS if (width() or _WIDE) >= _WIDE else _FEW_BARS
    rows: list[tuple[str, ...]] = []
    for panel, names in panels_of([run]):
        shown = () if panel.heat else names
        if len(shown) > 1:
            rows.append((panel.title, *[""] * 5))
        for name in shown:
            values = [value for _, value in series(run.steps, name)]
            title = f"  {_end_of(label(name), _NAME - 2)}" if len(shown) > 1 else panel.title
            cells = (values[0], values[-1], min(values), max(values))
            rows.append((title, spark(values, bars), *(f"{cell:.4g}" for cell in cells)))
    if rows:
        columns = ("curve", "", "first", "last", "lowest", "highest")
        say_table(columns, rows, spare=("highest", "lowest"))
    else:
        say("no metrics yet")


def _end_of(text: str, most: int) -> str:
    """Return the end of a text that is too long: there are the names of suites."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _last_of_each_kind(sources: Sequence[Source]) -> list[Source]:
    last = {source.kind: source for source in sources}
    return list(last.values())


def _show_source(source: Source) -> None:
    found, problems = read_source(source)
    for problem in problems:
        warn(f"agentgym: {problem}")
    if not found:
        return
    kind = "evaluation" if source.kind == "eval" else "training"
    won = sum(trajectory["won"] for trajectory in found)
    stops = Counter(trajectory["stop"] for trajectory in found)
    ends = ", ".join(f"{stop} {count}" for stop, count in stops.most_common())
    after = "" if source.name == EVALUATION else f" after step {source.step}"
    say(f"\n{kind}{after}: {won} of {len(found)} won; stops: {ends}")
    turns = sum(len(trajectory["turns"]) for trajectory in found)
    off, unknown, again = (sum(map(count, found)) for count in (unparsed, inadmissible, repeated))
    say(
        f"of {turns} turns {off} were off the format, {unknown} had an action that the environment"
        f" does not know, and {again} repeated the action before"
    )
    say_table(
        ("task", "episode", "result", "turns", "off format", "unknown", "repeated", "goal"),
        [_cells(trajectory) for trajectory in _worth_a_look(found)],
        spare=("goal", "off format", "episode", "repeated"),
    )


def _worth_a_look(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return some that were won and some that were lost, the lost ones that went worst first."""
    won = sorted((t for t in found if t["won"]), key=lambda t: len(t["turns"]))
    lost = sorted((t for t in found if not t["won"]), key=_wrong, reverse=True)
    half = _SHOWN // 2
    return list(chain(won[:half], lost[: _SHOWN - min(half, len(won))]))


def _wrong(trajectory: Mapping[str, Any]) -> int:
    return unparsed(trajectory) + inadmissible(trajectory) + repeated(trajectory)


def _cells(trajectory: Mapping[str, Any]) -> tuple[str, ...]:
    branch = f".{trajectory['branch']}" if trajectory["branch"] else ""
    goal = str(trajectory.get("goal", "")).replace("\n", " ")
    return (
        trajectory["task"],
        f"{trajectory['member']}{branch}",
        "won" if trajectory["won"] else f"lost ({trajectory['stop']})",
        str(len(trajectory["turns"])),
        str(unparsed(trajectory)),
        str(inadmissible(trajectory)),
        str(repeated(trajectory)),
        goal if len(goal) <= _CUT else f"{goal[: _CUT - 1]}…",
    )
