"""``agentgym play``: step an environment by hand, or beside a model, in a terminal or a script."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym.cli_common import EnvName, EnvOptions, MaxTurns, SuiteName, Template, env_spec
from agentgym.console import say, say_part
from agentgym.errors import UsageError

if TYPE_CHECKING:
    from agentgym.pilot import Pilot
    from agentgym.play import Session


def play(
    env: EnvName = None,
    suite: SuiteName = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Task of the suite; drawn if left out.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Folder, hub id or bundled model to play beside."),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="Of a model; 0 is greedy.")
    ] = 0.4,
    template: Template = None,
    context: Annotated[
        str | None,
        typer.Option("--context", help="full or window(k); what of the past a model sees."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Every random draw comes from it.")] = 0,
    max_turns: MaxTurns = None,
    option: EnvOptions = None,
) -> None:
    """Play by hand: an action a line, or a command such as :help, :actions, :undo, :quit.

    With --model an empty line lets the model propose a turn and another one takes it. Reads a
    script from standard input when that is no terminal.
    """
    from agentgym.envs.registry import make_env
    from agentgym.episodes import unpublished_note
    from agentgym.play import Session
    from agentgym.play import play as play_lines
    from agentgym.play_model import ModelSession

    if template is not None and model is None:
        raise UsageError("--template is what a model is told; name one with --model")
    spec = env_spec(env, suite, option or (), max_turns)
    with closing(make_env(spec)) as environment:
        note = unpublished_note(environment.suite)
        if note:
            say(f"note: {note}")
        told = template, context
        pilot = None if model is None else _pilot(model, spec.name, temperature, told, seed)
        person = sys.stdin.isatty() and sys.stdout.isatty()
        if pilot is None:
            session = Session(environment, say, person)
        else:
            session = ModelSession(environment, say, pilot, say_part, person, _interrupts)
        if person:
            say(":help lists the commands; Tab completes")
            _complete_by_tab(session)
        session.start(task, seed)
        play_lines(session, _ask if person else _read_script)


def _pilot(
    model: str, env: str, temperature: float, told: tuple[str | None, str | None], seed: int
) -> Pilot:
    from agentgym.models import open_model
    from agentgym.pilot import Pilot

    opened = open_model(model, env, *told)
    sampling = opened.sampling.model_copy(update={"temperature": temperature})
    asked = replace(opened, sampling=sampling)
    return Pilot(asked.policy, asked.script, asked.sampling, seed, asked.name)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether Ctrl-C was pressed, which pauses the model; twice ends the play."""
    pressed = False

    def press(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


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
    # macOS has another library under the same name, with commands of its own.
    edits = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if edits else "tab: complete")
