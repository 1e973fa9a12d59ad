"""Rollout with fakes: what ends an episode, in which order things come back, who is asked when."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar

import pytest

from agentgym.errors import EnvFault, UsageError
from agentgym.pacing import Rounds
from agentgym.rollout import collect_groups, env_seed, play, play_all
from agentgym.types import Key, Request, Row, Sample, Stop, View
from agentgym.voices import SamplingOptions, TextVoice, TokenVoice


class FakeWorker:
    """An environment that is won by saying the number of its task; ``break`` breaks it."""

    suite = "fake/all"
    faults = 0

    def __init__(self) -> None:
        self.turn = 0

    async def reset(self, task: str, seed: int) -> tuple[str, dict[str, object]]:
        self.task, self.turn = task, 0
        return f"start {seed}", self.info(won=False)

    async def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        if action == "break":
            raise EnvFault("the environment raised ValueError: broken")
        self.turn += 1
        won = action == self.task
        return f"after {self.turn}", float(won), won, self.turn == 3, self.info(won)

    async def expert(self) -> str:
        return self.task

    def info(self, won: bool) -> dict[str, object]:
        return {
            "goal": f"say {self.task}",
            "task_type": "say",
            "anchor": f"turn {self.turn}",
            "won": won,
            "score": float(won),
            "admissible": True,
        }


class FakePool:
    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[FakeWorker]:
        yield FakeWorker()


class Saying:
    """A text policy that says the same at every turn."""

    name = "saying"
    needs_expert = False

    def __init__(self, action: str) -> None:
        self.action = action

    def begin(self, task: str, seed: int) -> None:
        self.task = task

    def act(self, view: View) -> str:
        return self.action


def playing(action: str, task: str = "7"):  # a trajectory
    key = Key(task, 0)
    return asyncio.run(play(FakeWorker(), TextVoice(Saying(action), key, 0), key, 0))


def test_a_won_episode_is_terminated_and_keeps_its_turns() -> None:
    trajectory = playing("7")
    assert trajectory.stop is Stop.TERMINATED
    assert trajectory.won
    assert trajectory.score == 1.0
    (turn,) = trajectory.turns
    assert (turn.observation, turn.action, turn.reward, turn.anchor) == (
        "start 0",
        "7",
        1.0,
        "turn 0",
    )


def test_an_episode_out_of_turns_is_not_won() -> None:
    trajectory = playing("8")
    assert trajectory.stop is Stop.TURNS
    assert not trajectory.won
    assert [turn.observation for turn in trajectory.turns] == ["start 0", "after 1", "after 2"]


def test_a_fault_of_the_environment_ends_the_episode_with_its_reason() -> None:
    trajectory = playing("break")
    assert trajectory.stop is Stop.ERROR
    assert trajectory.error == "the environment raised ValueError: broken"
    assert not trajectory.won


def test_the_expert_is_asked_only_for_a_policy_that_needs_it() -> None:
    seen: list[str | None] = []

    class Watching(Saying):
        def act(self, view: View) -> str:
            seen.append(view.expert_action)
            return "7"

    plain, needy = Watching(""), Watching("")
    needy.needs_expert = True
    for policy in (plain, needy):
        key = Key("7", 0)
        asyncio.run(play(FakeWorker(), TextVoice(policy, key, 0), key, 0))
    assert seen == [None, "7"]


def test_members_of_a_group_share_the_seed_of_their_environment() -> None:
    assert env_seed("0:1", "a") == env_seed("0:1", "a")
    assert env_seed("0:1", "a") != env_seed("0:2", "a")
    assert 0 <= env_seed("0:1", "a") < 2**31


def test_trajectories_come_back_in_the_order_of_their_keys() -> None:
    keys = [Key("3", 0), Key("1", 1), Key("1", 0)]

    async def run() -> list[Key]:
        found = await play_all(FakePool(), keys, lambda k, s: TextVoice(Saying("1"), k, s), "0")
        return [trajectory.key for trajectory in found]

    assert asyncio.run(run()) == keys


def test_an_interrupt_ends_a_rollout_of_scripts_long_before_its_last_episode() -> None:
    begun: list[str] = []

    class Interrupting(Saying):
        def begin(self, task: str, seed: int) -> None:
            begun.append(task)
            if len(begun) == 5:
                running.cancel()

    async def run() -> None:
        nonlocal running
        running = asyncio.current_task()
        keys = [Key(str(n), 0) for n in range(1000)]
        await play_all(
            FakePool(), keys, lambda k, s: TextVoice(Interrupting(""), k, s), "0", at_once=10
        )

    running: asyncio.Task[None] | None = None
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert len(begun) <= 20


class FakeConversation:
    """One token an utterance; its text is the last digit of the seed's task."""

    stop = ()

    def __init__(self) -> None:
        self.ids: list[int] = []

    def observe(self, view: View) -> tuple[int, ...]:
        self.ids += [0] * 4
        return tuple(self.ids)

    def say(self, sample: Sample) -> "FakeConversation.Parsed":
        self.ids += sample.ids
        return self.Parsed(str(sample.ids[0]))

    class Parsed:
        error = None

        def __init__(self, text: str) -> None:
            self.text = self.action = text

    def rows(self) -> tuple[Row, ...]:
        n = len(self.ids)
        return (Row(tuple(self.ids), (-1,) * n, (0.0,) * n, (-1,) * n),)


class FakePolicy:
    """Says the member's number; remembers who was asked together."""

    def __init__(self, pacing: str) -> None:
        self.pacing = pacing
        self.asked: list[list[str]] = []
        self.dropped: list[str] = []

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        self.asked.append([request.session for request in requests])
        return [
            Sample((int(r.session.split(":")[-2]),), (-0.5,), None, "stop", 0) for r in requests
        ]

    def drop(self, session: str) -> None:
        self.dropped.append(session)


def collect(policy: FakePolicy, capacity: int | None = None, max_context: int = 100):
    options = SamplingOptions(max_tokens=2, max_context=max_context)
    return collect_groups(
        FakePool(capacity), ["1", "0"], 2, policy, FakeConversation, options, "9:1"
    )


def test_in_rounds_all_unfinished_episodes_are_asked_together_in_order() -> None:
    policy = FakePolicy("rounds")
    collect(policy)
    first, second, third = policy.asked
    assert first == ["9:1:0:0000:0000", "9:1:0:0001:0000", "9:1:1:0000:0000", "9:1:1:0001:0000"]
    # Member 0 wins task 0 and member 1 wins task 1; the others go on to the last turn.
    assert second == third == ["9:1:0:0001:0000", "9:1:1:0000:0000"]
    assert sorted(policy.dropped) == first


def test_a_free_policy_is_asked_for_each_episode_alone() -> None:
    policy = FakePolicy("free")
    collect(policy)
    assert {len(asked) for asked in policy.asked} == {1}


def test_a_first_turn_is_sampled_while_further_episodes_begin() -> None:
    happened = []

    class Worker(FakeWorker):
        async def reset(self, task: str, seed: int) -> tuple[str, dict[str, object]]:
            happened.append("begun")
            return await super().reset(task, seed)

    class Pool(FakePool):
        @asynccontextmanager
        async def worker(self) -> AsyncIterator[FakeWorker]:
            yield Worker()

    class Policy(FakePolicy):
        async def sample(self, requests: Sequence[Request]) -> list[Sample]:
            await asyncio.sleep(0)
            happened.append("sampled")
            return await super().sample(requests)

    options = SamplingOptions(max_tokens=2, max_context=100)
    collect_groups(Pool(), "0123", 1, Policy("free"), FakeConversation, options, "9:1")
    assert happened.index("sampled") < 3  # not when all four have begun


@pytest.mark.parametrize("pacing", ["rounds", "free"])
def test_groups_are_sorted_and_whole(pacing: str) -> None:
    groups, broken = collect(FakePolicy(pacing))
    assert [group.task for group in groups] == ["0", "1"]
    assert [[t.key.member for t in g.trajectories] for g in groups] == [[0, 1], [0, 1]]
    assert [[t.won for t in g.trajectories] for g in groups] == [[True, False], [False, True]]
    assert broken == []


def test_a_small_pool_is_played_in_waves() -> None:
    policy = FakePolicy("rounds")
    collect(policy, capacity=3)
    assert len(policy.asked[0]) == 3
    assert policy.asked[-1] == ["9:1:1:0001:0000"]


def test_an_episode_without_room_for_another_turn_ends_with_tokens() -> None:
    # Turn 1 needs 4 + 2 tokens, turn 2 needs 9 + 2: with room for 10 it is not asked.
    groups, _ = collect(FakePolicy("rounds"), max_context=10)
    stops = [[t.stop for t in group.trajectories] for group in groups]
    assert stops == [[Stop.TERMINATED, Stop.TOKENS], [Stop.TOKENS, Stop.TERMINATED]]
    assert [len(t.turns) for g in groups for t in g.trajectories] == [1, 1, 1, 1]


class Breaking(FakePolicy):
    """Says -1 for some members, and the member's number for the others."""

    def __init__(self, members: set[int]) -> None:
        super().__init__("rounds")
        self.members = members

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        samples = await super().sample(requests)
        return [replace(s, ids=(-1,)) if s.ids[0] in self.members else s for s in samples]


class BreakingConversation(FakeConversation):
    """Breaks the environment where -1 was said; remembers what every episode began with."""

    started: ClassVar[list[str]] = []

    def observe(self, view: View) -> tuple[int, ...]:
        if view.turn == 0:
            self.started.append(view.observation)
        return super().observe(view)

    def say(self, sample: Sample) -> FakeConversation.Parsed:
        return self.Parsed("break" if sample.ids[0] < 0 else "0")


def collect_breaking(policy: Breaking, size: int):
    options = SamplingOptions(max_tokens=2, max_context=100)
    return collect_groups(FakePool(), ["0"], size, policy, BreakingConversation, options, "9:1")


def test_a_broken_member_is_played_once_more_and_then_left_out() -> None:
    policy = Breaking({1})
    groups, broken = collect_breaking(policy, 3)
    assert [t.key.member for t in groups[0].trajectories] == [0, 2]
    assert [t.key.member for t in broken] == [1, 1]
    assert policy.asked[-1] == ["9:1:again:0:0001:0000"]


def test_a_member_that_is_played_again_starts_where_its_group_did() -> None:
    BreakingConversation.started.clear()
    collect_breaking(Breaking({1}), 3)
    assert len(BreakingConversation.started) == 4
    assert set(BreakingConversation.started) == {f"start {env_seed('9:1', '0')}"}


def test_a_group_that_faults_leave_with_one_member_is_left_out() -> None:
    groups, broken = collect_breaking(Breaking({1}), 2)
    assert groups == []
    assert len(broken) == 2


def test_a_group_that_was_meant_to_have_one_member_stays() -> None:
    groups, _ = collect_breaking(Breaking(set()), 1)
    assert [len(group.trajectories) for group in groups] == [1]


def test_an_error_that_ends_the_rollout_samples_no_further_round() -> None:
    class Misused(FakeConversation):
        def say(self, sample: Sample) -> FakeConversation.Parsed:
            if sample.ids[0] == 1:
                raise UsageError("asked for what there is not")
            return self.Parsed("nothing")

    policy = FakePolicy("rounds")
    options = SamplingOptions(max_tokens=2, max_context=100)
    with pytest.raises(UsageError, match="asked for what there is not"):
        collect_groups(FakePool(), ["0"], 3, policy, Misused, options, "9:1")
    assert len(policy.asked) == 1


def test_a_policy_that_fails_in_a_round_ends_every_episode_of_it() -> None:
    class Failing(FakePolicy):
        async def sample(self, requests: Sequence[Request]) -> list[Sample]:
            raise RuntimeError("the sampler died")

    with pytest.raises(RuntimeError, match="the sampler died"):
        collect(Failing("rounds"))


def test_rounds_wait_for_the_slowest_episode() -> None:
    async def run() -> list[list[str]]:
        policy = FakePolicy("rounds")
        rounds = Rounds(policy, 2)
        voices = [
            TokenVoice(rounds.sample, FakeConversation(), SamplingOptions(), f"0:{i}:0:0")
            for i in (1, 0)
        ]

        async def late(voice: TokenVoice, delay: float) -> None:
            await asyncio.sleep(delay)
            await voice.answer(View("", "", 0, None, None))
            await rounds.leave()

        await asyncio.gather(late(voices[0], 0.02), late(voices[1], 0.0))
        return policy.asked

    assert asyncio.run(run()) == [["0:0:0:0", "0:1:0:0"]]
