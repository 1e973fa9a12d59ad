"""``agentgym envs``: which environments and suites there are, and whether they work here."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import Parameter, getdoc, getmodule, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym import cli_download, cli_serve
from agentgym.cli_common import EnvOptions, Name, SuiteName, env_spec, parse_options
from agentgym.console import say, say_table
from agentgym.errors import AgentGymError, DataError, UsageError

if TYPE_CHECKING:
    from agentgym.envs.base import TextEnv
    from agentgym.envs.check import Finding

app = typer.Typer(
    name="envs",
    help="List, describe and check environments.",
    epilog="Example: agentgym envs list",
    no_args_is_help=True,
)

app.command("download", epilog="Example: agentgym envs download alfworld")(cli_download.download)
app.add_typer(cli_serve.app)


@app.command("list", epilog="Example: agentgym envs list")
def list_() -> None:
    """List the environments."""
    from agentgym.envs.registry import env_names

    columns = ("name", "about", "suites", "own process", "expert")
    say_table(columns, [_list_row(name) for name in env_names()])
    say("agentgym envs info NAME tells more")


def _list_row(name: str) -> tuple[str, ...]:
    from agentgym.envs.registry import env_class

    try:
        kind = env_class(name)
    except DataError as error:  # one broken plug-in does not hide the others
        return name, f"broken: {error}", "", "", ""
    return (
        name,
        about(kind),
        str(len(kind.suite_names())),
        _yes(kind.needs_process),
        _yes(kind.has_expert),
    )


@app.command("info", epilog="Example: agentgym envs info alfworld")
def info(name: Name, option: EnvOptions = None) -> None:
    """Describe an environment: its suites with their sizes and digests, and its options."""
    from agentgym.envs.registry import check_options
    from agentgym.types import EnvSpec

    options = parse_options(option or ())
    kind = check_options(EnvSpec(name, options))
    say(f"{name}: {about(kind)}")
    say(f"default suite {kind.default_suite}, {kind.default_max_turns} turns at most")
    say(f"options: {', '.join(_options(kind)) or 'none'}")
    suites = [_suite_row(kind, suite, options) for suite in kind.suite_names()]
    rows = [row for row, _ in suites]
    columns = ("suite", "tasks", "digest", "origin", "held out", "about")
    say_table(columns, rows, spare=("origin", "held out"))
    missing: dict[str, list[str]] = {}  # by reason, which many suites may share
    for (suite, *_), why in suites:
        if why is not None:
            missing.setdefault(why, []).append(suite)
    for why, names in missing.items():
        say(f"{', '.join(names)}: {why}")


def _suite_row(
    kind: type[TextEnv], suite: str, options: dict[str, object]
) -> tuple[tuple[str, ...], str | None]:
    """Return the row of a suite, and what is to be said if its data is not there."""
    from agentgym.envs.registry import make_env
    from agentgym.types import EnvSpec

    try:
        env = make_env(EnvSpec(kind.name, {**options, "suite": suite}))
    except (DataError, UsageError) as error:  # an option may fit some suites only
        return (suite, "-", "-", "-", "-", "not here, see below"), str(error)
    env.close()
    found = env.suite
    origin = "published" if found.official else "not published"
    size, short = str(len(found.tasks)), found.digest[:12]
    return (suite, size, short, origin, _yes(found.held_out), found.about), None


def _options(kind: type[TextEnv]) -> list[str]:
    """Return the environment's options beside suite and max_turns, with their defaults."""
    return [
        parameter.name
        if parameter.default in (Parameter.empty, None)
        else f"{parameter.name}={parameter.default}"
        for parameter in signature(kind).parameters.values()
        if parameter.name not in ("suite", "max_turns")
    ]


@app.command("check", epilog="Example: agentgym envs check alfworld --suite alfworld/gen-unseen")
def check(
    name: Name,
    suite: SuiteName = None,
    tasks: Annotated[int, typer.Option("-n", "--tasks", min=1, help="Tasks to play.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Chooses tasks and actions.")] = 0,
    option: EnvOptions = None,
) -> None:
    """Check that an environment keeps the contract; exit 1 if it does not."""
    from agentgym.envs.check import check_env
    from agentgym.envs.registry import make_env

    spec = env_spec(name, suite, option or ())
    findings = check_env(lambda: make_env(spec), tasks, seed)
    say_table(("check", "result", "what it did instead"), _finding_rows(findings))
    failed = sum(not one.passed for one in findings)
    if failed:
        raise AgentGymError(f"{name} fails {failed} of {len(findings)} checks")
    say(f"{name} passes all {len(findings)} checks")


def _finding_rows(findings: Iterable[Finding]) -> list[tuple[str, str, str]]:
    """Return a row a finding; what broken data makes of every check is told once."""
    rows, told = [], {"": ""}
    for one in findings:
        first = told.setdefault(one.detail, one.check)
        again = first not in ("", one.check)
        detail = f"the same as: {first}" if again else one.detail
        rows.append((one.check, "ok" if one.passed else "FAILED", detail))
    return rows


@app.command("export", epilog="Example: agentgym envs export alfworld --out games -n 12")
def export(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to fill; must be empty.")],
    suite: Annotated[
        str, typer.Option("--suite", help="Set of generated games.")
    ] = "alfworld/gen-unseen",
    tasks: Annotated[
        int | None, typer.Option("-n", "--tasks", min=1, help="Only the first games of the suite.")
    ] = None,
) -> None:
    """Write generated ALFWorld games as folders in the benchmark's own format."""
    from agentgym.envs.alfworld_files import write_game
    from agentgym.envs.alfworld_generate import SETS, generate, task_ids
    from agentgym.envs.registry import env_class, env_of_suite
    from agentgym.files import make_folder

    env_class(name)
    set_name = suite.partition("/")[2]
    if name != "alfworld":
        raise UsageError(f"only games of alfworld can be written as files, not those of {name}")
    if env_of_suite(suite) != name or set_name not in SETS:
        known = ", ".join(f"alfworld/{one}" for one in SETS)
        raise UsageError(f"{suite} is no set of generated games; choose one of {known}")
    if any(make_folder(out).iterdir()):
        raise UsageError(f"{out} is not empty; nothing was written, choose another folder")
    games = task_ids(set_name)[:tasks]
    for task in games:
        write_game(generate(set_name, task), out / task)
    say(f"written: {len(games)} games of {suite} into {out}")
    say(f"play them: agentgym eval --suite alfworld/folder --option data={out} --policy expert")


def about(kind: type[TextEnv]) -> str:
    """Return the first line of the environment's module, or class, without its full stop."""
    docs = (getdoc(getmodule(kind)), getdoc(kind))
    return next((doc.partition("\n")[0].rstrip(".") for doc in docs if doc), "")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
