"""What several commands share: their options, and how what was asked for is found.

Nothing heavy is imported until a command runs, so that ``--help`` stays quick.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Annotated

import typer

from agentgym.console import say
from agentgym.errors import UsageError
from agentgym.types import EnvSpec

Name = Annotated[str, typer.Argument(metavar="NAME", help="Environment, as in envs list.")]
EnvName = Annotated[str | None, typer.Option("--env", help="Environment; takes its default suite.")]
SuiteName = Annotated[str | None, typer.Option("--suite", help="Set of tasks, as environment/set.")]
MaxTurns = Annotated[
    int | None, typer.Option("--max-turns", min=1, help="Actions an episode may take.")
]
EnvOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Option of the environment; repeatable."),
]

Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="What a model is told: a template file (.txt); or for one without a prompt a style.",
    ),
]
Host = Annotated[
    str,
    typer.Option(
        "--host", help="Address to listen on; another than this machine's needs $AGENTGYM_TOKEN."
    ),
]


def parse_options(pairs: Sequence[str]) -> dict[str, object]:
    """Read ``key=value`` pairs; a value is a TOML number, truth value or string, else plain text.

    Raises:
        UsageError: A pair without ``=``, or a key given twice.
    """
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (equals and key):
            raise UsageError(f"an option is given as --option key=value, got {pair!r}")
        if key in options:
            raise UsageError(f"option {key!r} is given twice")
        options[key] = _value(value)
    return options


def _value(text: str) -> object:
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, or a number of too many digits
        return text
    value = read["value"]
    # Dates and the like mean nothing to an environment; they stay the text they were.
    return value if len(read) == 1 and isinstance(value, bool | int | float | str) else text


def env_spec(
    env: str | None, suite: str | None, options: Sequence[str], max_turns: int | None = None
) -> EnvSpec:
    """Return the environment that a command was asked for.

    With ``env`` alone the environment's default suite is taken, and that is said.

    Raises:
        UsageError: Neither or both do not fit together, or a name is not known.
    """
    from agentgym.envs.registry import env_class, env_of_suite

    if suite is None:
        if env is None:
            raise UsageError("say what to play: --suite environment/set, or --env environment")
        suite = env_class(env).default_suite
        say(f"suite: {suite}, the default of {env}; --suite chooses another")
    elif env not in (None, suite.partition("/")[0]):
        raise UsageError(f"--suite {suite} is not of --env {env}; leave one of them out")
    chosen = parse_options(options)
    for name, flag in (("suite", "--suite"), ("max_turns", "--max-turns")):
        if name in chosen:
            raise UsageError(f"{name} is chosen with {flag}, not with --option")
    if max_turns is not None:
        chosen["max_turns"] = max_turns
    return EnvSpec(env_of_suite(suite), {"suite": suite, **chosen})
