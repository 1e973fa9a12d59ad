"""Groups that branch: what a branch shares, in which order they begin, every environment alike."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from agentgym.branching import collect_trees, continuation, joined
from agentgym.envs.base import Outcome, TextEnv
from agentgym.envs.corridor import WORDS
from agentgym.envs.registry import env_of_suite, make_env
from agentgym.errors import UsageError
from agentgym.policies.conversation import Script
from agentgym.policies.hf import HFPolicy
from agentgym.policies.prompt import load_prompt
from agentgym.rollout import collect_groups, env_seed
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer
from agentgym.types import (
    PILOT,
    EnvSpec,
    Info,
    Key,
    Request,
    Row,
    Sample,
    Stop,
    Suite,
    Trajectory,
    View,
)
from agentgym.voices import SamplingOptions
from agentgym.workers import WorkerPool


class Plan:
    """Looks at every turn, and lets one rollout branch wherever it is told to.

    Args:
        fresh: How many rollouts begin at first.
        size: How many a group has.
        where: The member and the turn of each branching; None branches wherever there is room.
    """

    look_ahead, top_k = 2, 20

    def __init__(
        self, fresh: int, size: int, where: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self.begin, self.size, self.where = fresh, size, where
        self.keys: dict[str, list[Key]] = {}
        self.told: list[tuple[Key, int, int]] = []  # and how many entropies

    def fresh(self, task: str) -> list[Key]:
        known = self.keys.setdefault(task, [])
        members = sum(key.branch == 0 for key in known)
        count = self.size - len(known) if known else self.begin
        made = [Key(task, members + n) for n in range(count)]
        known += made
        return made

    def looks(self, key: Key, turn: int) -> bool:
        return True

    def branches(self, key: Key, turn: int, entropies: Sequence[float]) -> list[Key]:
        self.told.append((key, turn, len(entropies)))
        known = self.keys[key.task]
        wanted = turn > 0 if self.where is None else (key.member, turn) in self.where
        if not wanted or len(known) == self.size or (key.branch and self.where):
            return []
        made = Key(key.task, key.member, sum(k.member == key.member for k in known))
        known.append(made)
        return [made]


class Talking:
    """Says random numbers, drawn from the session's seed, and stops after four of them.

    Remembers who was asked together, and for how many tokens.
    """

    version = 0
    max_context = 10_000

    def __init__(self, pacing: str = "rounds", entropies: bool = True) -> None:
        self.pacing = pacing
        self.entropies = entropies
        self.asked: list[list[tuple[str, int]]] = []
        self.forked: list[tuple[str, str]] = []
        self.dropped: list[str] = []

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        self.asked.append([(r.session, r.max_tokens) for r in requests])
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Sample:
        rng = random.Random(request.seed)
        whole = [rng.randrange(100) for _ in range(4)]
        ids = tuple(whole[request.begun :][: request.max_tokens])
        finish = "stop" if request.begun + len(ids) == 4 else "length"
        entropies = tuple(1.0 for _ in ids) if self.entropies else None
        return Sample(ids, tuple(-0.5 for _ in ids), entropies, finish, 0)

    def fork(self, session: str, copy: str) -> None:
        self.forked.append((session, copy))

    def drop(self, session: str) -> None:
        self.dropped.append(session)


class Picking:
    """A conversation in which a turn picks one of what can be done, by the sum of its tokens."""

    stop = ()

    def __init__(self, listed: Callable[[View], Sequence[str]] | None = None) -> None:
        self.listed = listed or (lambda view: view.admissible_actions or ("look",))
        self.ids: list[int] = []
        self.turns: list[int] = []
        self.count = 0

    def observe(self, view: View) -> tuple[int, ...]:
        self.options = self.listed(view)
        prompt = [1000 + len(view.observation) % 97, 2000 + view.turn]
        self.ids += prompt
        self.turns += [-1] * len(prompt)
        return tuple(self.ids)

    def say(self, sample: Sample) -> "Picking":
        self.ids += sample.ids
        self.turns += [self.count] * len(sample.ids)
        self.count += 1
        self.action = self.text = self.options[sum(sample.ids) % len(self.options)]
        self.error = None
        return self

    def fork(self) -> "Picking":
        copied = Picking(self.listed)
        copied.ids, copied.turns, copied.count = list(self.ids), list(self.turns), self.count
        return copied

    def rows(self) -> tuple[Row, ...]:
        end = max((n for n, turn in enumerate(self.turns, 1) if turn >= 0), default=0)
        zeros = tuple(0.0 if turn < 0 else -0.5 for turn in self.turns[:end])
        versions = tuple(min(turn, 0) for turn in self.turns[:end])
        return (Row(tuple(self.ids[:end]), tuple(self.turns[:end]), zeros, versions),)


class CountEnv(TextEnv):
    """Shows all that was done; ends after five turns."""

    name = "count"
    default_suite = "count/all"
    default_max_turns = 5
    breaks_at: int | None = None  # the turn at which an episode breaks, if it says "9"
    forgets = False  # whether a restored environment shows something else

    @classmethod
    def suite_names(cls) -> tuple[str, ...]:
        return ("count/all",)

    def load_suite(self, name: str) -> Suite:
        return Suite(name, ("a", "b"), False, False, "counting")

    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        self.task, self.done = task, []
        return f"{seed}:", self.info()

    def act(self, action: str) -> Outcome:
        if self.breaks_at == len(self.done) and action in "56789":
            raise ZeroDivisionError("broken on purpose")
        self.done.append(action)
        return Outcome("".join(self.done), 0.0, False, self.info())

    def restore(self, snapshot: Any) -> tuple[str, dict[str, Any]]:
        observation, info = super().restore(snapshot)
        return ("what?" if self.forgets else observation), info

    def info(self) -> Info:
        return Info(
            task_id=self.task,
            task_type="count",
            goal="count",
            won=False,
            score=0.0,
            admissible=True,
            anchor="",
            admissible_actions=tuple("0123456789"),
        )


OPTIONS = SamplingOptions(max_tokens=6, max_context=1000)


@contextmanager
def pool_of(suite: str, capacity: int | None = None, **options: object) -> Iterator[WorkerPool]:
    pool = WorkerPool(EnvSpec(env_of_suite(suite), {"suite": suite, **options}))
    pool.capacity = capacity
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def count_env(register: Callable[[type[TextEnv]], None]) -> type[CountEnv]:
    class Count(CountEnv):
        pass

    register(Count)
    return Count


def trees(
    plan: Plan,
    policy: Talking | None = None,
    tasks: Sequence[str] = ("a",),
    capacity: int | None = None,
) -> list[Trajectory]:
    with pool_of("count/all", capacity) as pool:
        groups, broken = collect_trees(
            pool, tasks, plan.size, policy or Talking(), Picking, OPTIONS, "0:1", plan
        )
    assert not broken
    return [t for group in groups for t in group.trajectories]


# What a branch is -----------------------------------------------------------------------------


def test_a_branch_shares_its_parents_turns_and_goes_on_by_itself(count_env) -> None:
    parent, branch = trees(Plan(1, 2, [(0, 2)]))
    assert (parent.key, branch.key) == (Key("a", 0), Key("a", 0, 1))
    assert (parent.parent, parent.shared) == (None, 0)
    assert (branch.parent, branch.shared) == (parent.key, 2)
    assert branch.turns[:2] == parent.turns[:2]
    assert branch.turns[2].observation == parent.turns[2].observation
    assert branch.turns[2:] != parent.turns[2:]
    assert len(branch.turns) == len(parent.turns) == 5


def test_the_mask_of_a_branch_covers_exactly_what_was_sampled_on_its_path(count_env) -> None:
    parent, branch = trees(Plan(1, 2, [(0, 2)]))
    (ours,), (theirs,) = branch.rows, parent.rows
    # Two tokens of an observation and four of a turn, five times; the last ends the row.
    assert ours.turns == theirs.turns == tuple(t for k in range(5) for t in (-1, -1, k, k, k, k))
    prompts = 2 * 6 + 2  # two whole turns and the observation at which it branched off
    assert ours.ids[:prompts] == theirs.ids[:prompts]
    assert ours.ids[prompts : prompts + 4] != theirs.ids[prompts : prompts + 4]


def test_the_parent_says_what_it_would_have_said_without_a_branch(count_env) -> None:
    with pool_of("count/all") as pool:
        groups, _ = collect_groups(pool, ["a"], 1, Talking(), Picking, OPTIONS, "0:1")
    (alone,) = groups[0].trajectories
    parent, _ = trees(Plan(1, 2, [(0, 2)]))
    assert parent == alone


def test_branches_branch_and_the_rest_of_the_group_begins_fresh(count_env) -> None:
    found = trees(Plan(1, 4))
    assert [t.key for t in found] == [Key("a", 0, n) for n in range(4)]
    assert {t.parent for t in found[1:]} > {Key("a", 0)}  # one at least is a branch's branch
    found = trees(Plan(2, 4, [(1, 3)]))
    assert [t.key for t in found] == [Key("a", 0), Key("a", 1), Key("a", 1, 1), Key("a", 2)]
    assert [t.shared for t in found] == [0, 0, 3, 0]


def test_what_is_looked_at_are_the_first_tokens_and_no_more(count_env) -> None:
    plan, policy = Plan(1, 1), Talking()
    trees(plan, policy)
    assert plan.told == [(Key("a", 0), turn, 2) for turn in range(5)]
    assert [asked[0][1] for asked in policy.asked] == [2, 4] * 5  # of the six that are allowed


# Order ----------------------------------------------------------------------------------------


def test_in_rounds_branches_begin_in_the_order_of_the_keys_and_are_asked_with_the_others(
    count_env,
) -> None:
    plan, policy = Plan(2, 3), Talking()
    trees(plan, policy, tasks=("b", "a"))
    first = [f"0:1:{task}:{member:04d}:0000" for task in "ab" for member in range(2)]
    assert [session for session, _ in policy.asked[0]] == first
    # At turn 1 the first rollout of each task takes the last place.
    branches = [("0:1:a:0000:0000", "0:1:a:0000:0001"), ("0:1:b:0000:0000", "0:1:b:0000:0001")]
    assert policy.forked == branches
    following = [session for session, _ in policy.asked[3]]
    assert following == sorted([*first, *(copy for _, copy in branches)])
    assert [key for key, turn, _ in plan.told if turn == 1][:4] == [
        Key(task, member) for task in "ab" for member in range(2)
    ]
    assert sorted(policy.dropped) == following


def test_a_free_policy_makes_the_same_groups_of_as_many(count_env) -> None:
    found = trees(Plan(2, 4), Talking("free"), tasks=("a", "b"))
    assert [t.key.task for t in found] == ["a"] * 4 + ["b"] * 4
    assert any(t.shared for t in found)


def test_where_environments_are_few_branches_are_played_in_later_waves(count_env) -> None:
    policy = Talking()
    found = trees(Plan(2, 4, [(0, 1), (1, 2)]), policy, capacity=2)
    assert [t.shared for t in found] == [0, 1, 0, 2]
    assert max(len(asked) for asked in policy.asked) == 2
    unlimited = trees(Plan(2, 4, [(0, 1), (1, 2)]))
    assert [(t.key, t.turns, t.rows) for t in found] == [
        (t.key, t.turns, t.rows) for t in unlimited
    ]


# What goes wrong ------------------------------------------------------------------------------


def test_a_policy_without_entropies_is_refused(count_env) -> None:
    with pytest.raises(UsageError, match=r"collect needs TOP_K, .* and the policy reports none"):
        trees(Plan(1, 2), Talking(entropies=False))


def test_a_restored_environment_that_shows_something_else_breaks_the_branch(count_env) -> None:
    count_env.forgets = True
    with pool_of("count/all") as pool:
        groups, broken = collect_trees(
            pool, ["a"], 2, Talking(), Picking, OPTIONS, "0:1", Plan(1, 2, [(0, 2)])
        )
    (failed,) = broken
    assert failed.key == Key("a", 0, 1)
    assert "a restored environment shows 'what?', where the original" in str(failed.error)
    # It is played once more, from the task's first observation.
    assert [(t.key, t.shared) for t in groups[0].trajectories] == [
        (Key("a", 0), 0),
        (Key("a", 0, 1), 0),
    ]


def test_a_broken_parent_leaves_its_branches_whole(count_env) -> None:
    count_env.breaks_at = 4
    with pool_of("count/all") as pool:
        groups, broken = collect_trees(
            pool, ["a", "b"], 8, Talking(), Picking, OPTIONS, "0:1", Plan(4, 8)
        )
    left = {t.key: t for group in groups for t in group.trajectories}
    assert broken
    failed = {t.key for t in broken}
    assert any(t.parent in failed and len(t.turns) == 5 for t in left.values())
    assert all(t.stop is Stop.TURNS for t in left.values())


def test_a_pilot_is_played_and_is_not_of_the_group(count_env) -> None:
    class Piloted(Plan):
        def fresh(self, task: str) -> list[Key]:
            if not self.told:
                return [Key(task, PILOT)]
            return super().fresh(task)

        def branches(self, key: Key, turn: int, entropies: Sequence[float]) -> list[Key]:
            self.told.append((key, turn, len(entropies)))
            return []

    plan, policy = Piloted(2, 2), Talking()
    found = trees(plan, policy)
    assert [t.key.member for t in found] == [0, 1]
    assert [key.member for key, _, _ in plan.told[:5]] == [PILOT] * 5
    assert policy.asked[0] == [("0:1:a:-001:0000", 2)]


# Turns in pieces ------------------------------------------------------------------------------


def test_a_piece_and_the_rest_are_one_turn() -> None:
    request = Request("s", (1, 2, 3), 9, 1.0, "seed", ("<end>",))
    first = Sample((7, 8), (-1.0, -2.0), (0.1, 0.2), "length", 4)
    more = continuation(request, first)
    assert more == replace(request, ids=(1, 2, 3, 7, 8), max_tokens=7, begun=2)
    assert more.said == (7, 8)
    whole = joined(first, Sample((9,), (-3.0,), (0.3,), "stop", 4))
    assert whole == Sample((7, 8, 9), (-1.0, -2.0, -3.0), None, "stop", 4)
    assert whole.versions == (4, 4, 4)
    newer = joined(first, Sample((9,), (-3.0,), None, "length", 5))
    assert newer.versions == (4, 4, 5)
    assert joined(newer, Sample((3,), (-1.0,), None, "stop", 6)).versions == (4, 4, 5, 6)


@pytest.fixture(scope="module")
def model() -> tuple[HFPolicy, Script]:
    """A model of random weights for the corridor."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer([" ".join(WORDS)] * 10, 300)
    shape = Shape(hidden=32, layers=1, intermediate=64, context=256)
    policy = HFPolicy(fresh_model(tokenizer, shape, seed=0), tokenizer)
    return policy, Script(load_prompt("corridor", "plain", "full"), tokenizer)


def corridor(model: tuple[HFPolicy, Script], plan: Plan | None) -> list[Trajectory]:
    policy, script = model
    policy.refresh(0)
    tasks = ["train-003", "train-001"]
    options = SamplingOptions(max_tokens=5, max_context=200)
    with pool_of("corridor/train", max_turns=4) as pool:
        if plan is None:
            groups, _ = collect_groups(pool, tasks, 3, policy, script.begin, options, "0:1")
        else:
            groups, _ = collect_trees(
                pool, tasks, plan.size, policy, script.begin, options, "0:1", plan
            )
    return [t for group in groups for t in group.trajectories]


def said(found: Sequence[Trajectory]) -> list[list[tuple[int, ...]]]:
    return [[row.ids for row in t.rows] for t in found]


def test_a_model_says_the_same_whether_it_is_looked_at_or_not(model) -> None:
    looked, alone = corridor(model, Plan(3, 3, [(9, 9)])), corridor(model, None)
    assert said(looked) == said(alone)
    for one, other in zip(looked, alone, strict=True):
        for row, same in zip(one.rows, other.rows, strict=True):
            assert row.logprobs == pytest.approx(same.logprobs, abs=1e-5)


def test_rounds_that_branch_repeat_bit_for_bit(model) -> None:
    first, second = (corridor(model, Plan(2, 6)) for _ in range(2))
    assert sum(t.shared > 0 for t in first) >= 4
    assert first == second


def test_tokens_of_a_branch_have_the_logprobs_that_the_model_gives_them(model) -> None:
    policy, _ = model
    branches = [t for t in corridor(model, Plan(1, 4)) if t.shared]
    assert branches
    for row in (row for t in branches for row in t.rows):
        start = next(n for n, turn in enumerate(row.turns) if turn >= 0)
        (scored,) = asyncio.run(policy.score([row.ids], [start]))
        for turn, ours, theirs in zip(row.turns[start:], row.logprobs[start:], scored, strict=True):
            assert ours == (pytest.approx(theirs, abs=1e-5) if turn >= 0 else 0.0)


# Every environment ----------------------------------------------------------------------------


WEBSHOP_WORDS = ("search[mug]", "search[red shirt]")
SEARCH_WORDS = (
    "<think>a</think><search>river</search>",
    "<think>b</think><search>capital of the country</search>",
    "what",
)


def listed(view: View) -> Sequence[str]:
    known = [a for a in view.admissible_actions or () if "<" not in a]
    return known or (SEARCH_WORDS if view.admissible_actions is None else WEBSHOP_WORDS)


@pytest.mark.parametrize(
    "suite",
    [
        "corridor/train",
        "alfworld/gen-train",
        "scienceworld/short-train",
        "webshop/gen-train",
        "search/gen-train",
    ],
)
def test_in_every_environment_a_branch_is_what_an_unbroken_episode_would_be(suite: str) -> None:
    plan = Plan(2, 6)
    with pool_of(suite, max_turns=6) as pool:
        task = make_env(pool.spec).suite.tasks[5]
        groups, broken = collect_trees(
            pool, [task], 6, Talking(), lambda: Picking(listed), OPTIONS, "0:1", plan
        )
    assert not broken
    found = groups[0].trajectories
    assert sum(t.shared > 0 for t in found) >= 2
    env = make_env(EnvSpec(env_of_suite(suite), {"suite": suite, "max_turns": 6}))
    for trajectory in found:
        observation, info = env.reset(seed=env_seed("0:1", task), options={"task": task})
        for turn in trajectory.turns:
            assert (turn.observation, turn.anchor) == (observation, info["anchor"])
            observation, reward, _, _, info = env.step(turn.action)
            assert (turn.reward, turn.admissible) == (reward, info["admissible"])
        assert (trajectory.won, trajectory.score) == (info["won"], info["score"])
    assert len({tuple(turn.action for turn in t.turns) for t in found}) > 2
    env.close()
