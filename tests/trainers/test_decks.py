"""Which tasks a step plays: of one deck, and of several by their shares."""

from collections import Counter

import pytest

from agentgym.errors import UsageError
from agentgym.trainers.decks import Deck, draw_tasks, refuse_shared_tasks, spare_tasks


def deck(count: int, share: float = 1.0, name: str = "") -> Deck:
    return Deck(tuple(f"{name}{n}" for n in range(count)), share)


def test_a_deck_is_dealt_whole_before_it_is_dealt_anew() -> None:
    one = deck(12)
    first = [task for step in (1, 2, 3) for task in draw_tasks([one], 4, 0, step)]
    second = [task for step in (4, 5, 6) for task in draw_tasks([one], 4, 0, step)]
    assert sorted(first) == sorted(second) == sorted(one.tasks)
    assert first != second


@pytest.mark.parametrize("count", [3, 4, 7, 9, 10])
def test_no_step_draws_a_task_twice(count: int) -> None:
    for step in range(1, 40):
        drawn = draw_tasks([deck(10)], count, 0, step)
        assert len(set(drawn)) == len(drawn) == count


def test_a_step_takes_every_task_where_there_are_fewer_than_it_wants() -> None:
    assert sorted(draw_tasks([deck(2)], 5, 0, 3)) == ["0", "1"]


def test_tasks_are_a_function_of_seed_and_step() -> None:
    decks = [deck(100)]
    assert draw_tasks(decks, 8, 0, 5) == draw_tasks(decks, 8, 0, 5)
    assert draw_tasks(decks, 8, 0, 5) != draw_tasks(decks, 8, 1, 5)


@pytest.mark.parametrize(("shares", "counts"), [((1, 1), (20, 20)), ((3, 1), (30, 10))])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_decks_are_dealt_by_their_shares_over_all_steps(shares, counts, count: int) -> None:
    decks = [deck(50, shares[0], "a"), deck(50, shares[1], "b")]
    steps = range(1, 41)
    drawn = [task for step in steps for task in draw_tasks(decks, count, 0, step)]
    found = Counter(task[0] for task in drawn)
    assert (found["a"], found["b"]) == tuple(count * n for n in counts)


def test_one_of_several_decks_is_dealt_whole_before_it_is_dealt_anew() -> None:
    decks = [deck(6, 1, "a"), deck(100, 2, "b")]  # two of three places are of the second
    drawn = [task for step in range(1, 7) for task in draw_tasks(decks, 3, 0, step)]
    assert sorted(task for task in drawn if task[0] == "a") == sorted(decks[0].tasks)


def test_a_deck_that_is_too_small_for_its_share_is_dealt_whole_in_each_step() -> None:
    drawn = [draw_tasks([deck(2, 1, "a"), deck(50, 1, "b")], 8, 0, step) for step in (1, 2)]
    for tasks in drawn:
        assert Counter(task[0] for task in tasks) == {"a": 2, "b": 4}


def test_spare_tasks_are_those_not_drawn_in_the_steps_own_order() -> None:
    one = deck(20)
    drawn = one.tasks[:4]
    spare = spare_tasks([one], drawn, seed=0, step=1)
    assert sorted(spare) == sorted(one.tasks[4:])
    assert spare == spare_tasks([one], drawn, seed=0, step=1)
    assert spare != spare_tasks([one], drawn, seed=0, step=2)


def test_spare_tasks_of_several_decks_come_by_their_shares_until_a_deck_is_empty() -> None:
    decks = [deck(3, 1, "a"), deck(50, 1, "b")]
    spare = spare_tasks(decks, ["a0"], seed=0, step=1)
    assert [task[0] for task in spare[:6]] == ["a", "b", "a", "b", "b", "b"]
    assert sorted(spare) == sorted({*decks[0].tasks, *decks[1].tasks} - {"a0"})


def test_decks_with_a_task_of_the_same_name_are_refused() -> None:
    refuse_shared_tasks({"one": deck(3, name="a"), "other": deck(3, name="b")})
    with pytest.raises(UsageError, match="one and other both have a task called '0'"):
        refuse_shared_tasks({"one": deck(3), "other": deck(2)})
