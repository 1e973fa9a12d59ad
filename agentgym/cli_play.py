"""``agentgym play``: step an environment by hand, at a terminal or from a script."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym.cli_common import EnvName, EnvOptions, MaxTurns, SuiteName, env_spec
from agentgym.console import say

if TYPE_CHECKING:
    from agentgym.play import Session


def play(
    env: EnvName = None,
    suite: SuiteName = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Task of the suite; drawn if left out.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Every random draw comes from it.")] = 0,
    max_turns: MaxTurns = None,
    option: EnvOptions = None,
) -> None:
    """Play by hand: an action a line, or a command such as :help, :actions, :undo, :quit.

    Reads a script from standard input when that is no terminal.
    """
    from agentgym.envs.registry import make_env
    from agentgym.episodes import unpublished_note
    from agentgym.play import Session
    from agentgym.play import play as play_lines

    spec = env_spec(env, suite, option or (), max_turns)
    with closing(make_env(spec)) as environment:
        note = unpublished_note(environment.suite)
        if note:
            say(f"note: {note}")
        person = sys.stdin.isatty() and sys.stdout.isatty()
        session = Session(environment, say, list_actions=person)
        if person:
            say(":help lists the commands; Tab completes")
            _complete_by_tab(session)
        session.start(task, seed)
        play_lines(session, _ask if person else _read_script)


def _ask(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        say("")
        return None


def _read_script(prompt: str) -> str | None:
    """Read a line and show it where a person would have typed it, so the output is a transcript."""
    line = sys.stdin.readline()
    if not line:
        return None
    say(f"{prompt}{line.rstrip()}")
    return line


def _complete_by_tab(session: Session) -> None:
    try:
        import readline
    except ImportError:  # Windows has none; everything but Tab works
        return

    def complete(text: str, state: int) -> str | None:
        matches = session.complete(text)
        return matches[state] if state < len(matches) else None

    readline.set_completer_delims("")  # an action is completed as a whole, spaces included
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
