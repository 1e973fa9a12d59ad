"""The chaos job's judgement of what was hit, and of what was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

Load = Callable[[str], ModuleType]
ENDS, SLEEPS = "", "import time; time.sleep(60)"


class Sending:
    """A scenario whose run is a line of Python."""

    steps = 2

    def __init__(self, code: str) -> None:
        self.code = code

    def start(self, folder: Path, log: Path, more: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", self.code])


@pytest.mark.parametrize(("code", "hit"), [(SLEEPS, True), (ENDS, False)])
def test_a_run_that_ended_before_it_was_killed_was_not_hit(
    code: str, hit: bool, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chaos = load("chaos")

    def late(moment: object, folder: Path, running: Callable[[], bool]) -> bool:
        while code == ENDS and running():
            pass
        return True  # as if it had ended a moment later

    monkeypatch.setattr(chaos.Moment, "wait", late)
    result = chaos.Result(0, "SIGKILL of the trainer", "corridor")
    whole, rng = SimpleNamespace(start_s=0.0, step_s=0.0), random.Random(0)
    scenario: Any = Sending(code)
    assert chaos._hit(result, scenario, whole, tmp_path / "run", chaos.Signal(), rng) is hit
    assert result.ended == (-signal.SIGKILL if hit else 0)


@pytest.mark.parametrize(("user", "code", "by"), [
    (0, 0, "a file system of its own"), (0, 32, "RLIMIT_FSIZE"), (1000, 0, "RLIMIT_FSIZE"),
])  # fmt: skip
def test_a_disk_fills_up_by_what_may_be_done_here(
    user: int, code: int, by: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = load("chaos_hits")
    asked: list[str] = []

    def run(words: list[str], **_: object) -> SimpleNamespace:
        asked.append(words[0])
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(hits.os, "geteuid", lambda: user)
    monkeypatch.setattr(hits.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(hits.subprocess, "run", run)
    disk = hits.FullDisk()
    assert disk.by == disk.by == by
    assert asked == ["mount", "umount"][: (1 + (code == 0)) * (user == 0)]  # tried once
