"""Which tasks a step plays."""

import pytest

from agentgym.rollout import RolloutOptions
from agentgym.trainers.loop import Plan, draw_tasks
from agentgym.trainers.run_folder import SaveOptions
from agentgym.voices import SamplingOptions


def plan(tasks_per_step: int, seed: int = 0) -> Plan:
    rollout = RolloutOptions(tasks_per_step=tasks_per_step)
    return Plan(9, seed, rollout, SamplingOptions(), 0, SaveOptions())


def test_a_deck_is_dealt_whole_before_it_is_dealt_anew() -> None:
    tasks = [str(n) for n in range(12)]
    first = [task for step in (1, 2, 3) for task in draw_tasks(tasks, plan(4), step)]
    second = [task for step in (4, 5, 6) for task in draw_tasks(tasks, plan(4), step)]
    assert sorted(first) == sorted(second) == sorted(tasks)
    assert first != second


@pytest.mark.parametrize("count", [3, 4, 7, 9, 10])
def test_no_step_draws_a_task_twice(count: int) -> None:
    tasks = [str(n) for n in range(10)]
    for step in range(1, 40):
        drawn = draw_tasks(tasks, plan(count), step)
        assert len(set(drawn)) == len(drawn) == count


def test_a_step_takes_every_task_where_there_are_fewer_than_it_wants() -> None:
    assert sorted(draw_tasks(["a", "b"], plan(5), 3)) == ["a", "b"]


def test_tasks_are_a_function_of_seed_and_step() -> None:
    tasks = [str(n) for n in range(100)]
    assert draw_tasks(tasks, plan(8), 5) == draw_tasks(tasks, plan(8), 5)
    assert draw_tasks(tasks, plan(8), 5) != draw_tasks(tasks, plan(8, seed=1), 5)
