"""ScienceWorld's tasks and the named sets of them, counted by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from agentgym.envs.scienceworld import ScienceWorldEnv
from agentgym.envs.scienceworld_tasks import (
    SELECTIONS,
    SHORT,
    VARIATIONS,
    is_electrical,
    parse_id,
    split_of,
    task_ids,
)
from agentgym.errors import UsageError


def test_there_are_thirty_tasks_in_7207_variations() -> None:
    assert len(VARIATIONS) == 30
    assert sum(VARIATIONS.values()) == 7207


def test_what_quarters_leave_over_is_tested() -> None:
    # 30 variations: quarters of 7, so 14 train, 7 develop, and 7 + 2 test
    assert split_of("boil", "train") == range(14)
    assert split_of("boil", "dev") == range(14, 21)
    assert split_of("boil", "test") == range(21, 30)


def test_the_splits_cut_every_task_without_overlap() -> None:
    for task, total in VARIATIONS.items():
        numbers = [n for split in ("train", "dev", "test") for n in split_of(task, split)]
        assert numbers == list(range(total))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("train", 3592),
        ("dev", 1796),
        ("test", 1819),
        ("L0-train", 3322),
        ("L0-test", 1661),
        ("L1-train", 3322),
        ("L1-test", 1684),
        ("L2-train", 2242),
        ("L2-test", 549),
        ("panel-test", 149),  # 30 tasks x 5, one of which has 4 test variations
        ("short-train", 786),  # 4 x 150 + 3 x 62
        ("short-test", 396),  # 4 x 75 + 3 x 32
        ("short-panel-test", 70),  # 7 tasks x 10
    ],
)
def test_a_suite_has_as_many_tasks_as_it_should(name: str, size: int) -> None:
    assert len(task_ids(name)) == len(set(task_ids(name))) == size


def test_nothing_that_is_trained_on_is_tested() -> None:
    trained = {one for name in SELECTIONS if name.endswith("train") for one in task_ids(name)}
    tested = {one for name in SELECTIONS if not name.endswith("train") for one in task_ids(name)}
    assert not trained & tested


def test_l2_tests_tasks_that_it_does_not_train_on() -> None:
    trained, tested = ({parse_id(one)[0] for one in task_ids(f"L2-{s}")} for s in ("train", "test"))
    assert len(trained) == 19
    assert len(tested) == 10
    assert not trained & tested


def test_the_panel_spreads_over_the_test_variations_of_every_task() -> None:
    count = Counter(parse_id(one)[0] for one in task_ids("panel-test"))
    assert set(count.values()) == {4, 5}
    assert count["identify-life-stages-2"] == 4
    # find-plant tests 225 to 299: every 15th of 75
    plants = [one for one in task_ids("panel-test") if one.startswith("find-plant/")]
    assert plants == [f"find-plant/{n}" for n in (225, 240, 255, 270, 285)]


def test_suites_say_what_they_are_without_a_simulator() -> None:
    env = ScienceWorldEnv("scienceworld/short-test")
    assert env.suite.held_out
    assert not env.suite.official
    assert {env.task_type(one) for one in env.suite.tasks} == SHORT
    assert env.load_suite("scienceworld/test").official
    assert not env.load_suite("scienceworld/L0-train").held_out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"simplifications": "eazy"}, "did you mean easy"),
        ({"simplifications": "easy,openDoors"}, "easy stands alone"),
        ({"actions": "some"}, "did you mean none"),
        ({"suite": "scienceworld/L3-test"}, "did you mean scienceworld/L"),
        (
            {"suite": "scienceworld/test", "simplifications": "noElectricalAction"},
            "take easy, which leaves it out",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ScienceWorldEnv(**options)


def test_tasks_without_electricity_can_do_without_electrical_actions() -> None:
    env = ScienceWorldEnv(
        "scienceworld/short-test", simplifications=" noElectricalAction,openDoors"
    )
    assert not any(map(is_electrical, SHORT))
    assert env.suite.tasks
