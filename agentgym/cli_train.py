"""``agentgym train``: a run from a recipe, shown while it goes, with its result at the end."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentgym.cli_common import Template
from agentgym.cli_sft import METHOD, train_sft
from agentgym.console import say, say_table
from agentgym.errors import UsageError
from agentgym.launch import launched
from agentgym.live import live_steps

if TYPE_CHECKING:
    from agentgym.config import Config
    from agentgym.train import Outcome

DEFAULT_RECIPE = "laptop"


def train(
    env: Annotated[
        str | None,
        typer.Option("--env", help="Environment; its recipe is taken. Several, as a,b, are mixed."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Method, as epo or epo:released, or a .py file.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Of --env, as laptop, paper or spear-7b; or a TOML file."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Hugging Face folder or hub id, or a bundled model."),
    ] = None,
    template: Template = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Every random draw comes from it.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as optim.lr=1e-6."),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option("--server", metavar="URL", help="A vLLM server that samples; repeatable."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Start vLLM servers that sample for the run.")
    ] = False,
    vllm: Annotated[
        str | None,
        typer.Option("--vllm", help="For --serve: vLLM's command, Python or environment."),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=1, help="For --serve: how many servers.")
    ] = None,
    tensor_parallel: Annotated[
        int | None,
        typer.Option("--tensor-parallel", min=1, help="For --serve: GPUs of each server."),
    ] = None,
    sleep: Annotated[
        bool | None,
        typer.Option(
            "--sleep/--no-sleep",
            help="The server has the learner's GPU in turns: it sleeps meanwhile.",
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", help="Environment processes; 0 uses this one; ray:8 are on Ray."),
    ] = None,
    staleness: Annotated[
        int | None,
        typer.Option(
            "--staleness", min=0, help="Steps that a server plays ahead, by older weights; else 0."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run folder; under runs/ by default.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the run of this folder.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the configuration and what would happen.")
    ] = False,
) -> None:
    """Train a model as an agent, and measure it on held-out tasks before and after."""
    if method == METHOD:
        if template is not None:
            raise UsageError("--template is not for --method sft, which clones into plain words")
        given: dict[str, object] = {"steps": steps, "seed": seed, "model": model}
        if resume is not None:
            _refuse_beside_resume({f"--{k}": v for k, v in given.items()} | {"--set": set_})
        train_sft(env, recipe, given, set_ or [], output, resume, dry=dry_run)
        return
    from agentgym.train import resumed_config

    own = {"vllm": vllm, "replicas": replicas, "tensor_parallel": tensor_parallel}
    if resume is not None:
        given = {"--env": env, "--method": method, "--recipe": recipe}
        given |= {"--model": model, "--template": template, "--steps": steps, "--seed": seed}
        _refuse_beside_resume(given | {"--set": set_, "--output": output, "--staleness": staleness})
        # Servers and hosts come and go; which of them plays is no part of what a run is.
        config = _served(resumed_config(resume), server, _without_none(own), serve=serve)
        config = _worked(_asleep(config, sleep), workers)
        _run(config, resume, resume=True, dry=dry_run)
        return
    flags = {
        "method": {"name": _findable(method)},
        "policy": {"model": model, "template": template},
        "rollout": {"staleness": staleness},
        "steps": steps,
        "seed": seed,
    }
    config = _configure(env, recipe, flags, set_ or [])
    config = _served(config, server, _without_none(own), serve=serve)
    config = _worked(_asleep(config, sleep), workers)
    folder = output or Path("runs") / _run_name(config)
    _introduce(config, folder, chose_model=model is not None, recipe=recipe)
    _run(config, folder, resume=False, dry=dry_run)


def _refuse_beside_resume(given: dict[str, Any]) -> None:
    for flag, value in given.items():
        if value not in (None, []):
            raise UsageError(f"--resume goes on with the run as it was begun; leave out {flag}")


def _configure(
    env: str | None, recipe: str | None, flags: dict[str, Any], settings: list[str]
) -> Config:
    from agentgym.config import load, mixed, override, read_recipe, read_toml

    recipe = recipe or DEFAULT_RECIPE
    if recipe.endswith(".toml"):
        low = read_toml(Path(recipe))
    elif env is None:
        raise UsageError("say what to train in: --env alfworld, or --recipe FILE.toml")
    else:
        low = mixed([read_recipe(name.strip(), recipe) for name in env.split(",")])
    return load([low, _without_none(flags), *(override(setting) for setting in settings)])


def _served(config: Config, urls: list[str] | None, own: dict[str, Any], *, serve: bool) -> Config:
    """Return a configuration whose turns are sampled where the flags say; they replace its own."""
    from agentgym.config import load

    if urls and (serve or own):
        raise UsageError("--serve starts a server, and --server names one; choose one")
    given: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    if urls:
        given["policy"].pop("serve", None)
        given["policy"]["server"]["urls"] = urls
    if serve or own:
        given["policy"]["server"]["urls"] = []
        given["policy"]["serve"] = given["policy"].get("serve", {}) | own
    return load([given])


def _asleep(config: Config, sleep: bool | None) -> Config:
    """Return a configuration whose server sleeps while the learner learns, or not, where said."""
    from agentgym.config import load

    if sleep is None:
        return config
    given = config.model_dump(mode="json", exclude_none=True)
    return load([given, {"policy": {"server": {"sleep": sleep}}}])


def _worked(config: Config, workers: str | None) -> Config:
    """Return a configuration whose environments are in such workers, each in so many."""
    from agentgym.config import load

    if workers is None:
        return config
    given: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    for env in given["mix"].values() if "mix" in given else [given["env"]]:
        env["workers"] = workers
    return load([given])


def _findable(method: str | None) -> str | None:
    """Return a method's name; of one in a file, such that a run can be resumed from anywhere."""
    from agentgym.trainers.registry import is_file

    return str(Path(method).absolute()) if method is not None and is_file(method) else method


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _without_none(v) if isinstance(v, dict) else v for k, v in table.items()}
    return {k: v for k, v in inner.items() if v is not None and v != {}}


def _run_name(config: Config) -> str:
    env = "-".join(config.envs)
    model = Path(config.policy.model).name
    method = Path(config.method_name).name.replace(".py", "").replace(":", "-")
    return f"{env}-{method}-{model}-{uuid.uuid4().hex[:6]}"


def _introduce(config: Config, folder: Path, *, chose_model: bool, recipe: str | None) -> None:
    from agentgym.config import recipe_names

    if not launched().is_first:
        return
    suites = [env.suite for env in config.envs.values()]
    say(f"method {config.method_name} on {' and '.join(suites)}, run folder {folder}")
    if recipe is None:
        others = "; --recipe paper has the published sizes"
        published = all("paper" in recipe_names(name) for name in config.envs)
        say(f"recipe: {DEFAULT_RECIPE}, made for two cores{others if published else ''}")
    say(
        f"model: {config.policy.model}"
        + ("" if chose_model else "; --model takes any Hugging Face folder or hub id")
    )
    if types := [kind for env in config.envs.values() for kind in env.task_types]:
        say(f"task types: {', '.join(types)}")
    if any("/gen-" in suite for suite in suites):
        say("games: generated ones; scores on them are not those of the published test sets")


def _run(config: Config, folder: Path, *, resume: bool, dry: bool) -> None:
    from agentgym.train import SILENT, Reporter, dry_run, run_training

    if not launched().is_first:  # the first process speaks for all
        if not dry:
            run_training(config, folder, SILENT, resume=resume)
        return
    if dry:
        for line in dry_run(config, folder, resume=resume):
            say(line)
        return
    with live_steps(config.steps) as shown:
        reporter = Reporter(say, shown, shown.stage)
        outcomes = run_training(config, folder, reporter, resume=resume)
    for outcome in outcomes:
        show_outcome(outcome)
    say(f"written: {folder}")


def show_outcome(outcome: Outcome) -> None:
    """Show the held-out evaluations before the first step and after the last, side by side."""
    before, after = outcome.before, outcome.after
    first, last = before.summary, after.summary
    rows = [
        _compare(kind, rate.value, last.by_type[kind].value, rate.tasks)
        for kind, rate in first.by_type.items()
    ]
    rows.append(_compare("all", first.success.value, last.success.value, first.success.tasks))
    protocol = before.protocol
    say(f"held out: {protocol.tasks} tasks of {protocol.suite}, success rate")
    say_table(("task type", "tasks", "before", "after", "change"), rows)
    low, high = last.success.low, last.success.high
    say(f"after, 95% interval: {low:.3f}-{high:.3f}")
    if protocol.note:
        say(f"note: {protocol.note}")


def _compare(kind: str, before: float, after: float, tasks: int) -> tuple[str, ...]:
    return kind, str(tasks), f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"
