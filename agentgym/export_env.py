"""An environment for other programs: a folder that OpenEnv serves, or verifiers plays.

The folders are short: they name a suite, and import what does the work from this package. Nothing
of the other programs is needed to write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template
from typing import Literal, get_args

from agentgym import __version__
from agentgym.envs.registry import make_env
from agentgym.errors import UsageError, unknown
from agentgym.files import make_folder, write_atomic
from agentgym.types import EnvSpec

Target = Literal["openenv", "verifiers"]

_FOLDERS = files("agentgym") / "data" / "export"


def export_env(spec: EnvSpec, target: str, out: Path) -> list[Path]:
    """Write a folder with which another program plays a suite.

    Args:
        spec: The environment; its suite is the folder's default.
        target: For whom, as in ``Target``.
        out: Must not exist, or be empty.

    Returns:
        What was written.

    Raises:
        UsageError: No such target, or ``out`` holds something.
        AgentGymError: The suite cannot be played here, or ``out`` cannot be written.
    """
    if target not in get_args(Target):
        raise unknown("target (--to)", target, get_args(Target))
    make_env(spec).close()  # what cannot be played is refused here, and not by the other program
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there and not empty; nothing was written, choose another")
    values = _values(spec)
    written = []
    for name, text in _texts(_FOLDERS / target, PurePosixPath()):
        path = out / str(name).replace("package/", f"{values['package']}/").removesuffix(".txt")
        make_folder(path.parent)
        write_atomic(path, Template(text).substitute(values))
        written.append(path)
    return written


def _values(spec: EnvSpec) -> dict[str, str]:
    suite = str(spec.options["suite"])
    more = {name: value for name, value in spec.options.items() if name != "suite"}
    return {
        "package": f"agentgym_{spec.name}",
        "env": spec.name,
        "suite": suite,
        "version": __version__,
        # As Python writes them, for what is code.
        "env_name": repr(spec.name),
        "suite_name": repr(suite),
        "options": repr(dict(spec.options)),
        "more_options": repr(more),
    }


def _texts(folder: Traversable, name: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            yield from _texts(entry, name / entry.name)
        else:
            yield name / entry.name, entry.read_text(encoding="utf-8")
