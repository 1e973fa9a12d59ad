"""``agentgym plot``: the standard curves of runs as PNG and SVG."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentgym.cli_runs import open_runs
from agentgym.console import say


class Bands(StrEnum):
    """What the band of several seeds shows."""

    RANGE = "range"
    SD = "sd"
    NONE = "none"


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Pictures, without their suffix.")
    ] = Path("curves"),
    band: Annotated[
        Bands, typer.Option("--band", help="Of runs that differ only in their seed.")
    ] = Bands.RANGE,
    smooth: Annotated[
        int, typer.Option("--smooth", min=1, help="Average each run over so many steps.")
    ] = 1,
    panel: Annotated[
        list[str] | None,
        typer.Option("--panel", help="Only this picture, as Success; repeatable."),
    ] = None,
) -> None:
    """Draw the standard curves of runs, for papers; needs the extra `plot`."""
    from agentgym.plot import plot as draw

    opened = open_runs(runs)
    for path in draw(opened, output, band.value, smooth, panel or ()):
        say(f"written: {path}")
