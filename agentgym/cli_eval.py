"""``agentgym eval``: run a policy over a suite and show how well it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym.cli_common import EnvName, EnvOptions, MaxTurns, SuiteName, env_spec
from agentgym.console import progress, say, say_table
from agentgym.errors import UsageError

if TYPE_CHECKING:
    from agentgym.episodes import Rate, Summary
    from agentgym.evaluate import EvalOptions, EvalProtocol, Evaluation
    from agentgym.types import EnvSpec

SHOWN_ERRORS = 5


def eval_(
    suite: SuiteName = None,
    env: EnvName = None,
    policy: Annotated[str | None, typer.Option("--policy", help="expert or random.")] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Hugging Face folder or hub id, or a bundled model."),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="Of a model; 0 is greedy.")
    ] = 0.4,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, help="Longest turn of a model, in tokens."),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option("-n", "--tasks", min=1, help="Only the first tasks of the suite.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Episodes a task.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Every random draw comes from it.")] = 0,
    max_turns: MaxTurns = None,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Environment processes; 0 uses this one.")
    ] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for results.json.")
    ] = None,
    option: EnvOptions = None,
) -> None:
    """Run a policy over a suite, every task exactly once a sample."""
    from agentgym.evaluate import EvalOptions, refuse_results, write_results

    if (policy is None) == (model is None):
        raise UsageError("say who plays: --policy expert or random, or --model NAME")
    spec = env_spec(env, suite, option or (), max_turns)
    play = (
        _scripted(policy)
        if policy is not None
        else _modelled(str(model), spec, temperature, max_tokens)
    )
    if output is not None:
        refuse_results(output)
    evaluation = play(spec, EvalOptions(tasks, samples, seed, workers))
    show(evaluation)
    if output is not None:
        say(f"written: {write_results(evaluation, output)}")


def _scripted(name: str) -> Callable[[EnvSpec, EvalOptions], Evaluation]:
    from agentgym.evaluate import evaluate
    from agentgym.policies.scripted import make_scripted

    make_scripted(name)  # an unknown name is said before anything is made

    def play(spec: EnvSpec, options: EvalOptions) -> Evaluation:
        with progress("episodes") as started:
            return evaluate(spec, lambda: make_scripted(name), options, started)

    return play


def _modelled(
    name: str, spec: EnvSpec, temperature: float, max_tokens: int | None
) -> Callable[[EnvSpec, EvalOptions], Evaluation]:
    from agentgym.evaluate import evaluate_model
    from agentgym.models import check_context, open_model

    model = open_model(name, spec.name)
    asked = {"temperature": temperature, "max_tokens": max_tokens or model.sampling.max_tokens}
    sampling = model.sampling.model_copy(update=asked)
    check_context(name, model.policy, sampling)
    return lambda spec, options: evaluate_model(spec, replace(model, sampling=sampling), options)


def show(evaluation: Evaluation) -> None:
    """Show the result of an evaluation."""
    protocol, summary = evaluation.protocol, evaluation.summary
    each = f" {protocol.samples} samples each," if protocol.samples > 1 else ""
    say(
        f"{protocol.policy} on {protocol.suite}: {protocol.tasks} of {protocol.suite_tasks} tasks,"
        f"{each} {protocol.max_turns} turns at most, seed {protocol.seed}"
    )
    rates = [("all", summary.success)]
    if len(summary.by_type) > 1:
        rates = [*summary.by_type.items(), *rates]
    say_table(("task type", "tasks", "won", "success", "95% interval"), [_row(*r) for r in rates])
    say(_figures(protocol, summary))
    _show_errors(evaluation)
    if not protocol.held_out:
        say(f"note: {protocol.suite} is not held out; agents may have been trained on it")
    if protocol.note:
        say(f"note: {protocol.note}")


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
        figures.append(f"parsed {summary.parsed_rate:.3f}")
    if summary.admissible_rate is not None:
        figures.append(f"admissible {summary.admissible_rate:.3f}")
    if protocol.samples > 1:
        figures.append(f"pass@{protocol.samples} {summary.solved_once:.3f}")
    if summary.faults:
        figures.append(f"faults healed {summary.faults}")
    stops = ", ".join(f"{stop} {count}" for stop, count in summary.stops.items())
    return f"{', '.join(figures)}; ended by: {stops}"


def _show_errors(evaluation: Evaluation) -> None:
    broken = [episode for episode in evaluation.episodes if episode.error is not None]
    for episode in broken[:SHOWN_ERRORS]:
        say(f"error: {episode.task} sample {episode.sample}: {episode.error}")
    if len(broken) > SHOWN_ERRORS:
        say(f"error: {len(broken) - SHOWN_ERRORS} more episodes")
