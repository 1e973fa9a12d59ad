"""``agentgym train --method sft``: behaviour cloning, the one method that needs no rollouts.

Its settings are other ones than those of reinforcement learning
(:class:`agentgym.trainers.clone.CloneOptions`), and so is what it does.
"""

from __future__ import annotations

import tomllib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym.console import say
from agentgym.errors import UsageError
from agentgym.launch import launched
from agentgym.live import live_steps

if TYPE_CHECKING:
    from agentgym.trainers.clone import CloneOptions

METHOD = "sft"


def train_sft(
    env: str | None,
    recipe: str | None,
    flags: dict[str, Any],
    settings: list[str],
    output: Path | None,
    resume: Path | None,
    *,
    dry: bool,
) -> None:
    """Clone a demonstrator, from a recipe or from the defaults.

    Args:
        env: Environment, where there is no recipe.
        recipe: Path of a TOML file.
        flags: Settings that have a flag of their own; None where it was not given.
        settings: ``key=value`` of any setting.
        output: Run folder; one under ``runs/`` when None.
        resume: Run folder to go on with; then nothing else is given.
        dry: Show the configuration and what would happen, and no more.

    Raises:
        UsageError: An unknown setting, no demonstrator, a held-out suite, a run folder that does
            not fit, or several processes.
    """
    if launched().size > 1:
        raise UsageError(
            f"--method {METHOD} trains in one process, and {launched().size} were started; start"
            " one"
        )
    from agentgym.trainers.clone import demonstrations, new_run
    from agentgym.trainers.run_folder import RunFolder, alone

    if resume is not None:
        folder, options = resume, _options(tomllib.loads(RunFolder.open(resume).config))
    else:
        options = _options(_table(env, recipe, flags, settings))
        name = options.env.suite.partition("/")[0]
        folder = output or Path("runs") / f"{name}-{METHOD}-{uuid.uuid4().hex[:6]}"
    shown, _ = demonstrations(options)
    there = f"{len(shown.tasks)} tasks"
    if options.demonstrations is not None:
        there = f"{len(shown.tasks)} demonstrations of {options.demonstrations}"
    say(f"method {METHOD} on {options.env.suite}: {there}, run folder {folder}")
    say(f"model: {options.model or 'a fresh one, with a tokenizer of its own'}")
    if dry:
        say(f"would take {options.steps} steps of {options.sft.tokens_per_step} tokens")
        return
    if resume is None:
        RunFolder.refuse(folder)
    with alone(RunFolder.open(folder).path if resume else folder):
        _run(options, RunFolder(folder) if resume else new_run(options, folder))


def _run(options: CloneOptions, run: Any) -> None:
    from agentgym.train import interrupts
    from agentgym.trainers.clone import clone

    with interrupts(say) as interrupted, live_steps(options.steps) as step:
        model = clone(options, run, step, interrupted, say)
    say(f"written: {model}")


def _table(
    env: str | None, recipe: str | None, flags: dict[str, Any], settings: list[str]
) -> dict[str, Any]:
    from agentgym.config import merge, override, read_toml
    from agentgym.envs.registry import env_class

    if recipe is not None:
        table = read_toml(Path(recipe))
    elif env is not None:
        table = {"env": {"suite": env_class(env).default_suite}}
    else:
        raise UsageError("say what to clone: --env alfworld, or --recipe FILE.toml")
    for layer in ({k: v for k, v in flags.items() if v is not None}, *map(override, settings)):
        table = merge(table, layer)
    return table


def _options(table: dict[str, Any]) -> CloneOptions:
    from pydantic import ValidationError

    from agentgym.trainers.clone import CloneOptions

    try:
        return CloneOptions.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"setting {where} of sft = {first['input']!r}: {first['msg']}") from None
