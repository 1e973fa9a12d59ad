"""How the result of an evaluation is shown: tables in a terminal, Markdown on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentgym.console import markdown_table, say, say_table

if TYPE_CHECKING:
    from agentgym.episodes import Rate, Summary
    from agentgym.results import EvalProtocol, Evaluation
    from agentgym.types import Usage

SHOWN_ERRORS = 5


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False
) -> None:
    """Show a table, as Markdown where that is wanted."""
    if not markdown:
        say_table(columns, rows)
        return
    say("")
    for line in markdown_table(columns, rows):
        say(line)
    say("")


def show_evaluation(evaluation: Evaluation, *, markdown: bool = False) -> None:
    """Show the result of an evaluation."""
    protocol, summary = evaluation.protocol, evaluation.summary
    each = f" {protocol.samples} samples each," if protocol.samples > 1 else ""
    say(
        f"{protocol.policy} on {protocol.suite}: {protocol.tasks} of {protocol.suite_tasks} tasks,"
        f"{each} {protocol.max_turns} turns at most, seed {protocol.seed}"
    )
    scored = any(episode.score != episode.won for episode in evaluation.episodes)
    columns = ["task type", "tasks", "won", "success", "95% interval"] + ["score"] * scored
    show_table(columns, _rows(summary, scored), markdown=markdown)
    say(_figures(protocol, summary))
    if summary.usage is not None:
        say(_usage(summary.usage))
    _show_errors(evaluation)
    if not protocol.held_out:
        say(f"note: {protocol.suite} is not held out; agents may have been trained on it")
    if protocol.note:
        say(f"note: {protocol.note}")


def _rows(summary: Summary, scored: bool) -> list[tuple[str, ...]]:
    rows = [("all", summary.success, summary.score)]
    if len(summary.by_type) > 1:
        types = summary.by_type.items()
        rows = [*((kind, rate, summary.score_by_type[kind]) for kind, rate in types), *rows]
    return [(*_row(kind, rate), *[f"{score:.3f}"] * scored) for kind, rate, score in rows]


def _row(kind: str, rate: Rate) -> tuple[str, ...]:
    return (
        kind,
        str(rate.tasks),
        f"{rate.won}/{rate.episodes}",
        f"{rate.value:.3f}",
        f"{rate.low:.3f}-{rate.high:.3f}",
    )


def _figures(protocol: EvalProtocol, summary: Summary) -> str:
    figures = [f"score {summary.score:.3f}", f"turns {summary.turns:.1f}"]
    if summary.parsed_rate is not None and protocol.sampling is not None:
        # A policy that acts on text always parses.
        figures.append(f"valid actions {summary.parsed_rate:.3f}")
    if summary.admissible_rate is not None:
        figures.append(f"admissible {summary.admissible_rate:.3f}")
    if protocol.samples > 1:
        figures.append(f"avg@{protocol.samples} {summary.success.value:.3f}")
        figures += [f"pass@{k} {value:.3f}" for k, value in summary.pass_at.items()]
    if summary.faults:
        figures.append(f"faults healed {summary.faults}")
    stops = ", ".join(f"{stop} {count}" for stop, count in summary.stops.items())
    return f"{', '.join(figures)}; ended by: {stops}"


def _usage(usage: Usage) -> str:
    cost = "" if usage.cost is None else f", cost {usage.cost:.4f}"
    return (
        f"endpoint: requests {usage.requests}, prompt tokens {usage.prompt_tokens} (kept"
        f" {usage.cached_tokens}), completion tokens {usage.completion_tokens} (reasoning"
        f" {usage.reasoning_tokens}){cost}"
    )


def _show_errors(evaluation: Evaluation) -> None:
    broken = [episode for episode in evaluation.episodes if episode.error is not None]
    for episode in broken[:SHOWN_ERRORS]:
        say(f"error: {episode.task} sample {episode.sample}: {episode.error}")
    if len(broken) > SHOWN_ERRORS:
        say(f"error: {len(broken) - SHOWN_ERRORS} more episodes")
