"""What processes share and how work is dealt to them, in threads that stand for processes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier
from typing import Any

import pytest
import torch

from agentgym.errors import AgentGymError
from agentgym.trainers.decks import Deck
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.ranks import ALONE, Ranks
from agentgym.trainers.registry import build_chain
from agentgym.trainers.rows import mini_batches, passes
from agentgym.trainers.shared_play import shared
from agentgym.trainers.worlds import World
from agentgym.types import Group


@dataclass(frozen=True)
class Thread(Ranks):
    """A process that is a thread: what is gathered lies in a list that all have."""

    table: Any = None
    barrier: Any = None

    def gather(self, mine: Any) -> list[Any]:
        self.table[self.rank] = mine
        self.barrier.wait(5)
        found = list(self.table)
        self.barrier.wait(5)
        return found


def on_each(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    table, barrier = [None] * size, Barrier(size)
    ranks = [Thread(rank, size, table=table, barrier=barrier) for rank in range(size)]
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(work, ranks))


# Dealing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_dealt_work_comes_back_whole_and_in_order(count: int) -> None:
    items = list(range(count))
    done = on_each(3, lambda ranks: ranks.deal(items, lambda mine: [(n, ranks.rank) for n in mine]))
    assert done == [[(n, n % 3) for n in items]] * 3


def test_the_first_can_do_all_of_it() -> None:
    done = on_each(3, lambda r: r.deal("abc", lambda mine: [(c, r.rank) for c in mine], first=True))
    assert done == [[("a", 0), ("b", 0), ("c", 0)]] * 3


def test_who_holds_something_else_than_the_first_is_named() -> None:
    def agree(ranks: Ranks) -> str:
        try:
            ranks.agree("the batch of step 3", lambda: ranks.rank in (1, 3))
        except AgentGymError as error:
            return str(error)
        return "agreed"

    found = on_each(4, agree)
    assert all(f.startswith("the batch of step 3 is another on rank 1, 3 than") for f in found)
    assert on_each(2, lambda r: r.agree("it", lambda: 1)) == [None, None]


def test_a_process_alone_returns_what_it_was_given_and_looks_at_nothing() -> None:
    tensor = torch.ones(2)
    ALONE.sum_(tensor)
    assert tensor.tolist() == [1, 1]
    assert ALONE.sums({"a": 0.1}) == {"a": 0.1}
    assert ALONE.gather(3) == [3]
    assert ALONE.by_first(lambda: 4) == 4
    assert ALONE.any(True)
    assert not ALONE.any(False)
    ALONE.agree("nothing", lambda: pytest.fail("was looked at"))


# Rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 11])
@pytest.mark.parametrize("tokens", [1, 20, 40, 10_000])
def test_each_row_counts_once_and_all_take_equally_many_passes(size, tokens, two_groups) -> None:
    taken = [passes(two_groups, tokens, Ranks(rank, size)) for rank in range(size)]
    assert len({len(mine) for mine in taken}) == 1
    counted = [row for mine in taken for one in mine if one.counts for row in one.rows.tolist()]
    assert sorted(counted) == list(range(8))
    for mine in taken:
        assert [one.last for one in mine] == [False] * (len(mine) - 1) + [True]


def test_a_row_that_does_not_count_is_the_shortest(two_groups) -> None:
    idle = passes(two_groups, 10_000, Ranks(10, 11))
    assert [(one.rows.tolist(), one.counts) for one in idle] == [
        ([two_groups.length_B.argmin()], False)
    ]


def test_a_batch_without_a_trained_token_takes_no_pass_anywhere(two_groups) -> None:
    empty = replace(two_groups, mask_BT=torch.zeros_like(two_groups.mask_BT))
    assert [passes(empty, 40, Ranks(rank, 2)) for rank in range(2)] == [[], []]


def test_other_rows_or_credit_have_another_digest(two_groups) -> None:
    known = two_groups.digest()
    some = next(mini_batches(two_groups, OptimOptions(mini_batch=3), "0"))
    credited = two_groups.with_(advantage_BT=torch.ones_like(two_groups.mask_BT))
    assert len({known, some.digest(), credited.digest()}) == 3
    assert two_groups.with_(temperature=0.5).digest() == known


# Play -------------------------------------------------------------------------------------------


def world(*tasks: str) -> World:
    return World(tasks[0], Deck(tasks, 1.0), None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("by_first", "players"), [(False, {0, 1}), (True, {0})])
def test_shares_of_a_round_come_together_in_the_order_of_one_process(
    by_first, players, make_trajectory
) -> None:
    worlds = [world("z", "y"), world("b", "a", "c")]
    played: set[int] = set()

    def play_on(ranks: Ranks) -> tuple[list[Group], list[Any]]:
        def play(tasks):
            played.add(ranks.rank)
            found = [Group(task, (make_trajectory(task),)) for task in tasks]
            return found, [make_trajectory(task, 1) for task in tasks]

        return shared(play, ranks, worlds, by_first=by_first)(["a", "z", "b", "y", "c"])

    for groups, broken in on_each(2, play_on):
        assert [group.task for group in groups] == ["y", "z", "a", "b", "c"]
        assert [t.key.task for t in broken] == ["y", "z", "a", "b", "c"]
    assert played == players


@pytest.mark.parametrize("by_first", [False, True])
@pytest.mark.parametrize("tasks", ["a", "abcde"])
def test_how_rollouts_branched_is_told_of_the_tasks_of_all_processes(
    tasks, by_first, make_trajectory
) -> None:
    def metrics_on(ranks: Ranks) -> dict[str, float]:
        chain = build_chain({"name": "aepo", "initial": 1, "budget": "fixed"}, steps=10)

        def play(mine):
            plan = chain.collect(2, "0:1", 1)
            for task in mine:
                (key,) = plan.fresh(task)
                plan.branches(key, 0, [1.0])
                plan.branches(key, 1, [1.0 + ord(task)])
            return [Group(task, (make_trajectory(task),)) for task in mine], []

        shared(play, ranks, [world(*tasks)], by_first=by_first)(tasks)
        chain.gather(ranks, 1)
        return chain.metrics(1)

    alone = metrics_on(ALONE)
    assert alone["tree/branches"] == alone["tree/decisions"] == len(tasks)
    assert on_each(2, metrics_on) == [pytest.approx(alone, abs=1e-12)] * 2


def test_a_process_alone_plays_as_it_always_did() -> None:
    def play(tasks):
        return [], []

    assert shared(play, ALONE, []) is play
