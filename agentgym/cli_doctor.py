"""``agentgym doctor``: would a run start here, and what mends what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym import cli_plan
from agentgym.console import say
from agentgym.errors import AgentGymError, UsageError

if TYPE_CHECKING:
    from agentgym.config import Config
    from agentgym.doctor_finding import Finding


def doctor(
    env: Annotated[
        list[str] | None,
        typer.Option("--env", help="Only this environment; repeatable. All by default."),
    ] = None,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="A vLLM server to ask.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where runs would be written.")
    ] = Path("runs"),
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Say instead whether a run would fit on GPUs:"
            " agentgym doctor --plan --env alfworld --recipe paper --gpus 2 --serving-gpus 1",
        ),
    ] = False,
    recipe: cli_plan.Recipe = None,
    set_: cli_plan.Set = None,
    model: cli_plan.Model = None,
    parameters: cli_plan.Parameters = None,
    layers: cli_plan.Layers = None,
    hidden: cli_plan.Hidden = None,
    heads: cli_plan.Heads = None,
    kv_heads: cli_plan.KvHeads = None,
    vocab: cli_plan.Vocab = None,
    intermediate: cli_plan.Intermediate = None,
    tied: cli_plan.Tied = False,
    context: cli_plan.Context = None,
    group_size: cli_plan.GroupSize = None,
    gpus: cli_plan.Gpus = 1,
    gpu_memory: cli_plan.GpuMemory = 80.0,
    serving_gpus: cli_plan.ServingGpus = None,
    share: cli_plan.Share = False,
    tensor_parallel: cli_plan.TensorParallel = 1,
) -> None:
    """Look at all that a run needs here, and say what mends it; exit 1 if a run would not start."""
    stated = cli_plan.Stated(parameters, layers, hidden, heads, kv_heads, vocab, intermediate, tied)
    asked = cli_plan.Asked(recipe, tuple(set_ or ()), model, stated, context, group_size)
    gear = cli_plan.Gear(gpus, gpu_memory, serving_gpus, share, tensor_parallel)
    if plan:
        cli_plan.show_plan(env or (), asked, gear)
        return
    cli_plan.refuse_without_plan(asked, gear)
    from agentgym.doctor import default_envs, diagnose
    from agentgym.envs.registry import env_class, env_names

    for name in env or ():
        env_class(name)  # a wrong name is refused before anything is looked at
    config = _configuration(env or (), asked)
    envs = env or (default_envs(env_names()) if config is None else list(config.envs))
    wanted = model if model or config is None else config.policy.model
    failed = 0
    for finding in diagnose(envs, output, server, wanted, config):
        _show(finding)
        failed += finding.level == "FAIL"
    if failed:
        raise AgentGymError(
            f"{failed} of these would stop a run; each stands above, with what mends it"
        )
    say("nothing here would stop a run")


def _configuration(env: Sequence[str], asked: cli_plan.Asked) -> Config | None:
    """Return the configuration of the run that is asked for, with its model; None of no run."""
    if asked.recipe is None and not asked.settings:
        return None
    if not env and asked.recipe is None:
        raise UsageError("--set changes a run, and none is named; add --env, or --recipe FILE.toml")
    model = () if asked.model is None else (f"policy.model={asked.model}",)
    return cli_plan.configuration(env, replace(asked, settings=(*asked.settings, *model)))


def _show(finding: Finding) -> None:
    say(f"{finding.level:<4}  {finding.about}: {finding.said}")
    if finding.mend is not None:
        say(f"      mend: {finding.mend}")
