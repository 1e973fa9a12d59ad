"""A training run while it goes: a live table in a terminal, one plain line a step in a pipe."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

from agentgym.console import say, spark
from agentgym.curves import ONE_UPDATE

if TYPE_CHECKING:
    from rich.console import Console, RenderResult
    from rich.table import Table

COLUMNS: Mapping[str, tuple[str, str]] = {
    "step": ("step", "{:.0f}"),
    "episode/success_rate": ("success", "{:.3f}"),
    "sft/action_loss": ("loss", "{:.3f}"),
    "sft/action_accuracy": ("accuracy", "{:.3f}"),
    "reward/mean": ("reward", "{:.2f}"),
    "episode/turns": ("turns", "{:.1f}"),
    "episode/admissible_rate": ("admissible", "{:.3f}"),
    "actor/entropy": ("entropy", "{:.3f}"),
    "actor/ppo_kl": ("KL", "{:.1e}"),
    "optim/grad_norm": ("grad norm", "{:.3f}"),
    "perf/tokens_per_s": ("tokens/s", "{:.0f}"),
    "time/step": ("seconds", "{:.1f}"),
}
"""What is shown of a step, and how."""

STAGES: Mapping[str, str] = {
    "sync": "handing the weights to the sampler",
    "rollout": "episodes",
    "answers": "scoring gold answers",
    "score": "scoring tokens",
    "update": "updating the weights",
    "eval": "measuring held-out tasks",
    "save": "saving a checkpoint",
}
"""What a stage of the loop is for people."""

_SHOWN = 12  # steps in the live table
_DISPENSABLE = ("grad norm", "KL", "turns", "seconds", "tokens/s", "admissible")
"""What a narrow terminal goes without, the first first."""


class Display(Protocol):
    """Shows a run while it goes."""

    def __call__(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of a step."""

    def stage(self, name: str) -> None:
        """Show that a stage begins."""


class _Lines:
    """One plain line a step."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __call__(self, metrics: Mapping[str, float]) -> None:
        say(_line(metrics, self._steps))

    def stage(self, name: str) -> None:
        """Say nothing: a log would be full of it."""


class _Table:
    """The last steps as a table, the curves as bars, and what is being waited for."""

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps, self._clock = steps, clock
        self._seen: deque[Mapping[str, float]] = deque(maxlen=_SHOWN)
        self._curves: dict[str, list[float]] = {}
        self._now = "", clock()  # the stage and when it began, together: a thread reads them

    def __call__(self, metrics: Mapping[str, float]) -> None:
        self._seen.append(metrics)
        for name in ("episode/success_rate", "reward/mean", "actor/entropy", "sft/action_loss"):
            if name in metrics:
                self._curves.setdefault(name, []).append(metrics[name])

    def stage(self, name: str) -> None:
        self._now = name, self._clock()

    def __rich_console__(self, console: Console, _: object) -> RenderResult:
        """Draw; asked several times a second, so that seconds go on."""
        from rich.progress_bar import ProgressBar
        from rich.segment import Segment
        from rich.text import Text

        seen = list(self._seen)  # the loop goes on while a thread draws
        if seen:
            yield _table(seen, self._steps, console.width)
            curves = {name: list(values) for name, values in list(self._curves.items())}
            yield from (Text(self._bars(name, values)) for name, values in curves.items())
        done = seen[-1]["step"] if seen else 0
        yield ProgressBar(self._steps, done, width=min(60, console.width))
        yield Segment.line()  # which a bar goes without
        yield Text(self._waiting(seen, done))

    def _bars(self, name: str, values: Sequence[float]) -> str:
        label = COLUMNS[name][0]
        return f"{label:>8} {spark(values)} {COLUMNS[name][1].format(values[-1])}"

    def _waiting(self, seen: Sequence[Mapping[str, float]], done: float) -> str:
        if done >= self._steps:
            return f"all {self._steps} steps are done"
        said = f"step {done + 1:.0f} of {self._steps}"
        stage, since = self._now
        if stage in STAGES:
            said += f": {STAGES[stage]}, {self._clock() - since:.0f} s"
            usual = [m[key] for m in seen if (key := f"time/{stage}") in m]
            said += f" (usually {fmean(usual):.0f} s)" if usual else ""
        seconds = [metrics["time/step"] for metrics in seen if "time/step" in metrics]
        if seconds:
            said += f"; about {_duration(fmean(seconds) * (self._steps - done))} to go"
        return said


@contextmanager
def live_steps(steps: int) -> Iterator[Display]:
    """Yield what shows a run while it goes.

    Args:
        steps: How many the run has in all.
    """
    if not sys.stdout.isatty():
        yield _Lines(steps)
        return
    from rich.console import Console
    from rich.live import Live

    table = _Table(steps)
    console = Console(file=sys.stdout, highlight=False, markup=False)
    with Live(get_renderable=lambda: table, console=console, refresh_per_second=2) as live:
        yield table
        live.refresh()


def _cells(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    held_out = {
        name: (f"held out {name.split('/')[-2]}", "{:.3f}")
        for name in metrics
        if name.startswith("eval/") and name.endswith("/success_rate")
    }
    shown = {**COLUMNS, **held_out}
    return [
        (label, form.format(metrics[name]))
        for name, (label, form) in shown.items()
        if name in metrics and not (name in ONE_UPDATE and metrics[name] == 0)
    ]


def _line(metrics: Mapping[str, float], steps: int) -> str:
    (_, step), *cells = _cells(metrics)
    return "  ".join([f"step {step}/{steps}", *(f"{label} {value}" for label, value in cells)])


def _table(seen: Sequence[Mapping[str, float]], steps: int, width: int) -> Table:
    from rich import box
    from rich.table import Table

    done = seen[-1]["step"]
    table = Table(box=box.SIMPLE_HEAD, title=f"step {done:.0f} of {steps}")
    rows = [dict(_cells(metrics)) for metrics in seen]
    labels = _fitting(rows, width)
    for label in labels:
        table.add_column(label, justify="right")
    for row in rows:
        table.add_row(*(row.get(label, "") for label in labels))
    return table


def _fitting(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """Return the labels of the columns that a terminal has room for."""
    labels = list(dict.fromkeys(label for row in rows for label in row))
    room = {label: max(len(label), *(len(r.get(label, "")) for r in rows)) + 3 for label in labels}
    for label in _DISPENSABLE:
        if sum(room[label] for label in labels) <= width:
            break
        labels = [kept for kept in labels if kept != label]
    return labels


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
