"""Groups of episodes that branch: an episode is followed, and others go their own way from it.

At a turn that is looked at, the first tokens are sampled, and a plan is asked whether others shall
branch off. They begin *before* those tokens: in an environment restored from the snapshot of that
moment, with a copy of the conversation, and with what the policy keeps of it, forked. The episode
itself goes on from its tokens, and says what it would have said without being looked at.

An episode that branched off has the turns and tokens of its parent up to there as its own. Each
token that was sampled is in the mask of every trajectory that it belongs to: a shared turn earns
the sum of what its continuations earn.

Where environments are inside this process or share one, branches join the episodes under way.
Where each needs a process of its own there may be none to spare: they wait for one, or, with a
policy that acts in rounds, are played in later waves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentgym.errors import EnvFault, UsageError
from agentgym.pacing import Rounds, Sampler, sampler
from agentgym.policies.conversation import Conversation
from agentgym.rollout import env_seed, groups_of, play, session_name, with_second_try
from agentgym.types import (
    Branching,
    Group,
    Key,
    Policy,
    Request,
    Sample,
    Snapshot,
    Trajectory,
    Turn,
    View,
)
from agentgym.voices import Said, SamplingOptions, TokenVoice
from agentgym.workers import Worker, WorkerPool


def collect_trees(
    pool: WorkerPool,
    tasks: Sequence[str],
    group_size: int,
    policy: Policy,
    conversation: Callable[[], Conversation],
    options: SamplingOptions,
    seed: str,
    branching: Branching,
) -> tuple[list[Group], list[Trajectory]]:
    """Play a group of episodes that may branch for each task, sorted by (task, member, branch).

    What breaks is treated as in :func:`agentgym.rollout.collect_groups`.

    Args:
        pool: Where the environments are.
        tasks: One group each.
        group_size: How many episodes the plan makes of a group.
        policy: What answers. It must report entropies.
        conversation: Makes the token bookkeeping of one episode.
        options: How turns are sampled.
        seed: Where all draws come from, together with each key.
        branching: The plan: which episodes there are.

    Returns:
        One group a task, possibly with fewer members than asked for, and the broken episodes.

    Raises:
        UsageError: The policy reports no entropies.
    """
    first = _Trees(pool, policy, conversation, options, seed, branching).play(tasks)
    played = asyncio.run(with_second_try(first, pool, policy, conversation, options, seed))
    return groups_of(tasks, played, group_size)


@dataclass(frozen=True, slots=True)
class _Place:
    """A moment of an episode: before an observation is answered."""

    key: Key
    turns: tuple[Turn, ...]
    conversation: Conversation  # the observation is not in it yet
    snapshot: Snapshot
    observation: str


@dataclass(frozen=True, slots=True)
class _Start:
    """An episode that is to be played: from its task's first observation, or from a place."""

    key: Key
    place: _Place | None = None


class _Voice(TokenVoice):
    """A policy in tokens, whose turns are looked at before they go on.

    ``branch`` is told the place, the session and the first tokens of a turn.
    """

    def __init__(
        self,
        sample: Sampler,
        start: _Start,
        conversation: Conversation,
        options: SamplingOptions,
        session: str,
        branching: Branching,
        branch: Callable[[_Place, Sample], None],
        worker: Worker,
    ) -> None:
        super().__init__(sample, conversation, options, session)
        self.turns = list(start.place.turns) if start.place else []
        self._start = start
        self._branching = branching
        self._branch = branch
        self._worker = worker
        self._here: _Place | None = None  # of a turn that is looked at

    async def answer(self, view: View) -> Said | None:
        """Note where the episode is, and answer.

        Raises:
            EnvFault: The restored environment shows something else than the original did.
        """
        place = self._start.place
        if place and len(place.turns) == view.turn and place.observation != view.observation:
            raise EnvFault(
                f"a restored environment shows {view.observation[:80]!r}, where the original"
                f" showed {place.observation[:80]!r}"
            )
        self._here = None
        if self._branching.looks(self._start.key, view.turn):
            self._here = _Place(
                self._start.key,
                tuple(self.turns),
                self.conversation.fork(),
                self._worker.snapshot(),
                view.observation,
            )
        return await super().answer(view)

    async def turn(self, request: Request) -> Sample:
        """Sample a turn, its first tokens by themselves where they are looked at."""
        here = self._here
        if here is None:
            return await self.sample(request)
        few = min(self._branching.look_ahead, request.max_tokens)
        ask = replace(request, max_tokens=few, top_k=self._branching.top_k)
        first = await self.sample(ask, lambda sample: self._branch(here, sample))
        if first.finish == "stop" or few == request.max_tokens:
            return first
        return joined(first, await self.sample(continuation(request, first)))


def continuation(request: Request, first: Sample) -> Request:
    """Return the request for the rest of a turn of which the first piece was sampled."""
    return replace(
        request,
        ids=request.ids + first.ids,
        max_tokens=request.max_tokens - len(first.ids),
        begun=request.begun + len(first.ids),
    )


def joined(first: Sample, rest: Sample) -> Sample:
    """Return two pieces of a turn as one. Entropies are left out: they may be of two kinds."""
    same = set(first.versions) <= {rest.version}
    return Sample(
        first.ids + rest.ids,
        first.logprobs + rest.logprobs,
        None,
        rest.finish,
        rest.version,
        first.faults + rest.faults,
        () if same else first.versions,
    )


class _Trees:
    """Plays the groups of some tasks."""

    def __init__(
        self,
        pool: WorkerPool,
        policy: Policy,
        conversation: Callable[[], Conversation],
        options: SamplingOptions,
        seed: str,
        branching: Branching,
    ) -> None:
        self._pool = pool
        self._policy = policy
        self._conversation = conversation
        self._options = options
        self._seed = seed
        self._branching = branching
        self._under_way: Counter[str] = Counter()  # episodes of a task that began or wait
        self._waiting: list[_Start] = []  # for the next wave
        self._done: list[Trajectory] = []
        self._running: asyncio.TaskGroup | None = None

    @property
    def _limited(self) -> bool:
        """Whether only so many may play at once: those of a round, all of them with a worker."""
        return self._policy.pacing == "rounds" and self._pool.capacity is not None

    async def play(self, tasks: Sequence[str]) -> list[Trajectory]:
        """Play all episodes that the plan makes; return them in the order of their keys."""
        for task in sorted(tasks):
            self._add(self._fresh(task))
        while self._waiting:
            self._waiting.sort(key=lambda start: start.key)
            room = (self._limited and self._pool.capacity) or len(self._waiting)
            wave, self._waiting = self._waiting[:room], self._waiting[room:]
            await self._play_wave(wave)
        return sorted(self._done, key=lambda trajectory: trajectory.key)

    async def _play_wave(self, wave: Sequence[_Start]) -> None:
        self._rounds = Rounds(self._policy, 0)
        self._sample = sampler(self._policy, self._rounds)
        try:
            async with asyncio.TaskGroup() as self._running:
                self._run(wave)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group  # what went wrong first
        finally:
            self._running = None

    def _run(self, starts: Sequence[_Start]) -> None:
        """Let episodes begin in the wave that is played."""
        assert self._running is not None
        self._rounds.join(len(starts))
        for start in starts:
            self._running.create_task(self._one(start))

    def _add(self, starts: Sequence[_Start]) -> None:
        """Take more episodes: now, or where the pool may be full for the next wave."""
        self._under_way.update(start.key.task for start in starts)
        if self._running is None or self._limited:
            self._waiting += starts
        else:
            self._run(starts)

    def _fresh(self, task: str) -> list[_Start]:
        return [_Start(key) for key in self._branching.fresh(task)]

    async def _one(self, start: _Start) -> None:
        """Play one episode; the last one of its task asks for more."""
        key, place, session = start.key, start.place, self._session(start.key)
        conversation = self._conversation() if place is None else place.conversation.fork()
        async with self._pool.worker() as worker:
            voice = _Voice(
                self._sample,
                start,
                conversation,
                self._options,
                session,
                self._branching,
                self._branch,
                worker,
            )
            trajectory = await play(
                worker,
                voice,
                key,
                env_seed(self._seed, key.task),
                voice.turns,
                place.snapshot if place else None,
            )
        self._policy.drop(session)
        if place is not None:
            trajectory = replace(trajectory, parent=place.key, shared=len(place.turns))
        self._done.append(trajectory)
        self._under_way[key.task] -= 1
        if not self._under_way[key.task]:
            self._add(self._fresh(key.task))
        await self._rounds.leave()

    def _branch(self, place: _Place, sample: Sample) -> None:
        """Ask the plan what branches off before the sampled tokens, and begin it."""
        if sample.entropies is None:
            raise UsageError(
                "the hook collect needs TOP_K, the entropies that decide where to branch, and the"
                " policy reports none; choose one that does, or a method that does not branch"
            )
        keys = self._branching.branches(place.key, len(place.turns), sample.entropies)
        for key in keys:
            self._policy.fork(self._session(place.key), self._session(key))
        self._add([_Start(key, place) for key in keys])

    def _session(self, key: Key) -> str:
        return session_name(self._seed, key)
