"""The essentials of a run in a terminal: how it went, and which trajectories to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from agentgym.console import say, say_table, spark, warn
from agentgym.curves import label, panels_of
from agentgym.run_files import EVALUATION, Run, Source, invalid, read_source, repeated, series

_SHOWN = 8  # trajectories
_CUT = 60  # characters of a goal


def show_run(run: Run) -> None:
    """Show a run: its curves as lines of bars, and its last trajectories."""
    say(f"{run.name}: {run.title}")
    _show_curves(run)
    for source in _last_of_each_kind(run.sources):
        _show_source(source)


def _show_curves(run: Run) -> None:
    rows = []
    for panel, names in panels_of([run]):
        for name in () if panel.heat else names:
            values = [value for _, value in series(run.steps, name)]
            title = f"{panel.title}, {label(name)}" if len(names) > 1 else panel.title
            cells = (min(values), max(values), values[0], values[-1])
            rows.append((title, spark(values), *(f"{cell:.4g}" for cell in cells)))
    if rows:
        say_table(("curve", "", "lowest", "highest", "first", "last"), rows)
    else:
        say("no metrics yet")


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
    repeats, unknown = sum(map(repeated, found)), sum(map(invalid, found))
    turns = sum(len(trajectory["turns"]) for trajectory in found)
    say(
        f"of {turns} turns {unknown} were invalid (off the format, or an action that the"
        f" environment does not know) and {repeats} repeated the action before"
    )
    say_table(
        ("task", "episode", "result", "turns", "invalid", "repeated", "goal"),
        [_cells(trajectory) for trajectory in _worth_a_look(found)],
    )


def _worth_a_look(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return some that were won and some that were lost, the lost ones that went worst first."""
    won = sorted((t for t in found if t["won"]), key=lambda t: len(t["turns"]))
    lost = sorted((t for t in found if not t["won"]), key=lambda t: -(invalid(t) + repeated(t)))
    half = _SHOWN // 2
    return list(chain(won[:half], lost[: _SHOWN - min(half, len(won))]))


def _cells(trajectory: Mapping[str, Any]) -> tuple[str, ...]:
    branch = f".{trajectory['branch']}" if trajectory["branch"] else ""
    goal = str(trajectory.get("goal", "")).replace("\n", " ")
    return (
        trajectory["task"],
        f"{trajectory['member']}{branch}",
        "won" if trajectory["won"] else f"lost ({trajectory['stop']})",
        str(len(trajectory["turns"])),
        str(invalid(trajectory)),
        str(repeated(trajectory)),
        goal if len(goal) <= _CUT else f"{goal[: _CUT - 1]}…",
    )
