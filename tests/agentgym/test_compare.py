"""Two evaluations, paired by task."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentgym.compare import Flip, compare, paired_bootstrap
from agentgym.errors import UsageError
from agentgym.evaluate import EvalOptions, evaluate
from agentgym.policies.scripted import ExpertPolicy, RandomPolicy
from agentgym.results import Evaluation, write_results
from agentgym.types import EnvSpec

CORRIDOR = EnvSpec("corridor", {"suite": "corridor/test"})


def played(kind: type = RandomPolicy, **options: int) -> Evaluation:
    return evaluate(CORRIDOR, kind, EvalOptions(**{"tasks": 30, **options}))


def with_wins(evaluation: Evaluation, wins: list[bool]) -> Evaluation:
    pairs = zip(evaluation.episodes, wins, strict=True)
    episodes = tuple(replace(e, won=won, score=float(won)) for e, won in pairs)
    return replace(evaluation, episodes=episodes)


def test_differences_are_paired_by_task_and_flips_are_named() -> None:
    whole = played(tasks=4)
    first = with_wins(whole, [True, True, False, False])
    second = with_wins(whole, [True, False, True, True])
    found = compare(first, second)
    everything = found.success[-1]
    assert (everything.kind, everything.tasks) == ("all", 4)
    assert (everything.first, everything.second, everything.value) == (0.5, 0.75, 0.25)
    tasks = [episode.task for episode in whole.episodes]
    assert found.flips == (Flip(tasks[1], 1, 0), Flip(tasks[2], 0, 1), Flip(tasks[3], 0, 1))
    assert sum(one.tasks for one in found.success[:-1]) == 4


def test_the_bootstrap_is_of_the_mean_of_differences() -> None:
    # 100 differences, half of them 1 and half 0: the mean is 0.5, its standard error 0.05, and the
    # interval about 0.5 +- 1.96 x 0.05 = (0.402, 0.598); quantiles are steps of 0.01.
    low, high = paired_bootstrap([0.0, 1.0] * 50)
    assert low == pytest.approx(0.402, abs=0.011)
    assert high == pytest.approx(0.598, abs=0.011)
    assert paired_bootstrap([0.0, 1.0] * 50) == (low, high)


def test_pairing_makes_the_interval_narrower_than_two_apart() -> None:
    # B wins what A wins and 3 tasks of 30 more. Apart, the difference of 0.1 has a standard error
    # of sqrt(0.5 x 0.5 / 30 + 0.6 x 0.4 / 30) = 0.128; paired, sqrt(0.1 x 0.9 / 30) = 0.055.
    first = [n % 2 == 0 for n in range(30)]
    second = [won or n in (1, 3, 5) for n, won in enumerate(first)]
    whole = played()
    (*_, everything) = compare(with_wins(whole, first), with_wins(whole, second)).success
    assert everything.value == pytest.approx(0.1)
    assert everything.high - everything.low < 2 * 1.96 * 0.06
    assert everything.low >= 0


def test_an_evaluation_and_itself_do_not_differ() -> None:
    found = compare(played(samples=2), played(samples=2))
    assert found.flips == ()
    assert found.notes == ()
    assert {(one.value, one.low, one.high) for one in (*found.success, found.score)} == {(0, 0, 0)}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda: played(tasks=29), "tasks is 30 in the first and 29 in the second"),
        (lambda: played(samples=2), "samples is 1 in the first and 2"),
        (
            lambda: evaluate(
                EnvSpec("corridor", {"suite": "corridor/train"}), ExpertPolicy, EvalOptions(30)
            ),
            "suite is 'corridor/test' in the first and 'corridor/train'",
        ),
        (
            lambda: evaluate(
                EnvSpec("corridor", {"suite": "corridor/test", "max_turns": 3}),
                ExpertPolicy,
                EvalOptions(30),
            ),
            "max_turns is 8 in the first and 3",
        ),
    ],
)
def test_unlike_evaluations_are_refused_with_what_differs(other: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        compare(played(), other())


def test_tasks_that_showed_something_else_are_refused_by_name() -> None:
    whole = played()
    changed = list(whole.episodes)
    changed[3] = replace(changed[3], shown="other")
    with pytest.raises(UsageError, match=f"task {changed[3].task} showed something else"):
        compare(whole, replace(whole, episodes=tuple(changed)))
    changed[3] = replace(changed[3], shown=None)  # an episode that broke before it showed anything
    compare(whole, replace(whole, episodes=tuple(changed)))


def test_what_else_differs_of_what_both_have_is_noted() -> None:
    one = played()
    asked = replace(one.protocol, seed=1, sampling={"temperature": 0.4, "max_tokens": 9})
    other = replace(asked, seed=1, sampling={"temperature": 1.0, "max_tokens": 9})
    first, second = replace(one, protocol=asked), replace(one, protocol=other)
    temperature = "sampling.temperature is 0.4 in the first and 1.0 in the second"
    assert compare(one, first).notes == ("seed is 0 in the first and 1 in the second",)
    assert compare(first, second).notes == (temperature,)


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(played(), tmp_path / "random")
    write_results(played(ExpertPolicy), tmp_path / "expert")
    return tmp_path


def test_the_command_shows_differences_and_flips(agentgym: Any, results: Path) -> None:
    code, out, err = agentgym("compare", results / "random", results / "expert")
    assert (code, err) == (0, "")
    rows = {line.partition("  ")[0]: line.split() for line in out.splitlines()}
    random = json.loads((results / "random/results.json").read_text())["summary"]["success"]
    assert rows["all"][1] == "30"
    assert math.isclose(float(rows["all"][2]), random["value"], abs_tol=5e-4)
    assert rows["all"][3:5] == ["1.000", f"{1 - random['value']:+.3f}"]
    lost = 30 - random["won"]
    assert f"won by B only: {lost}: " in out
    assert f"and {lost - 20} more (--all)" in out
    assert "won by A only: 0\n" in out
    assert "more (--all)" not in agentgym("compare", "--all", *sorted(results.iterdir())).out
    assert "| all |" in agentgym("compare", "--markdown", *sorted(results.iterdir())).out


def test_what_is_no_evaluation_is_one_line(agentgym: Any, results: Path) -> None:
    (results / "other").mkdir()
    (results / "other" / "results.json").write_text('{"protocol": {"agentgym": "0.0.1"}}')
    (results / "foreign").mkdir()
    (results / "foreign" / "results.json").write_text('{"protocol": 3}')
    for name, code, says in (
        ("nowhere", 1, "there is no such file; expected that of an evaluation"),
        ("other", 1, "written by agentgym 0.0.1"),
        ("foreign", 1, "agentgym eval did not write this file"),
    ):
        ran = agentgym("compare", results / "random", results / name)
        assert (ran.code, ran.err.count("\n")) == (code, 1)
        assert says in ran.err


def test_a_training_run_is_asked_which_of_its_evaluations(agentgym: Any, results: Path) -> None:
    write_results(played(), results / "run" / "eval" / "step_000010")
    code, _, err = agentgym("compare", results / "run", results / "expert")
    assert code == 2
    assert "name one of them, such as" in err
    assert "step_000010" in err
