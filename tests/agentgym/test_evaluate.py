"""Evaluating a text policy over a whole suite."""

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentgym import __version__
from agentgym.envs.base import TextEnv
from agentgym.envs.corridor import CorridorEnv
from agentgym.errors import DataError, UsageError
from agentgym.evaluate import EvalOptions, Model, evaluate, evaluate_model
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import load_prompt
from agentgym.policies.scripted import ExpertPolicy, RandomPolicy, ReplayPolicy
from agentgym.results import Evaluation, has_results, read_results, write_results
from agentgym.types import EnvSpec, Info, Request, Sample, Stop
from agentgym.voices import SamplingOptions

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


def test_the_end_of_each_episode_is_told() -> None:
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
        evaluate(CORRIDOR, RandomPolicy, EvalOptions(tasks=1), folder=tmp_path)
    with pytest.raises(UsageError, match="already there"):
        write_results(random_corridor(), tmp_path)
    assert (tmp_path / "results.json").read_text() == "precious"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"protocol": {}}'])
def test_results_that_are_none_are_told_from_results(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=r"cannot read the results .*results\.json"):
        read_results(tmp_path)


def test_results_of_another_format_are_told_with_the_version_that_wrote_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "results.json").write_text('{"protocol": {"agentgym": "0.0.9"}}')
    with pytest.raises(DataError, match=r"written by agentgym 0\.0\.9 in format 1, and this ver"):
        read_results(tmp_path)


# Ended and gone on with ---------------------------------------------------------------------------


class Failing(RandomPolicy):
    """A random policy that ends the evaluation after some episodes, and tells which it played."""

    played: list[str]
    left: int

    def begin(self, task: str, seed: int) -> None:
        if Failing.left == 0:
            raise KeyboardInterrupt
        Failing.left -= 1
        Failing.played.append(task)
        super().begin(task, seed)


def ended_after(episodes: int, folder: Path, samples: int = 1) -> None:
    Failing.played, Failing.left = [], episodes
    with pytest.raises(KeyboardInterrupt):
        evaluate(CORRIDOR, Failing, EvalOptions(tasks=12, samples=samples), folder=folder)


def test_an_evaluation_goes_on_where_it_was_ended_and_no_episode_is_repeated(
    tmp_path: Path,
) -> None:
    ended_after(5, tmp_path)
    first = Failing.played
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 5
    assert not has_results(tmp_path)
    told: list[tuple[int, int]] = []
    Failing.played, Failing.left = [], 99
    whole = evaluate(
        CORRIDOR, Failing, EvalOptions(tasks=12), lambda done, of: told.append((done, of)), tmp_path
    )
    assert first + Failing.played == [episode.task for episode in whole.episodes]
    assert told[0] == (5, 12)
    assert whole == evaluate(CORRIDOR, RandomPolicy, EvalOptions(tasks=12))
    assert read_results(tmp_path) == whole


def test_a_folder_that_is_done_holds_results_and_trajectories_in_the_same_order(
    tmp_path: Path,
) -> None:
    whole = evaluate(CORRIDOR, RandomPolicy, EvalOptions(tasks=3, samples=2), folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "results.json",
        "trajectories.jsonl.gz",
    ]
    lines = gzip.decompress((tmp_path / "trajectories.jsonl.gz").read_bytes()).splitlines()
    told = [json.loads(line) for line in lines]
    assert [(one["task"], one["member"], len(one["turns"])) for one in told] == [
        (episode.task, episode.sample, episode.turns) for episode in whole.episodes
    ]


def test_an_evaluation_that_is_done_is_read_and_not_played_again(tmp_path: Path) -> None:
    whole = evaluate(CORRIDOR, RandomPolicy, EvalOptions(tasks=3), folder=tmp_path)
    (tmp_path / "protocol.json").write_text("left by a kill")
    Failing.played, Failing.left = [], 0
    assert evaluate(CORRIDOR, Failing, EvalOptions(tasks=3), folder=tmp_path) == whole
    assert not (tmp_path / "protocol.json").exists()


@pytest.mark.parametrize("done", [True, False])
def test_a_folder_of_another_evaluation_is_refused_and_says_what_differs(
    tmp_path: Path, done: bool
) -> None:
    if done:
        evaluate(CORRIDOR, RandomPolicy, EvalOptions(tasks=12), folder=tmp_path)
    else:
        ended_after(2, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"another protocol \(seed is 0 there, 1 here\)"):
        evaluate(CORRIDOR, RandomPolicy, EvalOptions(tasks=12, seed=1), folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Guess:
    """Goes through doors at random, in tokens of one letter; samples in rounds."""

    pacing = "rounds"
    version = 0
    max_context = 10_000

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        self.batches.append([request.session for request in requests])
        # As of a model in this process, the draw depends on what else is in the batch.
        together = "".join(self.batches[-1])
        draws = (random.Random(f"{request.seed}:{together}") for request in requests)
        words = (draw.choice(["red", "blue", "green", "back"]) for draw in draws)
        return [Sample((*map(ord, w), 0), (0.0,) * (len(w) + 1), None, "stop", 0) for w in words]

    async def score(self, ids: object, start: object) -> list[list[float]]:
        raise NotImplementedError

    def load(self, path: str, version: int) -> None:
        raise NotImplementedError

    def fork(self, session: str, copy: str) -> None:
        raise NotImplementedError

    def drop(self, session: str) -> None:
        pass

    def close(self) -> None:
        pass


def guess(letters: Any, fewer: int | None = None) -> Model:
    """Return a model that guesses, and ends the evaluation after some episodes."""
    prompt = load_prompt("corridor", "plain", "full")
    model = Model("guess", Guess(), Script(prompt, letters), SamplingOptions(max_tokens=20))
    if fewer is not None:
        play, started = model.policy.sample, set()

        async def sample(requests: Sequence[Request]) -> list[Sample]:
            started.update(request.session for request in requests)
            if len(started) > fewer:
                raise KeyboardInterrupt
            return await play(requests)

        model.policy.sample = sample
    return model


def test_a_model_in_rounds_goes_on_with_whole_batches(letters: Any, tmp_path: Path) -> None:
    options = EvalOptions(tasks=12, at_once=4)
    unbroken = evaluate_model(CORRIDOR, guess(letters), options)
    assert unbroken.protocol.batch == 4
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(CORRIDOR, guess(letters, fewer=8), options, folder=tmp_path)
    kept = (tmp_path / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    assert len(kept) == 8
    (tmp_path / "episodes.jsonl").write_bytes(b"".join(kept[:-1]))  # a batch that was cut off
    model = guess(letters)
    assert evaluate_model(CORRIDOR, model, options, folder=tmp_path) == unbroken
    tasks = CorridorEnv("corridor/test").suite.tasks
    asked = {session.split(":")[2] for batch in model.policy.batches for session in batch}
    assert asked == set(tasks[4:12])  # of the first batch nothing was asked again


KILLED = """
from pathlib import Path
from agentgym.evaluate import EvalOptions, Model, evaluate, evaluate_model
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import load_prompt
from agentgym.policies.scripted import RandomPolicy
from agentgym.types import EnvSpec
spec = EnvSpec("corridor", {"suite": "corridor/test"})
evaluate(spec, RandomPolicy, EvalOptions(samples=SAMPLES), folder=Path(FOLDER))
"""


def test_an_evaluation_killed_at_random_moments_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    samples, draw = 6, random.Random(0)
    script = KILLED.replace("SAMPLES", str(samples)).replace("FOLDER", repr(str(tmp_path / "k")))
    journal = tmp_path / "k" / "episodes.jsonl"
    size = 0
    for _ in range(2):
        size += draw.randrange(1, 60_000)  # of some 150,000 bytes
        running = subprocess.Popen([sys.executable, "-c", script])
        while running.poll() is None and (not journal.exists() or journal.stat().st_size < size):
            time.sleep(0.0005)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        size = journal.stat().st_size
    subprocess.run([sys.executable, "-c", script], check=True)
    evaluate(CORRIDOR, RandomPolicy, EvalOptions(samples=samples), folder=tmp_path / "unbroken")
    for name in ("results.json", "trajectories.jsonl.gz"):
        killed, unbroken = (tmp_path / folder / name for folder in ("k", "unbroken"))
        assert killed.read_bytes() == unbroken.read_bytes()


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
