"""``agentgym train --method sft``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentgym.cli import app
from agentgym.errors import UsageError

SMALL = (
    'steps = 2\nvocabulary = 300\nmodel = "alfworld-tiny"\n[env]\nsuite = "alfworld/gen-train"\n'
    "max_turns = 10\n[sft]\ntokens_per_step = 300\n[save]\nevery = 1\n"
)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["train", "--method", "sft", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_a_run_is_shown_and_resumed(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said = run("--recipe", str(recipe), "--steps", "1", "-o", str(folder))
    assert "step 1/1  loss" in said
    assert (folder / "checkpoints/step_000001/hf/prompt.json").exists()
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("steps = 1\n", "steps = 2\n"))
    assert "step 2/2  loss" in run("--resume", str(folder))


def test_a_run_folder_that_is_there_is_not_written_over(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("")
    with pytest.raises(UsageError, match="already holds a run"):
        run("--recipe", str(recipe), "-o", str(tmp_path / "run"))
    assert (tmp_path / "run" / "config.toml").read_text() == ""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Demonstrations that a person saved while playing."""
    path = tmp_path / "demonstrations.jsonl"
    for task in ("train-000", "train-001", "train-002"):
        script = f":expert 9\n:save {path}\n"
        words = ["play", "--suite", "corridor/train", "--task", task]
        assert CliRunner().invoke(app, words, input=script).exit_code == 0
    return path


def test_what_was_saved_while_playing_is_learnt(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = (f"demonstrations={saved}", "vocabulary=300", "sft.tokens_per_step=200",
                "optim.lr=0.01", "shape.hidden=32", "shape.layers=1")  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    said = run("--env", "corridor", "--steps", "12", *words, "-o", str(folder))
    assert f"3 demonstrations of {saved}" in said
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["sft/action_loss"] < steps[0]["sft/action_loss"] / 2
    assert (folder / "checkpoints/step_000012/hf/prompt.json").exists()


def test_demonstrations_that_do_not_fit_are_refused(saved: Path, tmp_path: Path) -> None:
    given = ("--set", f"demonstrations={saved}", "-o", str(tmp_path / "run"))
    with pytest.raises(UsageError, match=r"is of corridor, and the suite is alfworld/gen-train"):
        run("--env", "alfworld", *given)
    with pytest.raises(UsageError, match="raise max_tokens"):
        run("--env", "corridor", *given, "--set", "max_tokens=5", "--set", "vocabulary=300")


def test_a_dry_run_makes_nothing(recipe: Path, tmp_path: Path) -> None:
    said = run("--recipe", str(recipe), "--dry-run", "-o", str(tmp_path / "run"))
    assert "would take 2 steps of 300 tokens" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--env alfworld, or --recipe"),
        (("--env", "corridor"), "unknown environment with a demonstrator"),
        (("--env", "alfworld", "--set", "optim.lx=1"), "setting optim.lx"),
        (("--env", "alfworld", "--set", "env.suite=alfworld/gen-seen"), "held out"),
        (("--resume", "somewhere", "--steps", "3"), "leave out --steps"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(*arguments)
