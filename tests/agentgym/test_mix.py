"""A run in two environments: what each gets, what is kept and resumed, what is refused."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pyarrow.parquet import read_table
from safetensors.torch import load_file
from torch import equal

from agentgym.config import Config, load, mixed, read_recipe
from agentgym.envs.corridor import WORDS
from agentgym.errors import UsageError
from agentgym.export import Wanted, export_messages
from agentgym.models import prompt_of
from agentgym.policies.prompt import load_prompt
from agentgym.run_envs import env_spec
from agentgym.run_files import open_run
from agentgym.train import Reporter, dry_run, resumed_config, run_training
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer
from agentgym.types import View

QUIET = Reporter(lambda _: None, lambda _: None)
SUITES = ["corridor/test", "alfworld/gen-unseen"]


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, object]:
    """A short run of a model of random weights that was made for the corridor."""
    folder = tmp_path_factory.mktemp("models") / "random"
    tokenizer = train_tokenizer([" ".join(WORDS)] * 10, 300)
    shape = Shape(hidden=32, layers=1, intermediate=64, context=2048)
    fresh_model(tokenizer, shape, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    load_prompt("corridor", "plain", "full").save(folder)
    return {
        "steps": 2,
        "mix": {
            "corridor": {"suite": "corridor/train", "max_turns": 3, "share": 2},
            "alfworld": {"suite": "alfworld/gen-train", "max_turns": 2},
        },
        "policy": {
            "model": str(folder),
            "template": "plain",
            "sampling": {"max_tokens": 3, "max_context": 2048},
        },
        "rollout": {"tasks_per_step": 3, "group_size": 2},
        "reward": {"format_penalty": 0.5},
        "method": {"name": "grpo"},
        "optim": {"lr": 1e-3},
        "eval": {"suite": SUITES, "tasks": 2},
        "save": {"every": 1, "trajectories_every": 1},
    }


@pytest.fixture
def config(settings: Mapping[str, object]) -> Config:
    return load([settings])


@pytest.fixture(scope="session")
def unbroken(settings: Mapping[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    outcomes = run_training(load([settings]), folder, QUIET, resume=False)
    assert [one.after.protocol.suite for one in outcomes] == SUITES
    return folder


def measured(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in one.items() if not k.startswith(("time/", "perf/"))} for one in lines]


def trajectories(folder: Path, step: int) -> list[dict[str, object]]:
    with gzip.open(folder / f"trajectories/step_{step:06d}.jsonl.gz", "rt") as stream:
        return [json.loads(line) for line in stream]


def test_each_environment_gets_its_share_of_groups_and_has_its_own_limit(unbroken: Path) -> None:
    for step in (1, 2):
        played = trajectories(unbroken, step)
        of = {t["task"]: t["suite"] for t in played}
        assert sorted(of.values()) == ["alfworld/gen-train", "corridor/train", "corridor/train"]
        assert len(played) == 6  # groups of two
        assert all(len(t["turns"]) == 2 for t in played if t["suite"] == "alfworld/gen-train")
        assert any(len(t["turns"]) == 3 for t in played if t["suite"] == "corridor/train")


def test_a_step_is_measured_in_all_and_by_environment(unbroken: Path) -> None:
    line = measured(unbroken)[0]
    for name in ("success_rate", "score", "turns", "valid_action_rate", "admissible_rate"):
        both = [line[f"episode/{env}/{name}"] for env in ("alfworld", "corridor")]
        assert min(both) <= line[f"episode/{name}"] <= max(both)
    assert line["episode/alfworld/turns"] == 2
    rewards = [line[f"reward/{env}/mean"] for env in ("corridor", "alfworld")]
    assert line["reward/mean"] == pytest.approx((2 * rewards[0] + rewards[1]) / 3)
    silent = [line[f"group/{env}/frac_zero_std"] for env in ("corridor", "alfworld")]
    assert line["group/frac_zero_std"] == pytest.approx((2 * silent[0] + silent[1]) / 3)
    assert (line["rollout/corridor/errors"], line["rollout/alfworld/errors"]) == (0, 0)


def test_held_out_results_are_kept_by_suite(unbroken: Path) -> None:
    last = measured(unbroken)[-1]
    for suite in SUITES:
        for step in (0, 2):
            folder = unbroken / "eval" / f"step_{step:06d}" / suite
            results = json.loads((folder / "results.json").read_text())
            assert (results["protocol"]["suite"], results["protocol"]["tasks"]) == (suite, 2)
            assert (folder / "trajectories.jsonl.gz").exists()
        assert last[f"eval/{suite}/success_rate"] == results["summary"]["success"]["value"]
    prompts = {
        json.loads(path.read_text())["protocol"]["prompt"]
        for path in unbroken.glob("eval/step_000002/*/*/results.json")
    }
    words = [load_prompt(env, "plain", "full").digest for env in ("corridor", "alfworld")]
    assert prompts == set(words)


def test_a_mixed_run_that_died_goes_on_as_if_it_had_not(
    config: Config, unbroken: Path, tmp_path: Path
) -> None:
    def die(metrics: Mapping[str, float]) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_training(config, tmp_path / "run", Reporter(lambda _: None, die), resume=False)
    again = resumed_config(tmp_path / "run")
    assert again == config
    run_training(again, tmp_path / "run", QUIET, resume=True)
    assert measured(tmp_path / "run") == measured(unbroken)
    ours, theirs = (
        load_file(run / "checkpoints/step_000002/hf/model.safetensors")
        for run in (tmp_path / "run", unbroken)
    )
    assert all(equal(ours[name], theirs[name]) for name in theirs)
    assert trajectories(tmp_path / "run", 2) == trajectories(unbroken, 2)


def test_a_first_measurement_that_ended_between_two_suites_goes_on(
    config: Config, unbroken: Path, tmp_path: Path
) -> None:
    def die(what: str) -> None:
        if what == "rollout":
            raise RuntimeError("killed")

    reporter = Reporter(lambda _: None, lambda _: None, die)
    with pytest.raises(RuntimeError, match="killed"):
        run_training(config, tmp_path / "run", reporter, resume=False)
    first, second = (tmp_path / "run/eval/step_000000" / suite for suite in SUITES)
    kept = (first / "results.json").stat().st_mtime_ns
    for path in second.iterdir():
        path.unlink()
    run_training(resumed_config(tmp_path / "run"), tmp_path / "run", QUIET, resume=True)
    assert (first / "results.json").stat().st_mtime_ns == kept
    assert measured(tmp_path / "run") == measured(unbroken)


def test_what_would_happen_is_said_of_all_environments(config: Config, tmp_path: Path) -> None:
    told = dry_run(config, tmp_path / "run", resume=False)
    assert "[mix.corridor]" in told
    assert any("episodes on 3856 tasks" in line for line in told)  # 256 and 3,600
    assert any("2 tasks of corridor/test and of alfworld/gen-unseen" in line for line in told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": {"suite": "corridor/train"}}, "one environment, or a mix"),
        ({"mix": {"alfworld": {"suite": "corridor/train"}}}, r"mix.alfworld has the suite corr"),
        ({"mix": {"alfworld": {"share": 0}}}, "mix.alfworld.share = 0"),
        ({"mix": {"alfworld": {"shares": 2}}}, r"unknown setting .*mix.alfworld.shares"),
        ({"eval": {"suite": []}}, "eval.suite"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(
    settings: Mapping[str, object], changes: Mapping[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load([settings, changes])


def test_a_mix_of_one_is_refused(settings: Mapping[str, object]) -> None:
    with pytest.raises(UsageError, match="at least two environments"):
        load([{**settings, "mix": {"corridor": {"suite": "corridor/train"}}}])
    with pytest.raises(UsageError, match=r"env\.suite is missing"):
        load([{"eval": {"suite": "corridor/test"}}])


def test_a_suite_of_an_environment_that_is_not_trained_in_is_refused(config: Config) -> None:
    with pytest.raises(UsageError, match=r"the run mixes corridor, alfworld; add \[mix\.webshop\]"):
        env_spec(config, "webshop/gen-easy-test")


def test_recipes_are_mixed_from_those_of_their_environments() -> None:
    names = ("alfworld", "webshop")
    one, other = (read_recipe(name, "laptop") for name in names)
    both = load([mixed([one, other]), {"mix": {"webshop": {"share": 3}}}])
    assert list(both.envs) == list(names)
    assert [both.share(name) for name in names] == [1, 3]
    assert both.envs["webshop"].max_turns == other["env"]["max_turns"]
    assert both.eval.suites == (one["eval"]["suite"], other["eval"]["suite"])
    assert both.policy.model == "alfworld-tiny"
    assert both.policy.sampling.max_tokens == other["policy"]["sampling"]["max_tokens"]
    assert mixed([one]) == one
    with pytest.raises(UsageError, match="each environment once"):
        mixed([one, one])


def test_a_model_that_knows_one_environments_words_is_told_anothers_in_its_style() -> None:
    saved = load_prompt("alfworld", "plain", "full")
    assert prompt_of("m", saved, "alfworld", "tags", None) is saved
    told = prompt_of("m", saved, "webshop", "tags", None)
    assert told.digest == load_prompt("webshop", "plain", "full").digest
    assert prompt_of("m", saved, "corridor", "tags", None) is saved  # which has no words of its own


def test_a_mixed_run_is_read_with_all_its_suites(unbroken: Path) -> None:
    run = open_run(unbroken)
    assert run.title == "grpo on corridor/train and alfworld/gen-train, seed 0"
    assert not run.problems
    names = [source.name for source in run.sources]
    assert names == [
        *(f"eval/0/{suite}" for suite in sorted(SUITES)),
        "train/1",
        "train/2",
        *(f"eval/2/{suite}" for suite in sorted(SUITES)),
    ]
    assert {f"eval/{suite}/success_rate" for suite in SUITES} <= run.steps[0].keys()


def test_episodes_are_exported_with_the_words_of_their_environment(
    unbroken: Path, tmp_path: Path
) -> None:
    export_messages(open_run(unbroken), tmp_path / "out.parquet", Wanted("train/1"))
    for row in read_table(tmp_path / "out.parquet").to_pylist():
        said = [message["content"] for message in row["messages"]]
        env = row["suite"].partition("/")[0]
        trajectory = next(t for t in trajectories(unbroken, 1) if t["task"] == row["task"])
        view = View(trajectory["turns"][0]["observation"], trajectory["goal"], 0, None, None)
        opening = load_prompt(env, "plain", "full").opening(view)
        assert said[: len(opening)] == [message["content"] for message in opening]
