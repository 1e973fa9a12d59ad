"""Evaluations that are killed (SIGKILL) at random moments must end as unbroken ones.

    python benchmarks/killed.py              # 10 kills each; exit code 1 if a result differs
    python benchmarks/killed.py --kills 3

Each evaluation is started again and again into one folder and killed at a moment that is drawn from
the time that it takes unbroken: while it starts, plays, or writes an episode or the results.
When the kills are used up it is let end. Then ``results.json`` and ``trajectories.jsonl.gz`` must
be those of the unbroken one, byte for byte, and what was kept may never become less.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

EVALUATIONS = {
    "corridor, chance, 20 samples": [
        "--suite", "corridor/test", "--policy", "random", "--samples", "20",
    ],
    "ALFWorld, chance": ["--suite", "alfworld/gen-unseen", "--policy", "random"],
    "ALFWorld, expert, 2 processes": [
        "--suite", "alfworld/gen-unseen", "--policy", "expert", "--workers", "2",
    ],
    "ALFWorld, alfworld-tiny, 48 tasks in batches of 8": [
        "--suite", "alfworld/gen-unseen", "--model", "alfworld-tiny", "-n", "48", "--at-once", "8",
        "--max-turns", "12",
    ],
}  # fmt: skip
FILES = ("results.json", "trajectories.jsonl.gz")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one evaluation went."""

    seconds: float  # that it takes unbroken
    killed: int  # times that it was alive to be killed
    kept: tuple[int, ...]  # finished episodes after each kill
    same: bool


def main() -> None:
    """Kill and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    failed = False
    for name, words in EVALUATIONS.items():
        draw = random.Random(f"{asked.seed}:{name}")
        with tempfile.TemporaryDirectory() as folder:
            outcome = compare(words, Path(folder), asked.kills, draw)
        failed |= not outcome.same
        print(
            f"{name}: {outcome.seconds:.1f} s unbroken, killed {outcome.killed} times with"
            f" {', '.join(map(str, outcome.kept))} episodes kept:"
            f" {'the same' if outcome.same else 'NOT THE SAME'}",
            flush=True,
        )
    sys.exit(failed)


def compare(words: list[str], folder: Path, kills: int, draw: random.Random) -> Outcome:
    """Run an evaluation unbroken, and another one with kills."""
    began = time.monotonic()
    unbroken = start(words, folder / "unbroken")
    while unbroken.poll() is None and not finished(folder / "unbroken"):
        time.sleep(0.01)
    first = time.monotonic() - began  # until the first episode is kept
    unbroken.wait()
    seconds = time.monotonic() - began
    kept: list[int] = []
    while len(kept) < kills:
        running = start(words, folder / "killed")
        try:
            # Some kills fall into the start; the others leave something for those after them.
            played = draw.uniform(-0.4, 1.6) * (seconds - first) / (kills + 1)
            running.wait(max(first + played, 0.1))
            break
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            kept.append(finished(folder / "killed"))
    start(words, folder / "killed").wait()
    pairs = [(folder / "unbroken" / file, folder / "killed" / file) for file in FILES]
    same = all(a.read_bytes() == b.read_bytes() for a, b in pairs) and kept == sorted(kept)
    return Outcome(seconds, len(kept), tuple(kept), same)


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start an evaluation into a folder."""
    command = [sys.executable, "-m", "agentgym", "eval", *words, "-o", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def finished(folder: Path) -> int:
    """Return how many episodes are kept."""
    path = folder / "episodes.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    main()
