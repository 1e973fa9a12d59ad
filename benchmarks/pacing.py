"""Episodes at their own pace against episodes in lock-step, with a server as slow as a real one.

Part of ``rollout.py``. Both play the same episodes in the same environments, by the same client and
the same server; a turn takes the same time in both. All episodes are equally long, which is the
best case of lock-step: it never waits for one that goes on when the others are over.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentgym.envs.registry import make_env
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.hf import load_tokenizer
from agentgym.policies.prompt import saved_prompt
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions
from agentgym.rollout import play_policy
from agentgym.types import EnvSpec, Key, Policy, Request, Sample, Trajectory
from agentgym.voices import SamplingOptions
from agentgym.workers import WorkerPool

EPISODES, SLOTS, TURNS = 512, 64, 16
MEDIAN = 0.5  # seconds that the server takes for a turn; the mean is 1.65 times that
ENV, SUITE, MODEL = "alfworld", "alfworld/gen-train", "alfworld-tiny"
ACTIONS = ("look", "inventory", "go to cabinet 1", "go to shelf 1", "open drawer 1")
SAMPLING = SamplingOptions(temperature=1.0, max_tokens=64, max_context=4096)


class LockStep:
    """A policy that answers when all unfinished episodes have asked, and all of them at once."""

    pacing = "rounds"

    def __init__(self, served: VLLMPolicy) -> None:
        self._served = served

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        """Wait for the slowest."""
        found = await asyncio.gather(*(self._served.sample([request]) for request in requests))
        return [sample for (sample,) in found]

    def drop(self, session: str) -> None:
        """Forget a session."""
        self._served.drop(session)


@dataclass(frozen=True)
class Arrangement:
    """How the episodes are played."""

    name: str
    lock_step: bool
    at_once: int
    episodes: int = EPISODES


OWN, *LOCK_STEP = ARRANGEMENTS = (
    Arrangement("own pace", False, EPISODES),
    Arrangement("lock-step", True, EPISODES),
    # One wave of 64 is as the next: one of the eight tells the rate, in an eighth of the minutes.
    Arrangement("lock-step", True, SLOTS, SLOTS),
)


@dataclass(frozen=True)
class Played:
    """What it took to play all episodes."""

    episodes: int
    wall: float
    processor: float  # of this process, which holds the client and the environments
    requests: int
    work: float  # seconds of all slots together

    @property
    def rate(self) -> float:
        """Episodes a second."""
        return self.episodes / self.wall

    @property
    def bound(self) -> float:
        """The share of what the server can do at most: all slots busy all the time."""
        return self.work / SLOTS / self.wall


def measure() -> str:
    """Play all arrangements and return the comparison as Markdown."""
    model = Path(resolve_model(MODEL))
    tokenizer, prompt = load_tokenizer(model), saved_prompt(model)
    assert prompt is not None
    script = Script(prompt, tokenizer)
    before = os.getloadavg()[0]
    spec = EnvSpec(ENV, {"suite": SUITE, "max_turns": TURNS})
    with closing(WorkerPool(spec)) as pool, _server(script) as url:
        options = ServerOptions(urls=(url,))
        with closing(VLLMPolicy(options, tokenizer, way=None)) as served:
            _warm_up(pool)
            found = {one: _play(one, pool, served, script, url) for one in ARRANGEMENTS}
    return _report(found, before)


@contextmanager
def _server(script: Script) -> Iterator[str]:
    answers = json.dumps([script.chat.said_ids(action) for action in ACTIONS])
    command = [sys.executable, str(Path(__file__).with_name("latency_server.py"))]
    command += ["--slots", str(SLOTS), "--median", str(MEDIAN), "--answers", answers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _warm_up(pool: WorkerPool) -> None:
    """Build the environments, so that no arrangement pays for them."""

    async def lend() -> None:
        async with asyncio.TaskGroup() as group:
            everyone = asyncio.Barrier(EPISODES)

            async def hold(key: Key) -> None:
                async with pool.worker() as worker:
                    await worker.reset(key.task, 0)
                    await everyone.wait()

            for key in _keys():
                group.create_task(hold(key))

    asyncio.run(lend())


def _keys() -> list[Key]:
    env = make_env(EnvSpec(ENV, {"suite": SUITE}))
    with closing(env):
        return [Key(task, 0) for task in env.suite.tasks[:EPISODES]]


def _play(
    how: Arrangement, pool: WorkerPool, served: VLLMPolicy, script: Script, url: str
) -> Played:
    policy: Any = LockStep(served) if how.lock_step else served
    before = _spent(url)
    wall, processor = time.perf_counter(), time.process_time()
    played = asyncio.run(_all(how, pool, policy, script))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    after = _spent(url)
    assert len(played) == how.episodes
    assert all(not one.won and len(one.turns) == TURNS and not one.faults for one in played)
    requests = int(after["requests"] - before["requests"])
    assert requests == how.episodes * TURNS
    return Played(how.episodes, wall, processor, requests, after["seconds"] - before["seconds"])


async def _all(
    how: Arrangement, pool: WorkerPool, policy: Policy, script: Script
) -> list[Trajectory]:
    keys = _keys()[: how.episodes]
    if not how.lock_step:
        return await play_policy(
            pool, keys, policy, script.begin, SAMPLING, "0", at_once=how.at_once
        )
    played = []
    for start in range(0, len(keys), how.at_once):
        part = keys[start : start + how.at_once]
        played += await play_policy(pool, part, policy, script.begin, SAMPLING, "0")
    return played


def _spent(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/spent") as answer:
        return dict(json.load(answer))


def _report(found: dict[Arrangement, Played], load: float) -> str:
    work = next(iter(found.values())).work
    lines = [
        f"""## Episodes at their own pace, against lock-step

Measured {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/rollout.py --part pacing --write`, \
{os.cpu_count()} cores, load {load:.1f} before: {EPISODES} episodes of {SUITE}, each of {TURNS} \
turns, with a server of {SLOTS} slots whose times for a turn are lognormal (median {MEDIAN:g} s, \
sigma 1), {work:,.0f} slot-seconds in all. The bound is {EPISODES * SLOTS / work:.2f} episodes a \
second: all slots busy all the time. Each turn takes the same time in each row, and all episodes \
are equally long, which is the best case of lock-step. A wave of {SLOTS} in lock-step is as the \
next, and one of the eight was played.

| episodes at once | | episodes | seconds | episodes/s | of the bound | goal | processor, s |
|---:|---|---:|---:|---:|---:|---:|---:|"""
    ]
    for how, one in found.items():
        goal = "" if how.lock_step else "≥ 0.9"
        lines.append(
            f"| {how.at_once} | {how.name} | {one.episodes} | {one.wall:.1f} | {one.rate:.2f} |"
            f" {one.bound:.3f} | {goal} | {one.processor:.1f} |"
        )
    for step in LOCK_STEP:
        ratio = found[OWN].rate / found[step].rate
        name = f"**own pace / lock-step of {step.at_once}**"
        lines.append(f"| | {name} | | | **{ratio:.2f}** | | ≥ 2 | |")
    return "\n".join(lines) + "\n"
