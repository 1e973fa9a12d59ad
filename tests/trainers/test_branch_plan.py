"""A plan of episodes: how many there are, where they branch, what it remembers."""

import pytest

from agentgym.errors import UsageError
from agentgym.trainers.branch_plan import BranchOptions, BranchPlan
from agentgym.types import Key

LOW, HIGH = [1.0], [2.0]


def plan(group_size: int = 8, seed: str = "0:1", **options: object) -> BranchPlan:
    return BranchPlan(BranchOptions(**options), group_size, seed)


def looked(plan: BranchPlan, key: Key, *turns: list[float]) -> list[list[Key]]:
    """Tell the entropies of an episode's turns in a row; return what branched off at each."""
    return [list(plan.branches(key, turn, seen)) for turn, seen in enumerate(turns)]


def test_a_group_never_has_more_episodes_than_it_may() -> None:
    made = plan(12, initial=6)
    keys = list(made.fresh("t"))
    sizes = [len(keys)]
    for key in keys:
        assert made.branches(key, 0, LOW) == ()
    for turn, wanted in enumerate((3, 2, 4), 1):
        for number, key in enumerate(keys):
            rises = number < wanted
            keys = keys + list(made.branches(key, turn, HIGH if rises else LOW))
        sizes.append(len(keys))
    assert sizes == [6, 9, 11, 12]  # 6 + 3, + 2, + 4 of which one has room
    assert len(set(keys)) == 12
    assert made.fresh("t") == []
    assert not any(made.looks(key, 4) for key in keys)


def test_half_of_a_group_begins_fresh_and_what_is_left_at_the_end() -> None:
    made = plan(5)
    assert made.fresh("t") == [Key("t", 0), Key("t", 1)]
    assert looked(made, Key("t", 1), LOW, HIGH) == [[], [Key("t", 1, 1)]]
    assert made.fresh("t") == [Key("t", 2), Key("t", 3)]
    assert made.fresh("t") == []
    assert (made.tally.fresh, made.tally.branches) == (4, 1)


def test_a_branch_is_compared_with_the_beginning_that_it_shares() -> None:
    made = plan()
    made.fresh("t")
    _, (branch,) = looked(made, Key("t", 0), LOW, HIGH)
    assert made.branches(branch, 2, [1.5]) == [Key("t", 0, 2)]  # 1.5 > 1
    assert made.branches(branch, 3, [0.9]) == ()


def test_nothing_branches_off_before_the_turn_that_a_rollout_began_with() -> None:
    made = plan()
    made.fresh("t")
    _, (branch,) = looked(made, Key("t", 0), LOW, HIGH)
    assert not made.looks(branch, 1)
    assert made.looks(branch, 2)
    late = plan(timing="before")
    late.fresh("t")
    late.branches(Key("t", 0), 0, LOW)
    late.branches(Key("t", 0), 1, HIGH)
    (branch,) = late.branches(Key("t", 0), 2, LOW)
    assert late.looks(branch, 2)  # its entropies decide about turn 3
    assert late.branches(branch, 2, HIGH) == ()
    assert late.branches(branch, 3, LOW) != ()


def test_the_beam_is_how_many_paths_leave_a_branching_point() -> None:
    made = plan(8, beam=4)
    made.fresh("t")
    found = looked(made, Key("t", 3), LOW, HIGH)
    assert found == [[], [Key("t", 3, n) for n in (1, 2, 3)]]
    assert looked(made, Key("t", 2), LOW, HIGH) == [[], [Key("t", 2, 1)]]  # no room for more


def test_a_plan_knows_nothing_of_an_earlier_one() -> None:
    first, second = plan(), plan()
    for made, root in ((first, 1.0), (second, 3.0)):
        made.fresh("t")
        made.branches(Key("t", 0), 0, [root])
    assert first.branches(Key("t", 0), 1, [2.0]) == [Key("t", 0, 1)]
    assert second.branches(Key("t", 0), 1, [2.0]) == ()


def test_each_task_has_a_book_of_its_own() -> None:
    made = plan(2)
    assert made.fresh("a") == [Key("a", 0)]
    assert made.fresh("b") == [Key("b", 0)]
    assert looked(made, Key("a", 0), LOW, HIGH) == [[], [Key("a", 0, 1)]]
    assert not made.looks(Key("a", 0), 2)
    assert made.looks(Key("b", 0), 2)


def test_before_the_first_observation_that_follows_the_released_rule_has_seen_no_change() -> None:
    made = plan(timing="before", decision="draw")
    made.fresh("t")
    made.branches(Key("t", 0), 0, LOW)
    made.branches(Key("t", 0), 1, HIGH)
    assert (made.tally.decisions, made.tally.delta, made.tally.probability) == (1, 0, 0.5)


def test_draws_follow_the_probability_and_the_seed() -> None:
    def branched(seed: str, alpha: float) -> list[bool]:
        made = plan(200, seed, decision="draw", alpha=alpha, weight=0, initial=100)
        made.fresh("t")
        keys = [Key("t", member) for member in range(100)]
        return [bool(looked(made, key, LOW, LOW)[1]) for key in keys]

    half = branched("0:1", 0.5)
    assert 30 <= sum(half) <= 70  # four standard deviations of 5
    assert branched("0:1", 0.5) == half
    assert branched("0:2", 0.5) != half
    assert all(branched("0:1", 1.0))
    assert not any(branched("0:1", 0.0))


@pytest.mark.parametrize(
    ("options", "can"),
    [
        ({}, True),
        ({"beam": 1}, False),
        ({"weight": 0}, False),  # 0.5 does not exceed 0.5
        ({"weight": 0, "alpha": 0.6}, True),
        ({"weight": 0, "decision": "draw"}, True),
        ({"weight": 0, "alpha": 0, "decision": "draw"}, False),
    ],
)
def test_settings_that_can_never_branch_are_known(options: dict[str, object], can: bool) -> None:
    assert BranchOptions(**options).branches == can


def test_more_fresh_rollouts_than_a_group_has_are_refused() -> None:
    with pytest.raises(UsageError, match=r"method.initial is 9 and rollout.group_size 8"):
        plan(8, initial=9)
