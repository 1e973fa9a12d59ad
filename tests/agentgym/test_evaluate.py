"""Evaluating a text policy over a whole suite."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentgym import __version__
from agentgym.envs.base import TextEnv
from agentgym.envs.corridor import CorridorEnv
from agentgym.errors import DataError, UsageError
from agentgym.evaluate import (
    EvalOptions,
    Evaluation,
    evaluate,
    has_results,
    read_results,
    refuse_results,
    write_results,
)
from agentgym.policies.scripted import ExpertPolicy, RandomPolicy, ReplayPolicy
from agentgym.types import EnvSpec, Info, Stop

CORRIDOR = EnvSpec("corridor", {"suite": "corridor/test"})
SAY = EnvSpec("say", {"suite": "say/all"})


def random_corridor(samples: int = 1, seed: int = 0, workers: int = 0) -> Evaluation:
    options = EvalOptions(tasks=12, samples=samples, seed=seed, workers=workers)
    return evaluate(CORRIDOR, RandomPolicy, options)


def test_every_task_is_played_exactly_once_a_sample_in_the_order_of_the_suite() -> None:
    evaluation = evaluate(CORRIDOR, ExpertPolicy, EvalOptions(samples=2))
    tasks = CorridorEnv("corridor/test").suite.tasks
    played = [(episode.task, episode.sample) for episode in evaluation.episodes]
    assert played == [(task, sample) for task in tasks for sample in (0, 1)]


def test_an_expert_wins_where_the_environment_has_one() -> None:
    assert evaluate(CORRIDOR, ExpertPolicy, EvalOptions()).summary.success.value == 1.0


def test_an_evaluation_repeats_whatever_the_number_of_workers() -> None:
    assert random_corridor() == random_corridor()
    assert random_corridor(workers=2).episodes == random_corridor().episodes


def test_an_evaluation_differs_with_its_seed_and_its_samples_differ() -> None:
    assert random_corridor(seed=1).episodes != random_corridor().episodes
    turns = {}
    for episode in random_corridor(samples=8).episodes:
        turns.setdefault(episode.task, set()).add((episode.turns, episode.won))
    assert any(len(ways) > 1 for ways in turns.values())


def test_more_samples_leave_the_first_one_as_it_was() -> None:
    first = [episode for episode in random_corridor(samples=3).episodes if episode.sample == 0]
    assert tuple(first) == random_corridor().episodes


@pytest.mark.usefixtures("say_env")
def test_an_exception_in_the_environment_ends_one_episode_and_is_named() -> None:
    evaluation = evaluate(SAY, ExpertPolicy, EvalOptions())
    assert [episode.won for episode in evaluation.episodes] == [True, True, False, True]
    broken = evaluation.episodes[2]
    assert broken.stop is Stop.ERROR
    assert broken.error is not None
    assert "ZeroDivisionError: broken on purpose" in broken.error
    assert evaluation.summary.success.value == pytest.approx(3 / 4)


@pytest.mark.usefixtures("say_env")
def test_an_episode_out_of_turns_says_so() -> None:
    evaluation = evaluate(SAY, lambda: ReplayPolicy(["7"] * 3), EvalOptions(tasks=1))
    assert evaluation.episodes[0].stop is Stop.TURNS
    assert evaluation.episodes[0].turns == 3


def test_a_policy_without_the_expert_it_needs_is_refused_before_any_episode(
    say_env: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(say_env, "has_expert", False)
    with pytest.raises(UsageError, match="say has no expert; choose another policy than expert"):
        evaluate(SAY, ExpertPolicy, EvalOptions())


@pytest.mark.usefixtures("say_env")
def test_a_random_policy_without_admissible_actions_ends_the_evaluation() -> None:
    with pytest.raises(UsageError, match="admissible actions"):
        evaluate(SAY, RandomPolicy, EvalOptions())


@pytest.mark.parametrize("options", [{"tasks": 0}, {"samples": 0}])
def test_an_evaluation_of_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        EvalOptions(**options)


def test_the_start_of_each_episode_is_told() -> None:
    told: list[tuple[int, int]] = []
    evaluate(
        CORRIDOR, ExpertPolicy, EvalOptions(tasks=3), lambda done, total: told.append((done, total))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.usefixtures("say_env")
def test_results_carry_the_whole_protocol(tmp_path: Path) -> None:
    spec = EnvSpec("say", {"suite": "say/all", "max_turns": 2, "loud": True})
    evaluation = evaluate(spec, ExpertPolicy, EvalOptions(tasks=3, samples=2, seed=5))
    content = json.loads(write_results(evaluation, tmp_path / "new").read_text())
    protocol = content["protocol"]
    assert protocol["agentgym"] == __version__
    assert protocol["suite"] == "say/all"
    assert len(protocol["digest"]) == 64
    assert "not a published test set" in protocol["note"]
    assert protocol["options"] == {"loud": True}
    numbers = {name: protocol[name] for name in ("tasks", "suite_tasks", "samples", "seed")}
    assert numbers == {"tasks": 3, "suite_tasks": 4, "samples": 2, "seed": 5}
    assert (protocol["max_turns"], protocol["policy"]) == (2, "expert")
    assert [row["stop"] for row in content["episodes"]] == ["terminated"] * 4 + ["error"] * 2


def test_results_are_read_back_as_they_were(tmp_path: Path) -> None:
    evaluation = random_corridor(samples=2)
    write_results(evaluation, tmp_path)
    assert has_results(tmp_path)
    assert read_results(tmp_path) == evaluation


def test_results_that_are_there_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("precious")
    with pytest.raises(UsageError, match=r"results\.json is already there; nothing was overwri"):
        refuse_results(tmp_path)
    with pytest.raises(UsageError, match="already there"):
        write_results(random_corridor(), tmp_path)
    assert (tmp_path / "results.json").read_text() == "precious"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"protocol": {}}'])
def test_results_that_are_none_are_told_from_results(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=r"cannot read the results .*results\.json"):
        read_results(tmp_path)


def test_an_episode_that_breaks_at_its_start_counts_for_the_type_of_its_task(
    register: Callable[[type[TextEnv]], None], say_env: type[TextEnv]
) -> None:
    class Late(say_env):  # type: ignore[misc, valid-type] # the fixture's class
        name = "late"

        def begin(self, task: str, seed: int) -> tuple[str, Info]:
            if task == "1":
                raise ZeroDivisionError("broken at the start")
            return super().begin(task, seed)

        def task_type(self, task: str) -> str:
            return "odd" if int(task) % 2 else "even"

    register(Late)
    summary = evaluate(EnvSpec("late", {"suite": "say/all"}), ExpertPolicy, EvalOptions()).summary
    assert {kind: rate.tasks for kind, rate in summary.by_type.items()} == {"even": 2, "odd": 2}
