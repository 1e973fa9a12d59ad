"""The ``agentgym`` command: its commands, and what becomes of errors.

Importing this imports typer and nothing heavy; each command imports what it needs when it runs.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from agentgym import (
    __version__,
    cli_compare,
    cli_doctor,
    cli_envs,
    cli_eval,
    cli_export,
    cli_methods,
    cli_play,
    cli_plot,
    cli_serve,
    cli_train,
    cli_view,
)
from agentgym.console import say, warn
from agentgym.errors import AgentGymError

_INTERRUPTED = 130
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

app = typer.Typer(
    name="agentgym",
    help="Train and measure a language model as an agent over many turns.",
    epilog="Example: agentgym eval --suite alfworld/gen-unseen --policy expert",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_envs.app)
app.add_typer(cli_methods.app)
app.add_typer(cli_export.app)
app.command(
    "eval", epilog="Example: agentgym eval --suite alfworld/gen-unseen --policy random -n 20"
)(cli_eval.eval_)
app.command("compare", epilog="Example: agentgym compare results/random results/expert")(
    cli_compare.compare
)
app.command("train", epilog="Example: agentgym train --env alfworld --method epo")(cli_train.train)
app.command("play", epilog="Example: agentgym play --env alfworld --seed 3")(cli_play.play)
app.command("serve", epilog="Example: agentgym serve alfworld-tiny")(cli_serve.serve)
app.command("plot", epilog="Example: agentgym plot runs/seed-0 runs/seed-1 -o curves")(
    cli_plot.plot
)
app.command("doctor", epilog="Example: agentgym doctor --env alfworld")(cli_doctor.doctor)
app.command("view", epilog="Example: agentgym view runs/seed-0 --export report.html")(cli_view.view)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"agentgym {__version__}")
        raise typer.Exit


@app.callback()
def _agentgym(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted.
    """
    try:
        app()
    except AgentGymError as error:
        _fail(" ".join(str(error).split()), error.exit_code)
    except SystemExit as exit_:
        if exit_.code == _INTERRUPTED:  # what typer makes of an interrupt, without a word
            warn("agentgym: interrupted")
        raise
    except KeyboardInterrupt:  # another one, while the first was dealt with
        _fail("interrupted", _INTERRUPTED)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _drop_output()
        where = error.filename or "what this command says"
        _fail(f"no room left on the disk for {where}; make room and run it again", 1)


def _fail(why: str, code: int) -> None:
    warn(f"agentgym: {why}")
    sys.exit(code)


def _drop_output() -> None:
    """Let standard output lead nowhere: what waits to be written would fail again at the exit."""
    with suppress(OSError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
