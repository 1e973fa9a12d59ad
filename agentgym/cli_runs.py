"""What commands that look at runs share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentgym.console import warn
from agentgym.run_files import Run, open_run


def open_runs(folders: Sequence[Path]) -> list[Run]:
    """Open run folders, and say what of them cannot be read.

    Raises:
        DataError: One is no run.
    """
    runs = [open_run(folder) for folder in folders]
    for run in runs:
        for problem in run.problems:
            warn(f"agentgym: {problem}")
    return runs
