"""What ScienceWorld costs here and in the simulator's own package: one run, one Markdown table.

Run with ``python benchmarks/scienceworld_cost.py``; it takes a few minutes.

Both play the same actions in the same variations (``easy``), drawn at random from the templates
and objects in sight. A step here includes the observation, the score, the templates and the
objects, which is what an agent is told; a step of the package includes what its ``step`` always
does. Times are of the processor, Python's and Java's together, so that a busy machine does not
change them; every walk is walked three times before it is measured, for Java compiles as it goes.
Memory is what the Java process has in memory, the difference for each further environment.
"""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentgym.envs.scienceworld import ScienceWorldEnv
from agentgym.envs.scienceworld_simulators import POOL
from agentgym.envs.scienceworld_tasks import parse_id

TASKS = ("boil/0", "find-animal/3", "grow-plant/5", "use-thermometer/7", "chemistry-mix/2")
STEPS = 40  # a task
WARM_UP = 3  # walks of each task before the one that is measured
ENVIRONMENTS = 4  # in one Java process, for their memory

Walk = tuple[str, tuple[str, ...]]
"""A task and the actions taken in it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What playing cost, on the mean."""

    reset_ms: float  # of the processor
    step_ms: float  # of the processor
    step_wall_ms: float
    memory_mb: float  # of the Java process, with one environment


def processor_s(java: int) -> float:
    """Return the seconds of the processor that this process and a Java process have taken."""
    fields = Path(f"/proc/{java}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])  # in the program, in the kernel
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Return the megabytes (10^6 bytes) of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def walks(tasks: Sequence[str] = TASKS, steps: int = STEPS) -> list[Walk]:
    """Return random actions for each task, none of which ends an episode."""
    env = ScienceWorldEnv("scienceworld/train", max_turns=10 * steps)
    return [(task, tuple(_random_actions(env, task, steps))) for task in tasks]


def _random_actions(env: ScienceWorldEnv, task: str, steps: int) -> Iterator[str]:
    rng = random.Random(task)
    _, info = env.reset(seed=0, options={"task": task})
    for _ in range(steps):
        templates = [one for one in info["templates"] if not one.startswith("focus")]
        words = rng.choice(templates).split(" ")
        action = " ".join(rng.choice(info["objects"]) if w == "OBJ" else w for w in words)
        *_, info = env.step(action)
        if not info["objects"]:  # it has asked which was meant
            *_, info = env.step("0")
            yield action
            action = "0"
        yield action


def measure(
    reset: Callable[[str], object],
    step: Callable[[str], object],
    java: int,
    played: Sequence[Walk],
) -> Cost:
    """Walk every walk several times and measure the last.

    Args:
        reset: Starts a task.
        step: Takes an action.
        java: The process id of the simulator.
        played: The walks.
    """
    resetting = stepping = wall = 0.0
    for measured in (False,) * WARM_UP + (True,):
        for task, actions in played:
            began = processor_s(java)
            reset(task)
            began_steps, began_wall = processor_s(java), time.perf_counter()
            for action in actions:
                step(action)
            if measured:
                resetting += began_steps - began
                stepping += processor_s(java) - began_steps
                wall += time.perf_counter() - began_wall
    taken = sum(len(actions) for _, actions in played)
    return Cost(
        reset_ms=1e3 * resetting / len(played),
        step_ms=1e3 * stepping / taken,
        step_wall_ms=1e3 * wall / taken,
        memory_mb=resident_mb(java),
    )


def measure_ours(played: Sequence[Walk], actions: str = "templates") -> Cost:
    """Measure this package's environment, in a Java process of its own."""
    POOL.close()
    env = ScienceWorldEnv("scienceworld/train", max_turns=10**6, actions=actions)

    def reset(task: str) -> None:
        env.reset(seed=0, options={"task": task})

    reset(played[0][0])
    (pid,) = POOL.pids()
    cost = measure(reset, env.step, pid, played)
    env.close()
    return cost


@contextmanager
def package_env() -> Iterator[Any]:
    """Lend the environment of the simulator's own package."""
    from scienceworld import ScienceWorldEnv as Package

    package = Package(envStepLimit=10**6)
    try:
        yield package
    finally:
        package.close()


def measure_package(played: Sequence[Walk]) -> Cost:
    """Measure the simulator's own package, as it comes."""
    with package_env() as package:

        def reset(task: str) -> None:
            package.load(*parse_id(task), "easy")
            package.reset()

        return measure(reset, package.step, package._gateway.java_process.pid, played)


def memory_of_further(count: int = ENVIRONMENTS, played: Sequence[Walk] = ()) -> float:
    """Return the megabytes that each further environment of a process adds."""
    POOL.close()
    envs = [ScienceWorldEnv("scienceworld/train", max_turns=10**6) for _ in range(count)]
    sizes = []
    for env in envs:
        for task, actions in played:
            env.reset(seed=0, options={"task": task})
            for action in actions:
                env.step(action)
        (pid,) = POOL.pids()
        sizes.append(resident_mb(pid))
    for env in envs:
        env.close()
    return (sizes[-1] - sizes[0]) / (count - 1)


def report(ours: Cost, silent: Cost, package: Cost, further: float) -> str:
    """Return the measurement as Markdown."""
    return "\n".join(
        [
            "# What ScienceWorld costs",
            "",
            f"Measured {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/scienceworld_cost.py` on"
            f" a machine with {os.cpu_count()} cores, Python {platform.python_version()}:"
            f" {len(TASKS)} tasks, at least {STEPS} random actions in each; times are of the"
            " processor, Python's and Java's together.",
            "",
            "| | here | own package | ratio | goal |",
            "|---|---:|---:|---:|---:|",
            f"| step, ms | {ours.step_ms:.1f} | {package.step_ms:.1f}"
            f" | {package.step_ms / ours.step_ms:.1f}x | ≥ 3x |",
            f"| step that tells nothing of actions, ms | {silent.step_ms:.1f}"
            f" | {package.step_ms:.1f} | {package.step_ms / silent.step_ms:.1f}x | |",
            f"| step, ms that passed | {ours.step_wall_ms:.1f} | {package.step_wall_ms:.1f}"
            f" | {package.step_wall_ms / ours.step_wall_ms:.1f}x | |",
            f"| reset to a task, ms | {ours.reset_ms:.0f} | {package.reset_ms:.0f}"
            f" | {package.reset_ms / ours.reset_ms:.1f}x | |",
            f"| Java process with one environment, MB | {ours.memory_mb:.0f}"
            f" | {package.memory_mb:.0f} | {package.memory_mb / ours.memory_mb:.1f}x | |",
            f"| each further environment, MB | {further:.0f} | a process | | ≤ 60 |",
        ]
    )


def main() -> None:
    """Measure and print."""
    played = walks()
    ours, silent = measure_ours(played), measure_ours(played, actions="none")
    package = measure_package(played)
    print(report(ours, silent, package, memory_of_further(played=played)))


if __name__ == "__main__":
    main()
