"""``agentgym view``: a run as a page on this machine, as one file, or in the terminal."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from agentgym.cli_common import Host
from agentgym.cli_runs import open_runs
from agentgym.console import say, warn
from agentgym.door import LOOPBACK, Door, open_door
from agentgym.errors import UsageError


def view(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Folders of runs or evaluations, shown side by side."
        ),
    ],
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Show the essentials here, without a browser.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the page as one file, as report.html.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Trajectories that an exported page carries.")
    ] = 500,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
    host: Host = LOOPBACK,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Look at runs and evaluations: curves, episodes token by token, groups, two side by side."""
    if terminal and export is not None:
        raise UsageError("--terminal shows the run here and --export writes a file; choose one")
    opened = open_runs(runs)
    if terminal:
        from agentgym.view_terminal import show_run

        for run in opened:
            show_run(run)
    elif export is not None:
        from agentgym.view import export as write

        carried, left_out, problems = write(opened, export, limit)
        for problem in problems:
            warn(f"agentgym: {problem}")
        more = f"; {left_out} more are left out, --limit raises it" if left_out else ""
        say(f"written: {export}, with {carried} trajectories{more}")
    else:
        _serve(runs, open_door(host, port), browser=browser)


def _serve(runs: list[Path], door: Door, *, browser: bool) -> None:
    from agentgym.view import ViewServer

    with ViewServer(runs, door) as server:
        say(f"the page: {server.url} ({door.told}; Ctrl-C ends it)")
        if browser:
            import webbrowser

            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):  # the way to end it, and no failure
            server.serve_forever()
