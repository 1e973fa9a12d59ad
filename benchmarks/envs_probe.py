"""One measurement of the environment benchmarks, in a process of its own.

Reads a job in JSON from standard input and writes what it measured to standard output. Times are
of the processor, of this process and all below it (workers, Java), unless they are called wall.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from processes import cpu_seconds, descendants, share_mb

Job = dict[str, Any]


def spent(below: Sequence[int]) -> float:
    """Return the processor seconds of this process and of some below it."""
    return time.process_time() + sum(map(cpu_seconds, below))


def all_below() -> list[int]:
    """Return the processes below this one; to look for them costs more than a step."""
    return descendants(os.getpid())


def held_mb() -> float:
    """Return the memory of this process and of those below it; what they share counts once."""
    return sum(map(share_mb, [os.getpid(), *all_below()]))


def one(job: Job) -> Job:
    """Start an environment and play a script in it."""
    from envs_players import PLAYERS

    from agentgym.types import EnvSpec

    player = PLAYERS[job["player"]](EnvSpec(job["name"], job["options"]))
    (first, actions), *others = job["episodes"]
    player.reset(first)
    below = all_below()
    started = spent(below)  # since the process began: Python itself, imports, the environment
    resetting = stepping = wall = 0.0
    steps = 0
    _ = [player.step(action) for action in actions]
    for task, actions in job["rehearsals"] * others:
        player.reset(task)
        _ = [player.step(action) for action in actions]
    for task, actions in others:
        marks = [spent(below)]
        player.reset(task)
        marks.append(spent(below))
        begun = time.perf_counter()
        _ = [player.step(action) for action in actions]
        wall += time.perf_counter() - begun
        marks.append(spent(below))
        resetting += marks[1] - marks[0]
        stepping += marks[2] - marks[1]
        steps += len(actions)
    memory = held_mb()
    player.close()
    return {
        "start_s": started,
        "reset_ms": 1e3 * resetting / max(1, len(others)),
        "step_ms": 1e3 * stepping / steps,
        "step_wall_ms": 1e3 * wall / steps,
        "steps": steps,
        "memory_mb": memory,
    }


def pool(job: Job) -> Job:
    """Play a script in a pool of workers, in so and so many environments at once."""
    from agentgym.types import EnvSpec
    from agentgym.workers import WorkerPool

    async def lane(pool: WorkerPool, episodes: Sequence[tuple[str, list[str]]]) -> int:
        steps = 0
        async with pool.worker() as worker:
            for task, actions in episodes:
                await worker.reset(task, 0)
                for action in actions:
                    await worker.step(action)
                steps += len(actions)
        return steps

    async def run() -> Job:
        episodes = job["episodes"]
        spec = EnvSpec(job["name"], job["options"])
        async with WorkerPool(spec, job["workers"]) as workers:
            lanes = min(job["at_once"], workers.capacity or job["at_once"])
            warm = [[episodes[n % len(episodes)]] for n in range(lanes)]
            await asyncio.gather(*(lane(workers, one) for one in warm))
            memory = held_mb()
            shares = [episodes[n % len(episodes) :: lanes] for n in range(lanes)]
            for _ in range(job["rehearsals"]):
                await asyncio.gather(*(lane(workers, one) for one in shares))
            below = all_below()
            own, all_of_it, wall = time.process_time(), spent(below), time.perf_counter()
            steps = sum(await asyncio.gather(*(lane(workers, one) for one in shares)))
            wall = time.perf_counter() - wall
            own, all_of_it = time.process_time() - own, spent(below) - all_of_it
        return {
            "environments": lanes,
            "own_ms": 1e3 * own / steps,
            "cpu_ms": 1e3 * all_of_it / steps,
            "steps_a_second": steps / wall,
            "memory_mb": memory,
            "steps": steps,
        }

    return asyncio.run(run())


def search(job: Job) -> Job:
    """Build a search engine over texts and ask it."""
    from envs_engines import ENGINES

    begun = time.process_time()  # Lucene's Java machine is inside this process
    engine = ENGINES[job["engine"]]([tuple(one) for one in job["texts"]])
    built, queries, k = time.process_time() - begun, job["queries"], job["k"]
    half = len(queries) // 2
    _ = [engine(query, k) for query in queries[:half]]  # warms up, for Java compiles as it goes
    begun, wall = time.process_time(), time.perf_counter()
    found = [list(engine(query, k)) for query in queries[half:]]
    return {
        "build_s": built,
        "query_ms": 1e3 * (time.process_time() - begun) / len(found),
        "query_wall_ms": 1e3 * (time.perf_counter() - wall) / len(found),
        "found": found,
    }


def main() -> None:
    """Do the job."""
    job = json.load(sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    json.dump({"one": one, "pool": pool, "search": search}[job["kind"]](job), answers)


if __name__ == "__main__":
    main()
