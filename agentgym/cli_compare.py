"""``agentgym compare``: what two evaluations of the same tasks differ in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym.cli_report import show_table
from agentgym.console import say
from agentgym.errors import UsageError

if TYPE_CHECKING:
    from agentgym.compare import Comparison, Difference, Flip
    from agentgym.results import Evaluation

SHOWN_FLIPS = 20


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder with results.json.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The one whose change is wanted.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Show the tables as Markdown.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Name every task that flipped.")] = False,
) -> None:
    """Compare two evaluations task by task: differences with intervals, and the tasks that flipped.

    Refuses evaluations of different tasks, or under different rules.
    """
    from agentgym.compare import compare as compare_evaluations

    a, b = _read(first), _read(second)
    comparison = compare_evaluations(a, b)
    for name, path, one in (("A", first, a), ("B", second, b)):
        say(f"{name}: {one.protocol.policy} in {path}")
    protocol = a.protocol
    samples = f", {protocol.samples} samples each" if protocol.samples > 1 else ""
    say(f"{protocol.suite}: {protocol.tasks} tasks{samples}, {protocol.max_turns} turns at most")
    _show_differences(comparison, markdown=markdown)
    _show_flips(comparison, protocol.samples, None if every else SHOWN_FLIPS)
    for note in comparison.notes:
        say(f"note: {note}")


def _read(path: Path) -> Evaluation:
    from agentgym.results import read_results
    from agentgym.run_files import RESULTS_FILE

    inner = sorted(path.glob(f"eval/*/{RESULTS_FILE}"))
    if inner and not (path / RESULTS_FILE).exists():
        raise UsageError(
            f"{path} is a training run with {len(inner)} evaluations; name one of them, such as"
            f" {inner[-1].parent}"
        )
    return read_results(path)


def _show_differences(comparison: Comparison, *, markdown: bool) -> None:
    rows = [_row(one.kind, one) for one in comparison.success]
    if comparison.score.value != comparison.success[-1].value:
        rows.append(_row("all, score", comparison.score))
    columns = ("task type", "tasks", "A", "B", "B - A", "95% interval")
    show_table(columns, rows, markdown=markdown)


def _row(kind: str, one: Difference) -> tuple[str, ...]:
    interval = f"{one.low:+.3f} to {one.high:+.3f}"
    numbers = (f"{one.first:.3f}", f"{one.second:.3f}", f"{one.value:+.3f}")
    return (kind, str(one.tasks), *numbers, interval)


def _show_flips(comparison: Comparison, samples: int, most: int | None) -> None:
    for name, found in (
        ("B", [flip for flip in comparison.flips if flip.second > flip.first]),
        ("A", [flip for flip in comparison.flips if flip.second < flip.first]),
    ):
        how = f"won by {name} only" if samples == 1 else f"won by {name} more often"
        named = ", ".join(_flip(flip, samples) for flip in found[:most])
        more = f", and {len(found) - most} more (--all)" if most and len(found) > most else ""
        say(f"{how}: {len(found)}" + (f": {named}{more}" if found else ""))


def _flip(flip: Flip, samples: int) -> str:
    return flip.task if samples == 1 else f"{flip.task} ({flip.first} and {flip.second})"
