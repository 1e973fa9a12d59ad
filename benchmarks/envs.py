"""How fast ALFWorld's native engine is beside TextWorld: one run, one Markdown table.

Run with ``make benchmark-envs``, or ``python benchmarks/envs.py > benchmarks/envs.md`` where
``agentgym[alfworld]`` is installed. Without TextWorld only the native engine is measured, and the
table says so.

Both engines play the same whole-room games (the first of every task type in each room set) with
the same commands, in one process and thread. Times are of the processor, so that a busy machine
does not change what a core can do. A step includes reading the admissible commands and whether
the game is won. Loading a game includes its first reset; what all games of a release share, the
domain and most of the grammar, the native engine reads once a process, before the clock starts.
"""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import fmean

from agentgym.envs.alfworld_engine import Engine, GameEngine
from agentgym.envs.alfworld_files import GameFiles
from agentgym.envs.alfworld_generate import generate, task_ids
from agentgym.envs.alfworld_textworld import TextWorldEngine
from agentgym.errors import UsageError

GAMES = 12  # of each set: two of every task type
NATIVE_STEPS = 500  # a game
TEXTWORLD_STEPS = 20  # a game; the first of the native walk


@dataclass
class Timing:
    """Processor seconds of each load, and of all steps."""

    loads: list[float] = field(default_factory=list)
    stepping: float = 0.0
    steps: int = 0

    @property
    def load(self) -> float:
        """Seconds to load and reset a game, the mean."""
        return fmean(self.loads)

    @property
    def rate(self) -> float:
        """Steps a second on one core."""
        return self.steps / self.stepping


def games() -> list[GameFiles]:
    """Return generated games of all types, rooms uncut."""
    return [
        generate(name, one) for name in ("gen-seen", "gen-unseen") for one in task_ids(name)[:GAMES]
    ]


def walk(files: GameFiles) -> list[str]:
    """Return random admissible commands; what wins is undone by walking on."""
    engine, rng = Engine(files), random.Random(files.name)
    commands = []
    for _ in range(NATIVE_STEPS):
        commands.append(rng.choice(engine.admissible))
        engine.step(commands[-1])
    return commands


def measure(
    build: Callable[[GameFiles], GameEngine], played: list[tuple[GameFiles, list[str]]], steps: int
) -> Timing:
    """Load every game and give it the first ``steps`` of its commands."""
    timing = Timing()
    for files, commands in played:
        started = time.process_time()
        engine = build(files)
        engine.reset()
        timing.loads.append(time.process_time() - started)
        started = time.process_time()
        for command in commands[:steps]:
            text = engine.step(command)
            seen = (text, engine.admissible, engine.won)  # what a player needs of every step
        timing.stepping += time.process_time() - started
        timing.steps += len(commands[:steps])
        assert seen[0]
        engine.close()
    return timing


def report(native: Timing, textworld: Timing | None, missing: str) -> str:
    """Return the measurement as Markdown."""
    lines = [
        "# Speed of the ALFWorld engines",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/envs.py` on one core of a"
        f" machine with {os.cpu_count()}, Python {platform.python_version()}: {len(native.loads)}"
        " generated games of all six task types in whole rooms, random admissible commands,"
        " processor time. A step includes the admissible commands.",
        "",
        "| | native | TextWorld | ratio | goal |",
        "|---|---:|---:|---:|---:|",
    ]
    if textworld is None:
        return "\n".join(
            [
                *lines,
                f"| load and reset, ms | {native.load * 1e3:.1f} | not measured | | |",
                f"| steps per second and core | {native.rate:,.0f} | not measured | | ≥ 1,000 |",
                "",
                f"**TextWorld was not measured**: {missing}",
            ]
        )
    return "\n".join(
        [
            *lines,
            f"| load and reset, ms | {native.load * 1e3:.1f} | {textworld.load * 1e3:,.0f}"
            f" | {textworld.load / native.load:,.0f}x | ≥ 100x |",
            f"| steps per second and core | {native.rate:,.0f} | {textworld.rate:.1f}"
            f" | {native.rate / textworld.rate:,.0f}x | ≥ 50x, native ≥ 1,000 |",
            "",
            f"{native.steps:,} native steps, {textworld.steps:,} of TextWorld's.",
        ]
    )


def main() -> None:
    """Measure and print."""
    played = [(files, walk(files)) for files in games()]
    native = measure(Engine, played, NATIVE_STEPS)
    textworld, missing = None, ""
    try:
        textworld = measure(TextWorldEngine, played, TEXTWORLD_STEPS)
    except UsageError as error:
        missing = str(error)
    print(report(native, textworld, missing))


if __name__ == "__main__":
    main()
