"""A round of the soak: episodes in every environment at once, and a sample of them once more."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields

from agentgym.envs.registry import make_env
from agentgym.policies.scripted import make_scripted
from agentgym.rollout import play_all
from agentgym.types import EnvSpec, Key, Stop, Trajectory
from agentgym.voices import TextVoice, Voice
from agentgym.workers import WorkerPool

SEED = "soak"


@dataclass(frozen=True)
class Part:
    """How much of the soak is played in an environment, and how."""

    spec: EnvSpec
    share: float  # of all episodes
    expert: float  # share of its episodes that the expert plays; chance plays the others
    replayed: float  # share of its episodes that are played again in this process
    at_once: int  # episodes, each with an environment of its own

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.spec.name

    def count(self, episodes: int) -> int:
        """Return how many of so many episodes are played here."""
        return max(1, round(self.share * episodes))

    def play_again(self, key: Key) -> bool:
        """Return whether an episode is of the sample that is played again."""
        return random.Random(f"{self.name}:again:{key.member}").random() < self.replayed

    def voice(self, key: Key, seed: int) -> Voice:
        """Return what plays an episode."""
        expert = random.Random(f"{self.name}:expert:{key.member}").random() < self.expert
        return TextVoice(make_scripted("expert" if expert else "random"), key, seed + key.member)


@dataclass
class Result:
    """What happened in a round; counted by environment where nothing else is said."""

    number: int
    asked: Counter[str] = field(default_factory=Counter)  # episodes
    played: Counter[str] = field(default_factory=Counter)  # that came back with a stop
    steps: Counter[str] = field(default_factory=Counter)
    won: Counter[str] = field(default_factory=Counter)
    healed: Counter[str] = field(default_factory=Counter)  # faults
    replayed: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)  # by stop
    errors: list[str] = field(default_factory=list)  # environment, task and reason
    different: list[str] = field(default_factory=list)  # replays that were not the same

    def line(self) -> dict[str, object]:
        """Return it as JSON takes it."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in values.items()
        }


async def warm_up(pool: WorkerPool, workers: int) -> None:
    """Start every worker of a pool."""
    task = make_env(pool.spec).suite.tasks[0]
    async with AsyncExitStack() as lent:
        for _ in range(workers):
            worker = await lent.enter_async_context(pool.worker())
            await worker.reset(task, 0)


async def play_round(
    parts: Sequence[Part],
    under_fire: Mapping[str, WorkerPool],
    calm: Mapping[str, WorkerPool],
    number: int,
    episodes: int,
) -> Result:
    """Play a round.

    Args:
        parts: What to play.
        under_fire: The pools whose processes are killed, by environment.
        calm: Those where nothing is killed.
        number: Of the round; each plays other tasks, or the same by other draws.
        episodes: In all environments together.
    """
    keys = {part.name: _keys(part, number, part.count(episodes)) for part in parts}
    playing = [
        play_all(under_fire[part.name], keys[part.name], part.voice, SEED, at_once=part.at_once)
        for part in parts
    ]
    result = Result(number)
    for part, played in zip(parts, await asyncio.gather(*playing), strict=True):
        _count(result, part.name, keys[part.name], played)
        whole = [one for one in played if one.stop is not Stop.ERROR and part.play_again(one.key)]
        await _play_again(result, part, calm[part.name], whole)
    return result


def _keys(part: Part, number: int, count: int) -> list[Key]:
    """Return the keys of a round: on and on through the tasks of the suite."""
    tasks = make_env(part.spec).suite.tasks
    return [Key(tasks[n % len(tasks)], n) for n in range(number * count, (number + 1) * count)]


def _count(
    result: Result, name: str, keys: Sequence[Key], trajectories: Sequence[Trajectory]
) -> None:
    result.asked[name] += len(keys)
    result.played[name] += len(set(keys) & {one.key for one in trajectories})
    for one in trajectories:
        result.stops[Stop(one.stop)] += 1
        result.steps[name] += len(one.turns)
        result.won[name] += one.won
        result.healed[name] += one.faults
        if one.stop is Stop.ERROR:
            result.errors.append(f"{name} {one.key.task}: {one.error or 'NO REASON'}")


async def _play_again(
    result: Result, part: Part, calm: WorkerPool, played: Sequence[Trajectory]
) -> None:
    keys = [one.key for one in played]
    again = await play_all(calm, keys, part.voice, SEED, at_once=1)
    result.replayed[part.name] += len(again)
    for first, second in zip(played, again, strict=True):
        if _digest(first) != _digest(second):
            result.different.append(f"{part.name} {first.key.task} (episode {first.key.member})")


def _digest(played: Trajectory) -> str:
    """Return a hash of all that an agent saw and did, and of how it ended."""
    turns = [(one.observation, one.action, one.reward, one.admissible) for one in played.turns]
    whole = (played.goal, turns, str(played.stop), played.won, played.score)
    return hashlib.sha256(repr(whole).encode()).hexdigest()
