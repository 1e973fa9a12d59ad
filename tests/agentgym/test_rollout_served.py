"""Rollout with a policy that is asked for each episode by itself, as one behind a server is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from agentgym.errors import ContextOverflow, ServerError
from agentgym.rollout import play_policy
from agentgym.types import Info, Key, Request, Row, Sample, Stop, Trajectory, View
from agentgym.voices import SamplingOptions


class Worker:
    """Ends after three turns."""

    suite = "three/all"
    faults = 1

    async def reset(self, task: str, seed: int) -> tuple[str, Info]:
        self.turns = 0
        return "start", self.info()

    async def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        self.turns += 1
        return "on", 0.0, False, self.turns == 3, self.info()

    def info(self) -> Info:
        return Info(goal="", task_type="", anchor="", won=False, score=0.0, admissible=True)


class Pool:
    """Lends so many workers at once."""

    def __init__(self, capacity: int | None) -> None:
        self.capacity = capacity
        self._free = asyncio.Semaphore(capacity or 1000)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        async with self._free:
            yield Worker()


class Talk:
    """A token an observation and a token an answer."""

    stop = ()
    error = None
    text = action = "on"

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.said = 0

    def observe(self, view: View) -> tuple[int, ...]:
        self.ids.append(0)
        return tuple(self.ids)

    def say(self, sample: Sample) -> "Talk":
        self.ids += sample.ids
        self.said = len(self.ids)
        return self

    def rows(self) -> tuple[Row, ...]:
        n = self.said
        return (Row(tuple(self.ids[:n]), (0,) * n, (0.0,) * n, (0,) * n),) if n else ()


class Served:
    """Answers members after as many ticks as they have in ``ticks``; keeps the order of turns."""

    pacing = "free"

    def __init__(self, *ticks: int) -> None:
        self.ticks = ticks
        self.order: list[int] = []
        self.dropped: list[str] = []
        self.cancelled = 0

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        (request,) = requests
        member = int(request.session.split(":")[-2])
        try:
            for _ in range(self.ticks[member]):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.answer(member, request)
        self.order.append(member)
        return [Sample((1,), (-0.5,), None, "stop", 0, faults=member)]

    def answer(self, member: int, request: Request) -> None:
        """Raise here what shall go wrong."""

    def drop(self, session: str) -> None:
        self.dropped.append(session)


def play(policy: Served, capacity: int | None = None) -> list[Trajectory]:
    async def run() -> list[Trajectory]:
        keys = [Key("t", member) for member in range(len(policy.ticks))]
        options = SamplingOptions(max_tokens=1, max_context=50)
        return await play_policy(Pool(capacity), keys, policy, Talk, options, "0")

    return asyncio.run(run())


def test_no_episode_waits_for_another_one() -> None:
    policy = Served(40, 1)
    trajectories = play(policy)
    assert policy.order == [1, 1, 1, 0, 0, 0]
    assert [t.key.member for t in trajectories] == [0, 1]


def test_a_worker_that_is_free_takes_the_next_episode_at_once() -> None:
    policy = Served(60, 1, 1)
    play(policy, capacity=2)
    assert policy.order == [1, 1, 1, 2, 2, 2, 0, 0, 0]


def test_an_episode_is_dropped_when_it_is_over() -> None:
    policy = Served(60, 1)
    seen: list[list[str]] = []
    policy.answer = lambda member, request: seen.append(list(policy.dropped))  # type: ignore[method-assign]
    play(policy)
    assert seen[-1] == ["0:t:0001:0000"]
    assert sorted(policy.dropped) == ["0:t:0000:0000", "0:t:0001:0000"]


def test_healed_faults_of_server_and_environment_are_counted_together() -> None:
    # Three turns; the environment's worker says 1, each turn of member m says m.
    assert [t.faults for t in play(Served(1, 1, 1))] == [1, 4, 7]


def test_a_context_overflow_ends_one_episode_and_keeps_its_turns() -> None:
    class Overflowing(Served):
        def answer(self, member: int, request: Request) -> None:
            if member == 1 and len(request.ids) > 2:
                raise ContextOverflow("the prompt has 3 tokens, the server reads 2")

    first, second = play(Overflowing(1, 1))
    assert (first.stop, len(first.turns)) == (Stop.TURNS, 3)
    assert (second.stop, len(second.turns), second.error) == (Stop.TOKENS, 1, None)
    assert second.rows[0].ids == (0, 1)


def test_a_server_that_is_lost_for_good_ends_the_rollout_and_all_that_waits() -> None:
    class Dead(Served):
        def answer(self, member: int, request: Request) -> None:
            raise ServerError("nothing answers")

    policy = Dead(1, 1000)
    with pytest.raises(ServerError, match="nothing answers"):
        play(policy)
    assert policy.cancelled == 1


def test_an_interrupt_ends_the_rollout_and_cancels_what_is_asked() -> None:
    policy = Served(1000, 1000)

    async def run() -> None:
        keys = [Key("t", member) for member in range(2)]
        options = SamplingOptions(max_tokens=1, max_context=50)
        rollout = asyncio.create_task(play_policy(Pool(None), keys, policy, Talk, options, "0"))
        await asyncio.sleep(0.001)
        rollout.cancel()  # what asyncio.run does with an interrupt
        await rollout

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert policy.cancelled == 2
