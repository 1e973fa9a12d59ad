"""``agentgym envs download``: bring an environment's official data here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym.cli_common import Name
from agentgym.console import say, say_table, size, transfers, warn
from agentgym.errors import UsageError, unknown

if TYPE_CHECKING:
    from agentgym.download import DataSet


def download(
    name: Name,
    which: Annotated[
        str | None, typer.Option("--set", help="Data set, where there are several.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to fill, instead of the usual one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be fetched, and fetch nothing.")
    ] = False,
) -> None:
    """Fetch an environment's official data from its publishers, verify and unpack it."""
    from agentgym.download import download as bring
    from agentgym.fetch import Watch

    data = _data_set(name, which)
    folder = data.default_folder() if to is None else to
    say(f"{name}: {data.about}; licence: {data.licence}")
    if dry_run:
        _show(data, folder)
        return
    try:
        with transfers() as moved:
            fetched = bring(data, folder, Watch(moved, warn))
    except KeyboardInterrupt:
        warn("what arrived is kept; the same command goes on from there")
        raise
    say(f"{'it is' if fetched else 'it was already'} in {folder}")
    _tell_how_to_play(data, folder)


def _data_set(name: str, which: str | None) -> DataSet:
    from agentgym.envs.registry import env_class

    sets = env_class(name).data_sets()
    if not sets:
        raise UsageError(f"{name} needs no data beside what is installed; play it right away")
    if which is None:
        which = next(iter(sets))
        if len(sets) > 1:
            say(f"data set: {which}; --set chooses another: {', '.join(sets)}")
    if which not in sets:
        raise unknown(f"data set of {name}", which, sets)
    return sets[which]


def _show(data: DataSet, folder: Path) -> None:
    rows = [
        (file.name, size(file.size), file.sha256 or "unknown", " or ".join(file.urls))
        for file in data.files
    ]
    say_table(("file", "size", "SHA-256", "address"), rows)
    say(f"{size(data.size)} in all, into {folder}")


def _tell_how_to_play(data: DataSet, folder: Path) -> None:
    if folder.expanduser().resolve() != data.default_folder().resolve():
        say(f"so that it is found: export {data.variable}={folder.resolve()}")
    say(f"play: agentgym eval --suite {data.suite} --policy random -n 10")
    if data.note:
        say(data.note)
