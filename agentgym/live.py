"""A training run while it goes: a live table in a terminal, one plain line a step in a pipe."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agentgym.console import say

if TYPE_CHECKING:
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
    "optim/grad_norm": ("grad norm", "{:.3f}"),
    "perf/tokens_per_s": ("tokens/s", "{:.0f}"),
    "time/step": ("seconds", "{:.1f}"),
}
"""What is shown of a step, and how."""

_SHOWN = 12  # steps in the live table


@contextmanager
def live_steps(steps: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield what shows the metrics of a step.

    Args:
        steps: How many the run has in all.
    """
    if not sys.stdout.isatty():
        yield lambda metrics: say(_line(metrics, steps))
        return
    from rich.console import Console
    from rich.live import Live

    seen: deque[Mapping[str, float]] = deque(maxlen=_SHOWN)
    with Live(console=Console(file=sys.stdout), refresh_per_second=4) as live:

        def show(metrics: Mapping[str, float]) -> None:
            seen.append(metrics)
            live.update(_table(seen, steps), refresh=True)

        yield show


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
        if name in metrics
    ]


def _line(metrics: Mapping[str, float], steps: int) -> str:
    (_, step), *cells = _cells(metrics)
    return "  ".join([f"step {step}/{steps}", *(f"{label} {value}" for label, value in cells)])


def _table(seen: deque[Mapping[str, float]], steps: int) -> Table:
    from rich import box
    from rich.table import Table

    done = seen[-1]["step"]
    table = Table(box=box.SIMPLE_HEAD, title=f"step {done:.0f} of {steps}")
    labels = list(dict.fromkeys(label for metrics in seen for label, _ in _cells(metrics)))
    for label in labels:
        table.add_column(label, justify="right")
    for metrics in seen:
        cells = dict(_cells(metrics))
        table.add_row(*(cells.get(label, "") for label in labels))
    return table
