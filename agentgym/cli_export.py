"""``agentgym export``: what a run made, and environments, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentgym.cli_common import EnvName, EnvOptions, MaxTurns, SuiteName, env_spec
from agentgym.cli_runs import open_runs
from agentgym.console import say, warn

app = typer.Typer(
    name="export",
    help="Write a run's model or episodes, or an environment, for other programs.",
    epilog="Example: agentgym export model runs/seed-0 -o my-model",
    no_args_is_help=True,
)

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]


@app.command("model", epilog="Example: agentgym export model runs/seed-0 --step 50 -o my-model")
def model(
    run: RunPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    step: Annotated[
        int | None, typer.Option("--step", min=0, help="Of which checkpoint; the last by default.")
    ] = None,
) -> None:
    """Copy a checkpoint as a plain Hugging Face folder, with an adapter merged into it."""
    from agentgym.export import export_model

    taken, folder = export_model(run, output, step)
    say(f"written: {folder}, the model after step {taken}")


@app.command(
    "messages", epilog="Example: agentgym export messages runs/seed-0 --won -o good.parquet"
)
def messages(
    run: RunPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Parquet file.")],
    source: Annotated[
        str, typer.Option("--from", help="train, eval, or those of one step, as train/10.")
    ] = "train",
    won: Annotated[bool, typer.Option("--won", help="Only episodes that were won.")] = False,
    score: Annotated[
        float, typer.Option("--score", help="Only episodes that scored at least so much.")
    ] = 0.0,
) -> None:
    """Write episodes as conversations for supervised fine-tuning; needs the extra `export`."""
    from agentgym.export import Wanted, export_messages

    (opened,) = open_runs([run])
    done = export_messages(opened, output, Wanted(source, won, score))
    for note in done.notes:
        warn(f"agentgym: {note}")
    say(f"written: {output}, {done.conversations} conversations of {done.episodes} episodes")


@app.command(
    "env", epilog="Example: agentgym export env --suite alfworld/gen-unseen --to openenv -o served"
)
def env(
    to: Annotated[str, typer.Option("--to", help="openenv or verifiers: who plays it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    env: EnvName = None,
    suite: SuiteName = None,
    max_turns: MaxTurns = None,
    option: EnvOptions = None,
) -> None:
    """Write an environment as an OpenEnv server or as a verifiers taskset."""
    from agentgym.export_env import export_env

    spec = env_spec(env, suite, option or (), max_turns)
    written = export_env(spec, to, output)
    say(f"written: {output}, {len(written)} files; its README.md says how it is used")
