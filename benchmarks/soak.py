"""A soak: many episodes of all environments while their processes are killed at random.

    python benchmarks/soak.py                    # 20,000 episodes
    python benchmarks/soak.py --episodes 2000    # fewer, in the same proportions
    python benchmarks/soak.py --write            # and write soak.md beside this file

Every environment plays through a pool of two workers. All along, workers and the Java processes
below them are killed (SIGKILL) at random moments. One worker of each pool is spared, with its
Java, as only a process that lives can show that it grows. Afterwards it is asked

- whether every episode came back with a ``Stop``, and with a reason where that is an error;
- whether what was healed is what would have been: a sample of the episodes is played again in
  this process, where nothing is killed, and must be the same word for word;
- whether memory, open files, threads or Java processes have become more, and whether a process
  outlives the pools.

A line of JSON is written after each round (``--record``, by default below ``runs``). A soak that
was interrupted goes on after its last round when the same command is given again; delete the
record to begin anew. The exit code is 1 if anything failed. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from soak_processes import Killer, left_over, look, mark, workers
from soak_report import report
from soak_rounds import Part, play_round, warm_up

from agentgym.envs.scienceworld_simulators import POOL
from agentgym.types import EnvSpec
from agentgym.workers import WorkerPool

WORKERS = 2  # in each pool
PATIENCE_S = 600.0  # a machine with much to do is no fault of an environment


def _part(suite: str, share: float, expert: float, replayed: float, at_once: int) -> Part:
    options: dict[str, object] = {"suite": suite}
    if suite.startswith("scienceworld/"):
        options["max_turns"] = 30
    spec = EnvSpec(suite.partition("/")[0], options)
    return Part(spec, share, expert, replayed, at_once)


PARTS = (
    _part("corridor/train", share=0.245, expert=0.5, replayed=0.05, at_once=8),
    _part("alfworld/gen-train", share=0.245, expert=0.5, replayed=0.05, at_once=8),
    _part("webshop/gen-train", share=0.245, expert=0.5, replayed=0.05, at_once=8),
    _part("search/gen-train", share=0.245, expert=0.5, replayed=0.05, at_once=8),
    _part("scienceworld/short-train", share=0.02, expert=0.1, replayed=0.1, at_once=4),
)


@dataclass(frozen=True)
class Options:
    """What is run; the first line of the record."""

    episodes: int
    rounds: int
    kill_every_s: float


class Record:
    """The lines of a soak: its options, its rounds, and its end."""

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.rounds: list[dict[str, Any]] = []
            self._write({"options": asdict(options)})
            return
        head, *rest = [json.loads(line) for line in path.read_text().splitlines()]
        if head["options"] != asdict(options):
            sys.exit(f"{path} is of a soak with {head['options']}; name another file: --record")
        self.rounds = [one for one in rest if "number" in one]

    def add(self, line: dict[str, Any]) -> None:
        """Keep what happened in a round."""
        self.rounds.append(line)
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


async def soak(options: Options, record: Record) -> None:
    """Play what is left to be played."""
    async with AsyncExitStack() as pools:
        calm, under_fire, spared = {}, {}, {}
        for part in PARTS:
            before = set(workers())
            pool = await pools.enter_async_context(
                WorkerPool(part.spec, WORKERS, PATIENCE_S, PATIENCE_S)
            )
            await warm_up(pool, WORKERS)
            spared[part.name] = min(set(workers()) - before)
            under_fire[part.name] = pool
            calm[part.name] = await pools.enter_async_context(WorkerPool(part.spec))
        with Killer(set(spared.values()), options.kill_every_s, random.Random("kill")) as killer:
            for number in range(len(record.rounds), options.rounds):
                begun = time.monotonic()
                size = options.episodes // options.rounds
                result = await play_round(PARTS, under_fire, calm, number, size)
                line = result.line() | {
                    "seconds": round(time.monotonic() - begun, 1),
                    "killed": dict(killer.killed),
                    "health": asdict(look(spared)),
                }
                killer.killed.clear()
                record.add(line)
                told = f"{sum(result.played.values())} episodes, killed {line['killed']}"
                print(f"round {number + 1} of {options.rounds}: {told}", file=sys.stderr)


def main() -> None:
    """Soak, report, and fail if anything did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kill-every", type=float, default=3.0, help="seconds, on average")
    parser.add_argument("--record", type=Path, default=Path("runs/soak.jsonl"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    options = Options(given.episodes, given.rounds, given.kill_every)
    record = Record(given.record, options)
    mark()
    asyncio.run(soak(options, record))
    POOL.close()
    text, failures = report(asdict(options), record.rounds, left_over())
    print(text)
    if given.write:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
