"""A whole run on the corridor with a model of random weights: what is kept, resumed, refused."""

import gzip
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from agentgym.config import Config, load
from agentgym.envs.base import Outcome as EnvOutcome
from agentgym.envs.corridor import WORDS, CorridorEnv
from agentgym.errors import CollapseError, DataError, UsageError
from agentgym.policies.hf import HFPolicy
from agentgym.policies.prompt import load_prompt
from agentgym.train import Reporter, dry_run, interrupts, resumed_config, run_training
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer

QUIET = Reporter(lambda _: None, lambda _: None)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder for the corridor, with random weights."""
    folder = tmp_path_factory.mktemp("models") / "random"
    tokenizer = train_tokenizer([" ".join(WORDS)] * 10, 300)
    shape = Shape(hidden=32, layers=1, intermediate=64, context=256)
    fresh_model(tokenizer, shape, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    load_prompt("corridor", "plain", "full").save(folder)
    return folder


@pytest.fixture
def config(model: Path) -> Config:
    return load([settings(model)])


def settings(model: Path) -> dict[str, object]:
    return {
        "steps": 3,
        "env": {"suite": "corridor/train", "max_turns": 3},
        "policy": {
            "model": str(model),
            "template": "plain",
            "sampling": {"max_tokens": 3, "max_context": 128},
        },
        "rollout": {"tasks_per_step": 2, "group_size": 3},
        # Format penalties give the random model groups with a signal.
        "reward": {"format_penalty": 0.5},
        "method": {"name": "epo"},
        "optim": {"lr": 1e-3},
        "eval": {"suite": "corridor/test", "tasks": 3},
        "save": {"every": 1, "trajectories_every": 1},
    }


def without_times(metrics: Mapping[str, float]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if not k.startswith(("time/", "perf/"))}


def lines(folder: Path) -> list[dict[str, float]]:
    text = (folder / "metrics.jsonl").read_text()
    return [without_times(json.loads(line)) for line in text.splitlines()]


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    checkpoint = folder / "checkpoints" / f"step_{step:06d}"
    return load_file(checkpoint / "hf" / "model.safetensors")


def assert_the_same_run(left: Path, right: Path, step: int = 3) -> None:
    assert lines(left) == lines(right)
    ours, theirs = weights(left, step), weights(right, step)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for folder in ("trajectories", "eval"):
        names = [sorted(p.name for p in (run / folder).iterdir()) for run in (left, right)]
        assert names[0] == names[1]
    for path in (left / "trajectories").iterdir():
        assert path.read_bytes() == (right / "trajectories" / path.name).read_bytes()


@pytest.fixture(scope="session")
def unbroken(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    run_training(load([settings(model)]), folder, QUIET, resume=False)
    return folder


def test_a_run_keeps_what_it_measured_and_where_it_got_to(unbroken: Path) -> None:
    metrics = lines(unbroken)
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert "eval/corridor/test/success_rate" in metrics[-1]
    assert metrics[0]["rollout/logprob_abs_diff_max"] < 1e-5
    assert metrics[0]["optim/grad_norm"] > 0
    assert sorted(p.name for p in (unbroken / "eval").iterdir()) == ["step_000000", "step_000003"]
    assert len(list((unbroken / "trajectories").iterdir())) == 3
    assert load([tomllib.loads((unbroken / "config.toml").read_text())]).steps == 3


def test_the_episodes_of_an_evaluation_are_kept_whole_beside_its_results(unbroken: Path) -> None:
    folder = unbroken / "eval" / "step_000003"
    with gzip.open(folder / "trajectories.jsonl.gz", "rt") as stream:
        episodes = [json.loads(line) for line in stream]
    results = json.loads((folder / "results.json").read_text())
    assert [e["task"] for e in episodes] == [e["task"] for e in results["episodes"]]
    assert sum(e["won"] for e in episodes) == results["summary"]["success"]["won"]
    assert all(e["turns"][0]["observation"] for e in episodes)


def test_a_rollout_is_divided_into_generation_and_environments(unbroken: Path) -> None:
    for line in (unbroken / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        parts = metrics["time/generate"] + metrics["time/env"]
        assert parts == pytest.approx(metrics["time/rollout"])
        assert min(metrics["time/generate"], metrics["time/env"], metrics["time/sync"]) > 0


def test_the_same_seed_gives_the_same_run(config: Config, unbroken: Path, tmp_path: Path) -> None:
    run_training(config, tmp_path / "again", QUIET, resume=False)
    assert_the_same_run(unbroken, tmp_path / "again")


def test_a_run_that_died_between_steps_goes_on_as_if_it_had_not(
    config: Config, unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"

    class Died(Exception):  # noqa: N818 (what happens to a process)
        pass

    def die(metrics: Mapping[str, float]) -> None:
        if metrics["step"] == 2:
            raise Died

    with pytest.raises(Died):
        run_training(config, folder, Reporter(lambda _: None, die), resume=False)
    # A line later than the checkpoint, as a run that died before it could save leaves behind.
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "reward/mean": 99}\n')
    run_training(resumed_config(folder), folder, QUIET, resume=True)
    assert_the_same_run(unbroken, folder)


def assert_a_resumed_run_is_the_unbroken_one(config: Config, folder: Path) -> None:
    """Run two steps, then the second once more from the checkpoint of the first."""
    whole, resumed = folder / "whole", folder / "resumed"
    run_training(config, whole, QUIET, resume=False)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_000002")
    (resumed / "checkpoints" / "latest").write_text("step_000001")
    run_training(resumed_config(resumed), resumed, QUIET, resume=True)
    assert_the_same_run(whole, resumed, step=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"name": "epo", "base": "ppo", "kl_coef": 0.1}},
        {"policy": {"lora": {"rank": 2}}, "method": {"name": "ppo", "kl_coef": 0.1}},
        {"policy": {"dtype": "bfloat16"}, "optim": {"gradient_checkpointing": True}},
        {"method": {"name": "igpo:curriculum"}},
    ],
    ids=["critic", "lora", "bfloat16", "answer scores"],
)
def test_with_all_that_a_learner_may_have_a_resumed_run_is_the_unbroken_one(
    changes: dict[str, object], model: Path, tmp_path: Path
) -> None:
    config = load([settings(model), {"steps": 2, "eval": {"tasks": 1}}, changes])
    assert_a_resumed_run_is_the_unbroken_one(config, tmp_path)


def test_a_run_that_branches_goes_on_as_if_it_had_not_stopped(model: Path, tmp_path: Path) -> None:
    # The entropies of a random model hardly change: let any change do, runs of branchings too.
    aepo = {"name": "aepo", "alpha": 1.0}
    changes = {"steps": 2, "eval": {"tasks": 1}, "rollout": {"group_size": 4}, "method": aepo}
    assert_a_resumed_run_is_the_unbroken_one(load([settings(model), changes]), tmp_path)
    for metrics in lines(tmp_path / "resumed"):
        assert metrics["tree/branches"] > 0
        assert metrics["tree/fresh"] + metrics["tree/branches"] == 2 * 4
        assert metrics["aepo/factor_max"] > 1


def test_what_was_remembered_before_a_run_stopped_is_replayed_after_it(
    model: Path, tmp_path: Path
) -> None:
    spear = {
        "name": "spear",
        "warmup_steps": 1,
        "buffer_size": 1,
        "filters": [],  # a random model follows no format
        "clip_cov_ratio": 0.5,
        "clip_cov_low": -99.0,
    }
    changes = {"steps": 2, "eval": {"tasks": 1}, "method": spear}
    assert_a_resumed_run_is_the_unbroken_one(load([settings(model), changes]), tmp_path)
    first, second = lines(tmp_path / "resumed")
    assert "replay/loss/policy" not in first
    assert second["spear/replayed"] == 1
    assert second["replay/optim/grad_norm"] > 0
    assert second["spear/chosen"] > 0
    assert second["optim/updates"] == 3


@pytest.mark.parametrize("answer", ["environment", "expert"])
@pytest.mark.parametrize("context", ["full", "window(1)"])
def test_learner_and_sampler_score_answers_alike_in_every_context(
    answer: str, context: str, model: Path, tmp_path: Path
) -> None:
    if context != "full":  # a model that carries no prompt reads in any context
        shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("prompt.json"))
        model = tmp_path / "bare"
    gains = []
    for scored_by in ("learner", "sampler"):
        changes = {
            "steps": 1,
            "eval": {"tasks": 1},
            "env": {"max_turns": 5},
            "policy": {"context": context},
            "method": {"name": "igpo", "answer": answer, "scored_by": scored_by},
        }
        run_training(load([settings(model), changes]), tmp_path / scored_by, QUIET, resume=False)
        (metrics,) = lines(tmp_path / scored_by)
        # The expert has no plan where turns run out.
        assert metrics["igpo/unscored"] < (1 if answer == "expert" else 1e-9)
        gains.append(metrics["igpo/gain_abs"])
    assert gains[0] > 1e-3
    assert gains[0] == pytest.approx(gains[1], abs=1e-4)


def test_a_run_that_needs_an_answer_does_not_begin_where_there_is_none(
    config: Config, tmp_path: Path
) -> None:
    there = {"suite": "alfworld/gen-train"}
    env = config.env.model_copy(update=there)
    homeless = config.model_copy(update={"env": env, "method": {"name": "igpo"}})
    for begin in (dry_run, partial(run_training, reporter=QUIET)):
        with pytest.raises(UsageError, match="turn_rewards of igpo needs ANSWER_SCORES"):
            begin(homeless, tmp_path / "new", resume=False)
        assert not (tmp_path / "new").exists()


def test_a_run_with_an_adapter_keeps_it_and_merged_weights(model: Path, tmp_path: Path) -> None:
    changes = {"steps": 1, "eval": {"tasks": 1}, "policy": {"lora": {"rank": 2}}}
    run_training(load([settings(model), changes]), tmp_path / "run", QUIET, resume=False)
    checkpoint = tmp_path / "run" / "checkpoints" / "step_000001"
    assert (checkpoint / "adapter" / "adapter_config.json").is_file()
    began, ended = HFPolicy.from_pretrained(model), HFPolicy.from_pretrained(checkpoint / "hf")
    began_with, ended_with = began.model.state_dict(), ended.model.state_dict()
    assert began_with.keys() == ended_with.keys()
    changed = {n for n in began_with if not torch.equal(began_with[n], ended_with[n])}
    assert changed
    assert all("_proj" in name for name in changed)
    assert ended.prompt == began.prompt


def test_a_run_killed_at_any_moment_goes_on_as_if_it_had_not(
    model: Path, unbroken: Path, tmp_path: Path
) -> None:
    folder, recipe = tmp_path / "killed", tmp_path / "recipe.toml"
    recipe.write_text(load([settings(model)]).to_toml())
    command = [sys.executable, "-m", "agentgym", "train"]
    process = subprocess.Popen(
        [*command, "--recipe", str(recipe), "--output", str(folder)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    deadline = time.monotonic() + 60
    while not (folder / "checkpoints" / "latest").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if len(lines(folder)) < 3 or not (folder / "checkpoints" / "step_000003").exists():
        run_training(resumed_config(folder), folder, QUIET, resume=True)
    assert_the_same_run(unbroken, folder)


def test_an_interrupt_finishes_the_step_and_saves_it(config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "interrupted"
    before = signal.getsignal(signal.SIGINT)

    def interrupt(metrics: Mapping[str, float]) -> None:
        if metrics["step"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(config, folder, Reporter(lambda _: None, interrupt), resume=False)
    latest = (folder / "checkpoints" / "latest").read_text().strip()
    assert latest == f"step_{len(lines(folder)):06d}"
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_comes_late_in_a_step_loses_no_step(
    config: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "late"
    rarely = config.model_copy(
        update={"save": config.save.model_copy(update={"every": 10}), "steps": 5}
    )

    def interrupt(metrics: Mapping[str, float]) -> None:
        if metrics["step"] == 1:  # all of the step is done, and it was not saved
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(rarely, folder, Reporter(lambda _: None, interrupt), resume=False)
    latest = (folder / "checkpoints" / "latest").read_text().strip()
    assert latest == f"step_{len(lines(folder)):06d}"


def test_a_reward_that_is_no_number_breaks_its_episode_and_the_run_says_so_and_goes_on(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, calls = CorridorEnv.act, itertools.count()

    def act_badly(env: CorridorEnv, action: str) -> EnvOutcome:
        spoilt = env.suite.name == "corridor/train" and next(calls) == 4  # of the first step's six
        return act(env, action)._replace(**{"reward": math.nan} if spoilt else {})

    said: list[str] = []
    monkeypatch.setattr(CorridorEnv, "act", act_badly)
    run_training(config, tmp_path / "run", Reporter(said.append, lambda _: None), resume=False)
    (warning,) = [line for line in said if "broke" in line]
    assert warning.startswith("step 1: an episode broke, in task train-")
    assert "the reward 'environment' of turn 0 is nan; expected a finite number" in warning
    assert [line["rollout/errors"] for line in lines(tmp_path / "run")] == [1, 0, 0]
    assert all(line["optim/updates"] == line["step"] for line in lines(tmp_path / "run"))


GUIDE = Path(__file__).parents[2] / "docs" / "add-a-method.md"


def test_the_method_of_the_guide_is_taken_from_its_file_and_acts(
    config: Config, tmp_path: Path
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) < 40
    path = tmp_path / "thermostat.py"
    path.write_text(code)
    method = {"name": str(path), "target": 6.0}  # beyond the entropy of 300 tokens, ln 300 = 5.70
    config = config.model_copy(update={"method": method})
    run_training(config, tmp_path / "run", QUIET, resume=False)
    metrics = lines(tmp_path / "run")
    factors = [line["thermostat/factor"] for line in metrics]
    entropies = [line["actor/entropy"] for line in metrics]
    assert factors[0] == 1
    assert factors[1] == pytest.approx(math.exp(0.1 * (6 - entropies[0])))
    assert factors[2] == pytest.approx(factors[1] * math.exp(0.1 * (6 - entropies[1])))
    for line, factor, entropy in zip(metrics, factors, entropies, strict=True):
        assert line["loss/thermostat"] == pytest.approx(-0.001 * factor * entropy)
    plain = config.model_copy(update={"method": {"name": "grpo"}})
    run_training(plain, tmp_path / "plain", QUIET, resume=False)
    ours, theirs = weights(tmp_path / "run", 3), weights(tmp_path / "plain", 3)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    assert_goes_on_alike(config, tmp_path / "run", tmp_path / "resumed")


def assert_goes_on_alike(config: Config, whole: Path, cut: Path) -> None:
    """Cut a copy of a run to its second step, and see that it goes on as the whole one did."""
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_000003")
    (cut / "checkpoints" / "latest").write_text("step_000002\n")
    run_training(config, cut, QUIET, resume=True)
    assert_the_same_run(whole, cut)


def test_a_context_without_room_for_a_first_turn_is_said_in_one_line(
    config: Config, tmp_path: Path
) -> None:
    narrow = config.policy.sampling.model_copy(update={"max_context": 8, "max_tokens": 7})
    cramped = config.model_copy(
        update={"policy": config.policy.model_copy(update={"sampling": narrow})}
    )
    with pytest.raises(UsageError, match="no episode had room for a first turn of 7 tokens"):
        run_training(cramped, tmp_path / "cramped", QUIET, resume=False)


def test_a_run_says_which_suites_it_saw(unbroken: Path) -> None:
    suites = json.loads((unbroken / "env.json").read_text())["suites"]
    assert set(suites) == {"corridor/train", "corridor/test"}
    assert all(len(digest) == 64 for digest in suites.values())


def test_a_folder_that_holds_a_run_is_left_alone(config: Config, unbroken: Path) -> None:
    before = (unbroken / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        run_training(config, unbroken, QUIET, resume=False)
    assert (unbroken / "metrics.jsonl").read_bytes() == before


def test_a_run_that_is_done_is_not_resumed(unbroken: Path) -> None:
    with pytest.raises(UsageError, match="is done: 3 of 3 steps"):
        resumed_config(unbroken)


def test_a_resumed_run_does_not_measure_trained_weights_as_untrained(
    config: Config, unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(unbroken, folder)
    shutil.rmtree(folder / "eval" / "step_000000")
    with pytest.raises(DataError, match="before the first step"):
        run_training(config.model_copy(update={"steps": 9}), folder, QUIET, resume=True)


def test_a_run_of_behaviour_cloning_says_how_it_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("steps = 3\n[sft]\n")
    with pytest.raises(UsageError, match="resume it with --method sft"):
        resumed_config(tmp_path)


def test_a_run_of_a_version_with_other_settings_says_which_file_and_which_setting(
    config: Config, tmp_path: Path
) -> None:
    text = config.to_toml().replace("[rollout]", "[rollout]\nfuture = 3")
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UsageError, match=r"config\.toml: unknown setting 'rollout\.future'"):
        resumed_config(tmp_path)


def test_a_checkpoint_of_another_method_is_refused(
    config: Config, unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(unbroken, folder)
    other = config.model_copy(update={"method": {"name": "grpo"}, "steps": 9})
    with pytest.raises(UsageError, match="is of method epo, this run is grpo"):
        run_training(other, folder, QUIET, resume=True)


def test_what_cannot_start_leaves_no_folder_behind(config: Config, tmp_path: Path) -> None:
    wrong = [
        {"policy": config.policy.model_copy(update={"model": "no-such-model"})},
        {"policy": config.policy.model_copy(update={"context": "window(2)"})},
        {"method": {"name": "epoo"}},
        {"rollout": config.rollout.model_copy(update={"group_size": 1})},
        {"env": config.env.model_copy(update={"task_types": ("9 rooms",)})},
        {"env": config.env.model_copy(update={"suite": "corridor/test"})},  # held out
        {"eval": config.eval.model_copy(update={"suite": "corridor/tset"})},
        {"eval": config.eval.model_copy(update={"task_types": ("9 rooms",)})},
        {
            "policy": config.policy.model_copy(
                update={"sampling": config.policy.sampling.model_copy(update={"max_context": 9999})}
            )
        },
    ]
    for change in wrong:
        with pytest.raises(UsageError):
            run_training(config.model_copy(update=change), tmp_path / "new", QUIET, resume=False)
        assert not (tmp_path / "new").exists()


def test_a_dry_run_says_what_would_happen_and_does_nothing(config: Config, tmp_path: Path) -> None:
    said = dry_run(config, tmp_path / "new", resume=False)
    assert any("for 3 steps of 6 episodes on 256 tasks" in line for line in said)
    assert not (tmp_path / "new").exists()


# The guard ----------------------------------------------------------------------------------------


ALWAYS: dict[str, object] = {"drift": 1e-12, "patience": 1, "no_signal": 0.0, "baseline": 9}
"""No two passes agree so well, and nothing else is watched."""


def guarded(model: Path, **options: object) -> Config:
    return load([settings(model), {"guard": {**ALWAYS, **options}}])


def test_a_guard_that_only_warns_changes_nothing(
    model: Path, unbroken: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    reporter = Reporter(said.append, lambda _: None)
    run_training(guarded(model), tmp_path / "run", reporter, resume=False)
    alarms = [line for line in said if line.startswith("collapse? ")]
    assert len(alarms) == 1
    assert alarms[0].startswith("collapse? step 1: sampler and trainer drift apart: rollout/")
    first, *others = lines(tmp_path / "run")
    assert first.pop("guard/drift") == 1.0
    assert [first, *others] == lines(unbroken)
    ours, theirs = weights(tmp_path / "run", 3), weights(unbroken, 3)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_guard_ends_a_run_that_can_be_gone_on_with(
    model: Path, unbroken: Path, tmp_path: Path
) -> None:
    rarely = guarded(model, on_collapse="stop").model_copy(
        update={"save": load([settings(model)]).save.model_copy(update={"every": 9})}
    )
    with pytest.raises(CollapseError, match="step 1: sampler and trainer drift apart"):
        run_training(rarely, tmp_path / "run", QUIET, resume=False)
    assert [line["step"] for line in lines(tmp_path / "run")] == [1]
    run_training(resumed_config(tmp_path / "run"), tmp_path / "run", QUIET, resume=True)
    ours, theirs = weights(tmp_path / "run", 3), weights(unbroken, 3)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_guard_lowers_the_learning_rate_also_of_a_run_that_goes_on(
    model: Path, unbroken: Path, tmp_path: Path
) -> None:
    config = guarded(model, on_collapse="lower-lr", lr_factor=0.5)
    run_training(config, tmp_path / "whole", QUIET, resume=False)
    rates = [line["optim/lr"] for line in lines(tmp_path / "whole")]
    first, *others = (line["optim/lr"] for line in lines(unbroken))
    assert rates == [first, *(0.5 * rate for rate in others)]

    def interrupt(metrics: Mapping[str, float]) -> None:
        if metrics["step"] == 1:  # before its checkpoint counts as interrupted: in the next step
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(config, tmp_path / "cut", Reporter(lambda _: None, interrupt), resume=False)
    run_training(resumed_config(tmp_path / "cut"), tmp_path / "cut", QUIET, resume=True)
    assert_the_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_run_tells_what_begins(model: Path, tmp_path: Path) -> None:
    told: list[str] = []
    one = load([settings(model), {"steps": 1}])
    reporter = Reporter(lambda _: None, lambda _: None, told.append)
    run_training(one, tmp_path / "run", reporter, resume=False)
    assert told == ["eval", "step", "sync", "rollout", "score", "update", "eval", "save"]


def test_a_run_that_stands_still_is_told_where(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CorridorEnv.act
    slow = iter([0.6])

    def act(env: CorridorEnv, action: str) -> EnvOutcome:
        time.sleep(next(slow, 0.0))
        return real(env, action)

    said: list[str] = []
    config = load([settings(model), {"steps": 1, "guard": {"stall_after": 0.2}}])
    monkeypatch.setattr(CorridorEnv, "act", act)
    run_training(config, tmp_path / "run", Reporter(said.append, lambda _: None), resume=False)
    stood = [line for line in said if line.startswith("nothing has advanced for ")]
    assert "in the stage 'eval'" in stood[0]
    assert "(agentgym/" in stood[0]
    assert any(line.startswith("it goes on, after ") for line in said)


def test_tokens_of_a_run_carry_their_text(unbroken: Path) -> None:
    path = unbroken / "trajectories" / "step_000001.jsonl.gz"
    first = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    (row,) = first["rows"]
    said = "".join(row["text"])
    assert said.startswith(first["turns"][0]["text"])
    assert len(row["text"]) == len(row["ids"])


def test_trackers_are_told_each_step(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Mapping[str, float]] = []
    asked: list[object] = []

    @contextmanager
    def tracking(names: object, folder: Path, config: Mapping[str, object]) -> Iterator[object]:
        asked.extend((names, folder.name, config["steps"]))
        yield told.append

    monkeypatch.setattr("agentgym.train.tracking", tracking)
    config = load([settings(model), {"steps": 2, "trackers": ["tensorboard"]}])
    run_training(config, tmp_path / "run", QUIET, resume=False)
    assert asked == [("tensorboard",), "run", 2]
    assert [without_times(metrics) for metrics in told] == lines(tmp_path / "run")


def test_of_many_processes_a_signal_that_is_passed_on_to_each_again_is_one_interrupt() -> None:
    with interrupts(lambda _: None, twice_s=600) as interrupted:
        assert not interrupted()
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert interrupted()
    with interrupts(lambda _: None) as interrupted:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
