"""Evaluations that are killed (SIGKILL) at random moments must end as unbroken ones.

    python benchmarks/killed.py              # 10 kills each; exit code 1 if a result differs
    python benchmarks/killed.py --kills 3
    python benchmarks/killed.py --write      # into killed.md, too

Each evaluation is started again and again into one folder and killed at a moment that is drawn from
the time that what is left takes unbroken: while it starts, plays, or writes an episode or the
results. When the kills are used up it is let end. Then ``results.json`` and
``trajectories.jsonl.gz`` must be those of the unbroken one, byte for byte, and what was kept may
never become less. One that ends before its kills are used up is begun anew in another folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

EVALUATIONS = {
    "corridor, chance, 200 samples": [
        "--suite", "corridor/test", "--policy", "random", "--samples", "200",
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


RECORD = Path(__file__).with_suffix(".md")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one evaluation went."""

    name: str
    episodes: int
    seconds: float  # that it takes unbroken
    kept: tuple[tuple[int, ...], ...]  # of each that ended: finished episodes after each kill
    same: bool

    @property
    def verdict(self) -> str:
        """Whether the results were the same, and nothing that was kept was lost."""
        return "the same" if self.same else "NOT THE SAME"


def main() -> None:
    """Kill and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write {RECORD.name}")
    asked = parser.parse_args()
    outcomes = []
    for name, words in EVALUATIONS.items():
        draw = random.Random(f"{asked.seed}:{name}")
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(compare(name, words, Path(folder), asked.kills, draw))
        print(row(outcomes[-1]), flush=True)
    if asked.write:
        RECORD.write_text(record(outcomes, asked.kills), encoding="utf-8")
    sys.exit(not all(outcome.same for outcome in outcomes))


def compare(name: str, words: list[str], folder: Path, kills: int, draw: random.Random) -> Outcome:
    """Run an evaluation unbroken, and others with as many kills in all."""
    began = time.monotonic()
    unbroken = start(words, folder / "unbroken")
    while unbroken.poll() is None and not finished(folder / "unbroken"):
        time.sleep(0.01)
    first = time.monotonic() - began  # until the first episode is kept
    unbroken.wait()
    seconds = time.monotonic() - began
    whole = finished(folder / "unbroken")
    kept: list[tuple[int, ...]] = []
    same = True
    while (left := kills - sum(map(len, kept))) > 0:
        killed = folder / f"killed-{len(kept)}"
        kept.append(kill(words, killed, left, (first, seconds - first, whole), draw))
        pairs = [(folder / "unbroken" / file, killed / file) for file in FILES]
        alike = all(a.read_bytes() == b.read_bytes() for a, b in pairs)
        same = same and alike and list(kept[-1]) == sorted(kept[-1])
    return Outcome(name, whole, seconds, tuple(kept), same)


def kill(
    words: list[str],
    folder: Path,
    kills: int,
    unbroken: tuple[float, float, int],
    draw: random.Random,
) -> tuple[int, ...]:
    """Kill an evaluation so often, unless it ends; then let it end. Return what it had kept.

    Args:
        words: Its command line.
        folder: Its results.
        kills: How often.
        unbroken: Seconds until its first episode is kept, seconds from there on, and episodes.
        draw: Of the moments.
    """
    first, playing, whole = unbroken
    kept: list[int] = []
    while len(kept) < kills:
        running = start(words, folder)
        left = playing * (1 - finished(folder) / whole)
        try:
            # Some kills fall into the start; the others leave something for those after them.
            running.wait(max(first + draw.uniform(-0.4, 1.6) * left / (kills - len(kept) + 1), 0.1))
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            kept.append(finished(folder))
        else:
            return tuple(kept)
    start(words, folder).wait()
    return tuple(kept)


def row(outcome: Outcome) -> str:
    """Return an outcome as a row of a table."""
    kept = "; anew: ".join(", ".join(map(str, each)) or "ended first" for each in outcome.kept)
    kills = sum(map(len, outcome.kept))
    return (
        f"| {outcome.name} | {outcome.episodes:,} | {outcome.seconds:.1f} | {kills} | {kept} |"
        f" {outcome.verdict} |"
    )


def record(outcomes: list[Outcome], kills: int) -> str:
    """Return the page."""
    on = f"{datetime.date.today().isoformat()}, Python {platform.python_version()}"
    rows = "\n".join(map(row, outcomes))
    return f"""# Evaluations that are killed at random moments

`python benchmarks/killed.py --kills {kills}`, {on}: each is killed (SIGKILL) {kills}
times, at moments drawn over its start and its play, and goes on by the same command. "The same" are
`results.json` and `trajectories.jsonl.gz`, byte for byte those of one that nobody killed. One that
ended before all kills were used up was begun anew.

| evaluation | episodes | seconds, unbroken | kills | episodes kept after each | results |
|---|---:|---:|---:|---|---|
{rows}
"""


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start an evaluation into a folder."""
    command = [sys.executable, "-m", "agentgym", "eval", *words, "-o", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def finished(folder: Path) -> int:
    """Return how many episodes are kept: one by one while it goes on, at last in the results."""
    with suppress(FileNotFoundError):
        return (folder / "episodes.jsonl").read_bytes().count(b"\n")
    with suppress(FileNotFoundError):
        return len(json.loads((folder / "results.json").read_text(encoding="utf-8"))["episodes"])
    return 0


if __name__ == "__main__":
    main()
