"""What hits a run of the chaos job, and when: moments and faults, drawn from a seed."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from processes import command, descendants

_POLL_S = 0.002
_PATIENCE_S = 240.0  # for a victim to be there


@dataclass(frozen=True, slots=True)
class Moment:
    """When a run is hit.

    Attributes:
        steps: After how many steps; -1 while it starts.
        seconds: So long after that.
        saving: Whether the next checkpoint's first file is waited for in between.
    """

    steps: int
    seconds: float
    saving: bool

    @classmethod
    def draw(cls, rng: random.Random, steps: range, start_s: float, step_s: float) -> Moment:
        """Draw one: a tenth while the run starts, where that is asked for, a third while it saves.

        Args:
            rng: Where it is drawn from.
            steps: After how many steps it may be; -1 stands for the start.
            start_s: Seconds until an undisturbed run begins its first step.
            step_s: Seconds that a step takes.
        """
        if -1 in steps and rng.random() < 0.1:
            return cls(-1, rng.uniform(0, start_s), saving=False)
        after = rng.choice([step for step in steps if step >= 0])
        if rng.random() < 1 / 3:
            return cls(after, rng.uniform(0, 0.03), saving=True)
        return cls(after, rng.uniform(0, step_s), saving=False)

    def told(self) -> str:
        """Say when it is."""
        place = "while it starts" if self.steps < 0 else f"after step {self.steps}"
        return f"{place}{', while it saves' if self.saving else ''}, {self.seconds:.2f} s later"

    def wait(self, folder: Path, running: Callable[[], bool]) -> bool:
        """Wait for it; return whether the run is still going on."""
        checkpoints = folder / "checkpoints"
        if self.steps >= 0:
            _until(lambda: _steps_done(folder) >= self.steps, running)
        if self.saving:
            _until(lambda: any(checkpoints.glob("*.tmp")), running)
        time.sleep(self.seconds)
        return running()


def _steps_done(folder: Path) -> int:
    """Return how many steps have their metrics; -1 while the run starts."""
    if not (folder / "config.toml").exists():
        return -1
    with suppress(OSError):
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def _until(there: Callable[[], bool], running: Callable[[], bool]) -> None:
    while running() and not there():
        time.sleep(_POLL_S)


@dataclass
class Run:
    """A run that is going on."""

    process: subprocess.Popen[bytes]
    folder: Path
    rng: random.Random
    told: list[str] = field(default_factory=list)  # what was done to it

    def running(self) -> bool:
        """Return whether it has not ended."""
        return self.process.poll() is None


@dataclass
class Fault(ABC):
    """What hits a run.

    Attributes:
        lives: Whether the run shall go on by itself.
    """

    lives: bool = False

    def before(self, folder: Path, rng: random.Random) -> Mapping[str, str]:
        """Make ready before the run is started; return more environment for it.

        Args:
            folder: The run's, which is not there yet; its parent is, and is empty.
            rng: Where it is drawn from.
        """
        return {}

    @abstractmethod
    def strike(self, run: Run) -> None:
        """Hit the run."""

    def after(self, folder: Path, rng: random.Random) -> str:
        """Do what is to be done when the run has ended, before it is resumed; return what."""
        return ""

    def tidy(self, folder: Path) -> None:  # noqa: B027 (most make nothing)
        """Remove what was made."""


@dataclass
class Signal(Fault):
    """The trainer is sent a signal."""

    number: signal.Signals = signal.SIGKILL

    def strike(self, run: Run) -> None:
        """Hit the run."""
        run.process.send_signal(self.number)


@dataclass
class KillBelow(Fault):
    """One of the processes below the trainer is killed; it is waited for if it is not there."""

    lives: bool = True
    mark: str = ""  # in its command line

    def strike(self, run: Run) -> None:
        """Hit the run."""
        deadline = time.monotonic() + _PATIENCE_S
        while run.running() and time.monotonic() < deadline:
            below = descendants(run.process.pid)
            victims = [pid for pid in below if self._is_one(command(pid))]
            if victims:
                with suppress(ProcessLookupError):
                    os.kill(run.rng.choice(victims), signal.SIGKILL)
                    return
            time.sleep(_POLL_S)
        run.told.append("there was nothing to kill")

    def _is_one(self, line: str) -> bool:
        return self.mark in line and "serve_guard" not in line


@dataclass
class FullDisk(Fault):
    """The disk that the run is on fills up; there is room again before it is resumed.

    Who may mount has a file system of its own in memory as the disk. Otherwise no file of the
    trainer may become longer than some bytes, which looks the same to it but for the error's name.
    """

    size_mb: int = 48

    @property
    def by(self) -> str:
        """How the disk is made full."""
        return "a file system of its own" if self.mounts else "RLIMIT_FSIZE"

    @cached_property
    def mounts(self) -> bool:
        """Whether a file system can be mounted here, which containers often refuse to root."""
        if os.geteuid() != 0 or shutil.which("mount") is None:
            return False
        with tempfile.TemporaryDirectory() as folder:
            if subprocess.run(self._mount(folder), capture_output=True, check=False).returncode:
                return False
            subprocess.run(["umount", folder], check=True)
        return True

    def _mount(self, folder: str) -> list[str]:
        return ["mount", "-t", "tmpfs", "-o", f"size={self.size_mb}m", "agentgym-chaos", folder]

    def before(self, folder: Path, rng: random.Random) -> Mapping[str, str]:
        """Make ready."""
        if self.mounts:
            subprocess.run(self._mount(str(folder.parent)), check=True)
        return {}

    def strike(self, run: Run) -> None:
        """Hit the run."""
        left = int(2 ** run.rng.uniform(0, 18))
        run.told.append(f"{left} bytes left")
        if not self.mounts:
            with suppress(ProcessLookupError):
                limits = (left, resource.RLIM_INFINITY)
                resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, limits)
            return
        free = shutil.disk_usage(run.folder.parent).free
        with suppress(OSError), (run.folder.parent / "ballast").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(free - left, 1))

    def after(self, folder: Path, rng: random.Random) -> str:
        """Do what remains to be done."""
        (folder.parent / "ballast").unlink(missing_ok=True)
        return "room was made"

    def tidy(self, folder: Path) -> None:
        """Give the file system back."""
        if self.mounts:
            subprocess.run(["umount", str(folder.parent)], check=True)


@dataclass
class Damage(Signal):
    """The trainer is killed, and then a file of its last checkpoint is damaged."""

    def after(self, folder: Path, rng: random.Random) -> str:
        """Do what remains to be done."""
        pointer = folder / "checkpoints" / "latest"
        last = pointer.parent / pointer.read_text().strip()
        victim = rng.choice(sorted(path for path in last.rglob("*") if path.is_file()))
        content = bytearray(victim.read_bytes())
        how = rng.choice(("bit", "cut", "lost", "longer"))
        if how == "lost":
            victim.unlink()
        else:
            place = rng.randrange(len(content))
            if how == "bit":
                content[place] ^= 1 << rng.randrange(8)
            victim.write_bytes(
                {"cut": content[:place], "longer": content + b"\0"}.get(how, content)
            )
        return f"{victim.relative_to(last.parent)}: {how}"


@dataclass
class Truncate(Signal):
    """The trainer is killed, and then the file of its metrics is cut off somewhere."""

    def after(self, folder: Path, rng: random.Random) -> str:
        """Do what remains to be done."""
        path = folder / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if not size:
            return "there were no metrics yet"
        left = rng.randrange(size)
        os.truncate(path, left)
        return f"{left} of {size} bytes left"


@dataclass
class Clock(Fault):
    """The wall clock of all processes of the run jumps."""

    lives: bool = True

    def before(self, folder: Path, rng: random.Random) -> Mapping[str, str]:
        """Make ready."""
        self._file = folder.parent / "jump"
        self._jump = rng.choice((-30 * 86400, -3600, 3600, 10 * 365 * 86400))
        site = str(Path(__file__).with_name("chaos_site"))
        paths = os.pathsep.join([site, *filter(None, [os.environ.get("PYTHONPATH")])])
        return {"PYTHONPATH": paths, "CHAOS_CLOCK": f"{self._file}:{self._jump}"}

    def strike(self, run: Run) -> None:
        """Hit the run."""
        self._file.touch()
        run.told.append(f"by {self._jump} s")
