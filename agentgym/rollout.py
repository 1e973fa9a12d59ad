"""Episodes from their first observation to their ending, for any policy and environment.

An episode is a coroutine that reads from top to bottom: look, answer, step, until something ends
it. How an answer comes about is the :class:`agentgym.voices.Voice`'s; when its tokens are sampled,
at once or together with those of all other unfinished episodes, is :mod:`agentgym.pacing`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agentgym.errors import ContextOverflow, EnvFault
from agentgym.pacing import Rounds, Sampler, sampler
from agentgym.policies.conversation import Conversation
from agentgym.types import (
    PILOT,
    Group,
    Info,
    Key,
    Policy,
    Snapshot,
    Stop,
    Trajectory,
    Turn,
    View,
)
from agentgym.voices import SamplingOptions, TokenVoice, Voice
from agentgym.workers import Worker, WorkerPool, check_workers


class EnvOptions(BaseModel):
    """Where episodes are played.

    Attributes:
        suite: The tasks, by the name of their suite.
        task_types: Only tasks of these types; all when empty.
        max_turns: Actions an episode may take; the environment's own limit when None.
        workers: Environment processes; 0 steps the environments inside this process. ``ray:8`` is
            8 actors of Ray, and ``ray`` one for each processor of its cluster.
        options: Further options of the environment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    task_types: tuple[str, ...] = ()
    max_turns: int | None = Field(default=None, ge=1)
    workers: Annotated[int | str, AfterValidator(check_workers)] = 0
    options: dict[str, Any] = {}


class RolloutOptions(BaseModel):
    """How many episodes a training step collects, and by how old weights.

    Attributes:
        tasks_per_step: How many groups.
        group_size: Episodes of each.
        staleness: How many steps are played ahead of the one that is learnt from, and so by how
            many versions the weights may be behind; 0 plays with the weights that are updated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks_per_step: int = Field(default=16, ge=1)
    group_size: int = Field(default=8, ge=1)
    staleness: int = Field(default=0, ge=0)


async def play(
    worker: Worker,
    voice: Voice,
    key: Key,
    seed: int,
    turns: list[Turn] | None = None,
    snapshot: Snapshot | None = None,
) -> Trajectory:
    """Play one episode to its end.

    An exception that the environment raised, or its second hang, ends the episode with
    ``Stop.ERROR`` and the reason; the turns so far are kept. What the environment finds wrong with
    how it is used or with its data is not the episode's: it is raised, and ends the rollout.

    Args:
        worker: Where.
        voice: What answers.
        key: Which episode.
        seed: Of the environment.
        turns: Those that were taken before; the others are appended.
        snapshot: Where the episode goes on; None begins at the task's first observation.
    """
    turns = [] if turns is None else turns
    info: Info = {}
    error = None
    try:
        if snapshot is None:
            observation, info = await worker.reset(key.task, seed)
        else:
            observation, info = await worker.restore(snapshot)
        stop = None
        while stop is None:
            expert = await worker.expert() if voice.needs_expert else None
            said = await voice.answer(View.of(observation, info, len(turns), expert))
            if said is None:
                stop = Stop.TOKENS
                break
            seen, anchor = observation, info["anchor"]
            observation, reward, terminated, truncated, info = await worker.step(said.action)
            turns.append(
                Turn(
                    observation=seen,
                    text=said.text,
                    action=said.action,
                    parse_error=said.parse_error,
                    admissible=info["admissible"],
                    reward=reward,
                    anchor=anchor,
                )
            )
            stop = Stop.TERMINATED if terminated else Stop.TURNS if truncated else None
    except ContextOverflow:  # of this episode's request alone: it was sampled by itself
        stop = Stop.TOKENS
    except EnvFault as fault:
        stop, error = Stop.ERROR, str(fault)
    return _trajectory(key, worker, voice, turns, info, stop, error)


def _trajectory(
    key: Key,
    worker: Worker,
    voice: Voice,
    turns: Sequence[Turn],
    info: Info,
    stop: Stop,
    error: str | None,
) -> Trajectory:
    """Return an episode that is over; what a fault ended is neither won nor scored."""
    return Trajectory(
        key=key,
        suite=worker.suite,
        task_type=info.get("task_type", ""),
        goal=info.get("goal", ""),
        turns=tuple(turns),
        rows=voice.rows(),
        stop=stop,
        won=info.get("won", False) and stop is not Stop.ERROR,
        score=0.0 if stop is Stop.ERROR else info.get("score", 0.0),
        error=error,
        faults=worker.faults + voice.faults,
        answer=info.get("answer"),
    )


def env_seed(seed: str, task: str) -> int:
    """Return the seed of an episode's environment; all members of a group share it."""
    digest = hashlib.sha256(f"{seed}:env:{task}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


async def play_all(
    pool: WorkerPool,
    keys: Sequence[Key],
    voice_of: Callable[[Key, int], Voice],
    seed: str,
    leave: Callable[[], Awaitable[None]] | None = None,
    at_once: int | None = None,
    finished: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Play one episode a key and return the trajectories in the order of the keys.

    Args:
        pool: Where the environments are.
        keys: Which episodes.
        voice_of: Makes what answers in an episode, from its key and its environment's seed.
        seed: Where the environments' seeds come from, together with each task.
        leave: Told when an episode will ask no more.
        at_once: How many episodes go on at the same time; None lets all of them.
        finished: Told each episode as soon as it is over.
    """
    gate = asyncio.Semaphore(at_once or max(1, len(keys)))

    async def one(key: Key) -> Trajectory:
        number = env_seed(seed, key.task)
        async with gate, pool.worker() as worker:
            trajectory = await play(worker, voice_of(key, number), key, number)
            if finished is not None:
                finished(trajectory)
            # Not where an error ends the rollout: nobody would hear what a last round samples.
            if leave is not None:
                await leave()
            return trajectory

    running = []
    try:
        async with asyncio.TaskGroup() as tasks:
            for key in keys:
                running.append(tasks.create_task(one(key)))
                await asyncio.sleep(0)  # its first turn is asked for before the next one's reset
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group  # what went wrong first; the others were cancelled
    return [task.result() for task in running]


async def play_policy(
    pool: WorkerPool,
    keys: Sequence[Key],
    policy: Policy,
    conversation: Callable[[], Conversation],
    options: SamplingOptions,
    seed: str,
    draws: str | None = None,
    finished: Callable[[Trajectory], None] | None = None,
    at_once: int | None = None,
) -> list[Trajectory]:
    """Play one episode a key with a policy in tokens, at the policy's own pacing.

    A policy in rounds plays in waves of what the pool can hold, as a round needs all its episodes
    at hand. With a free one an episode begins as soon as a worker is, and waits for no other.

    Args:
        pool: Where the environments are.
        keys: Which episodes; the order of the result.
        policy: What answers.
        conversation: Makes the token bookkeeping of one episode.
        options: How turns are sampled.
        seed: Where all draws come from, together with each key.
        draws: Where the policy's draws come from instead; the environments keep to ``seed``.
        finished: Told each episode as soon as it is over.
        at_once: How many episodes of a free policy go on at the same time; None lets all of them.
    """
    drawn_from = seed if draws is None else draws

    def over(trajectory: Trajectory) -> None:
        policy.drop(session_name(drawn_from, trajectory.key))
        if finished is not None:
            finished(trajectory)

    done: list[Trajectory] = []
    wave = (pool.capacity if policy.pacing == "rounds" else None) or len(keys) or 1
    bound = at_once if policy.pacing == "free" else None  # a round waits for all of its wave
    for start in range(0, len(keys), wave):
        part = keys[start : start + wave]
        rounds = Rounds(policy, len(part))
        sample = sampler(policy, rounds)

        def voice(key: Key, _: int, sample: Sampler = sample) -> Voice:
            return TokenVoice(sample, conversation(), options, session_name(drawn_from, key))

        done += await play_all(pool, part, voice, seed, rounds.leave, bound, over)
    return done


def session_name(seed: str, key: Key) -> str:
    """Return the name of an episode's session, which also seeds its draws."""
    return f"{seed}:{key.task}:{key.member:04d}:{key.branch:04d}"


def collect_groups(
    pool: WorkerPool,
    tasks: Sequence[str],
    group_size: int,
    policy: Policy,
    conversation: Callable[[], Conversation],
    options: SamplingOptions,
    seed: str,
) -> tuple[list[Group], list[Trajectory]]:
    """Play a group of episodes for each task, sorted by (task, member, branch).

    A member whose episode ended by a fault of the environment's own is played once more, in the
    same environment with other draws of the policy; if that fails too it is left out. A group that
    this leaves with fewer than two members is left out, as it has nothing to compare.

    Returns:
        One group a task, possibly with fewer members than asked for, and the broken episodes.
    """
    keys = [Key(task, member) for task in sorted(tasks) for member in range(group_size)]
    first = play_policy(pool, keys, policy, conversation, options, seed)
    played = asyncio.run(with_second_try(first, pool, policy, conversation, options, seed))
    return groups_of(tasks, played, group_size)


async def with_second_try(
    first: Awaitable[list[Trajectory]],
    pool: WorkerPool,
    policy: Policy,
    conversation: Callable[[], Conversation],
    options: SamplingOptions,
    seed: str,
) -> list[Trajectory]:
    """Return the episodes that were played, and those played once more because one broke.

    A second try begins at the task's first observation, wherever the first one began.
    """
    played = await first
    broken = [t.key for t in played if t.stop is Stop.ERROR and t.key.member != PILOT]
    again = await play_policy(pool, broken, policy, conversation, options, seed, f"{seed}:again")
    return played + again


def groups_of(
    tasks: Sequence[str], played: Sequence[Trajectory], group_size: int
) -> tuple[list[Group], list[Trajectory]]:
    """Return the whole episodes by task, without pilots, and the broken ones.

    Args:
        tasks: The order of the groups is theirs, sorted.
        played: In any order.
        group_size: What was asked for; of a group of two or more, one member alone is left out.
    """
    members: dict[str, list[Trajectory]] = {task: [] for task in sorted(tasks)}
    for trajectory in sorted(played, key=lambda t: t.key):
        if trajectory.stop is not Stop.ERROR and trajectory.key.member != PILOT:
            members[trajectory.key.task].append(trajectory)
    least = min(2, group_size)
    groups = [Group(task, tuple(found)) for task, found in members.items() if len(found) >= least]
    return groups, [t for t in played if t.stop is Stop.ERROR]
