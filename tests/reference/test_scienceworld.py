"""ScienceWorld judged by the simulator's own package and the papers' lists.

Run by ``make test-reference``; takes about a quarter of an hour. ``AGENTGYM_REFERENCE_DATA`` names
a folder with ``sciworld_L{0,1,2}_idx.json``, the published split lists: pairs of the index of a
task and a variation.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.envs.check import check_env
from agentgym.envs.scienceworld import ScienceWorldEnv
from agentgym.envs.scienceworld_simulators import POOL
from agentgym.envs.scienceworld_tasks import VARIATIONS, parse_id, split_of, task_ids

pytestmark = [
    pytest.mark.reference,
    # The package leaves sockets to its Java process open.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SPLITS = ("train", "dev", "test")
LONGEST = 400  # turns of a gold path
WALKED = ("boil/0", "find-plant/225", "lifespan-longest-lived/93", "use-thermometer/405")
STEPS = 25
COMPARED = 20  # of them at least, in each task: a walk may end by failing it
RESETS = 1000
MB = 2**20


@pytest.fixture(scope="module")
def package() -> Iterator[Any]:
    """The package's own environment, its Java told to order objects as ours does."""
    from scienceworld import ScienceWorldEnv as Package

    before = os.environ.get("JAVA_TOOL_OPTIONS")
    os.environ["JAVA_TOOL_OPTIONS"] = "-Xmx256m -XX:+UnlockExperimentalVMOptions -XX:hashCode=2"
    package = Package()
    if before is None:
        del os.environ["JAVA_TOOL_OPTIONS"]
    else:
        os.environ["JAVA_TOOL_OPTIONS"] = before
    yield package
    package.close()
    java = package._gateway.java_process
    java.wait(10)
    for pipe in (java.stdin, java.stdout):  # which the package leaves open
        pipe.close()


def test_tasks_variations_and_splits_are_the_simulators(package: Any) -> None:
    assert package.get_task_names() == list(VARIATIONS)
    for task, total in VARIATIONS.items():
        package.load(task, 0, "")
        assert package.get_max_variations(task) == total
        own = (
            package.get_variations_train(),
            package.get_variations_dev(),
            package.get_variations_test(),
        )
        assert own == tuple(list(split_of(task, split)) for split in SPLITS)


@pytest.mark.parametrize("level", ["L0", "L1", "L2"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_papers_sets_are_theirs(level: str, part: str) -> None:
    named = os.environ.get("AGENTGYM_REFERENCE_DATA")
    if not named:
        pytest.fail("AGENTGYM_REFERENCE_DATA is not set; it names the folder of reference data")
    listed = json.loads((Path(named) / f"sciworld_{level}_idx.json").read_text())[part]
    tasks = list(VARIATIONS)
    assert {f"{tasks[task]}/{variation}" for task, variation in listed} == set(
        task_ids(f"{level}-{part}")
    )
    assert len(listed) == len(task_ids(f"{level}-{part}"))


@pytest.mark.parametrize("task_id", WALKED)
def test_a_random_walk_says_and_scores_what_the_package_says(package: Any, task_id: str) -> None:
    env = ScienceWorldEnv("scienceworld/train" if task_id == "boil/0" else "scienceworld/test")
    observation, info = env.reset(seed=0, options={"task": task_id})
    task, variation = parse_id(task_id)
    package.load(task, variation, "easy")
    said, told = package.reset()
    assert observation == said
    assert info["goal"] in told["taskDesc"]
    rng = random.Random(task_id)
    steps = 0
    while steps < STEPS:
        action = a_valid_action(package, said, rng)
        observation, reward, terminated, _, info = env.step(action)
        said, change, done, told = package.step(action)
        assert (observation, round(100 * reward), terminated) == (said, change, done), action
        assert round(100 * info["score"]) == max(0, told["score"])
        steps += 1
        if done:
            break
    env.close()
    assert steps >= COMPARED


def a_valid_action(package: Any, said: str, rng: random.Random) -> str:
    """Return an action to take: it fails no task, and answers where the simulator has asked."""
    if said.startswith("Ambiguous"):  # ours withdraws a question, the package's is answered by all
        return "0"
    actions = package.get_valid_action_object_combinations()
    return rng.choice([one for one in actions if not one.startswith(("reset", "focus", "0"))])


def test_gold_paths_of_every_task_reach_the_whole_score() -> None:
    reached = {}
    for split in SPLITS:
        env = ScienceWorldEnv(f"scienceworld/{split}", max_turns=LONGEST)
        for task in VARIATIONS:
            task_id = f"{task}/{split_of(task, split)[0]}"
            reached[task_id] = play_gold(env, task_id)
        env.close()
    assert len(reached) == len(SPLITS) * len(VARIATIONS)
    assert {task_id: score for task_id, score in reached.items() if score < 1} == {}


def play_gold(env: ScienceWorldEnv, task_id: str) -> float:
    """Return the score that the expert reaches."""
    _, info = env.reset(seed=0, options={"task": task_id})
    while (action := env.expert()) is not None:
        *_, info = env.step(action)
    return float(info["score"])


def test_the_environment_keeps_the_contract() -> None:
    found = check_env(lambda: ScienceWorldEnv("scienceworld/short-train"))
    assert not [one for one in found if not one.passed]


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_many_resets_need_no_more_memory_files_and_processes_than_some() -> None:
    POOL.close()
    env = ScienceWorldEnv("scienceworld/short-train")
    held = []
    for number in range(RESETS + 1):
        env.reset(seed=0, options={"task": env.suite.tasks[number % 20]})
        env.step("teleport to kitchen")
        if number % (RESETS // 4) == 0:
            held.append((live_bytes(env), resident_bytes(), open_files(), children()))
    env.close()
    (live, resident, files, processes), last = held[1], held[-1]
    assert len(POOL.pids()) == 1
    assert last[0] - live < 8 * MB
    assert last[1] - resident < 32 * MB
    assert last[2:] == (files, processes)


def resident_bytes() -> int:
    """Return the memory of the one Java process; right after a collection, for the heap shrinks."""
    (pid,) = POOL.pids()
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """Return how many files, pipes and sockets the one Java process has open."""
    (pid,) = POOL.pids()
    return len(os.listdir(f"/proc/{pid}/fd"))


def children() -> int:
    """Return how many processes this one has started that are still there."""
    threads = Path("/proc/self/task").iterdir()
    return sum(len((thread / "children").read_text().split()) for thread in threads)


def live_bytes(env: ScienceWorldEnv) -> int:
    """Return the bytes of the Java heap that something still refers to."""
    assert env._simulator is not None
    gc.collect()  # what Python refers to, Java keeps
    java = env._simulator.jvm.gateway.jvm.java.lang
    java.System.gc()
    runtime = java.Runtime.getRuntime()
    return int(runtime.totalMemory() - runtime.freeMemory())
