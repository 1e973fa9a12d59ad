"""Where fuzzing is done, and where its results are kept."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def beside() -> Callable[[str], ModuleType]:
    """Imports a module of this folder by its name."""

    def load(name: str) -> ModuleType:
        known = f"agentgym_fuzz_{name}"
        if known not in sys.modules:
            spec = spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[known] = module_from_spec(spec)
            spec.loader.exec_module(module)
        return sys.modules[known]

    return load


@pytest.fixture
def ram() -> Iterator[Path]:
    """A folder in memory, where there is such a thing: files are written 100,000 times."""
    there = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="agentgym-fuzz-", dir=there if there.is_dir() else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def keep() -> Iterator[Callable[[Any], None]]:
    """Keeps results, and writes them down at the end where ``AGENTGYM_FUZZ_WRITE`` says."""
    results: list[Any] = []
    yield results.append
    where = os.environ.get("AGENTGYM_FUZZ_WRITE")
    if where:
        Path(where).write_text(page(results), encoding="utf-8")


def page(results: list[Any]) -> str:
    """Return the results as Markdown."""
    failed = sum(bool(one.failures) for one in results)
    lines = [
        "# Fuzz: broken inputs to every reader",
        "",
        f"`make test-fuzz`, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}:"
        f" {sum(one.count for one in results):,} inputs in"
        f" {sum(one.seconds for one in results) / 60:.0f} minutes on a machine that did other"
        " things too. Inputs are good ones that a seed has broken (`tests/fuzz/mutator.py`). An"
        " input fails a reader that raises anything but this package's errors, takes more than a"
        " second of the processor, or opens a file outside its folder; what else must hold of"
        " each is in `tests/fuzz/targets.py`. Refused are those that were answered by an error"
        " of this package.",
        "",
        "**Nothing failed.**" if not failed else f"**{failed} readers failed.**",
        "",
        "| reader | inputs | refused | slowest, ms | failures |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {one.name.replace('_', ' ')} | {one.count:,} | {one.refused:,} |"
            f" {1e3 * one.slowest:.0f} | {len(one.failures)} |"
            for one in results
        ),
        "",
    ]
    return "\n".join(lines)
