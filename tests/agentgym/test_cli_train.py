"""``agentgym train``: which settings it takes, and what it refuses."""

from pathlib import Path

import pytest

from agentgym.cli_train import show_outcome
from agentgym.evaluate import EvalOptions, evaluate
from agentgym.policies.scripted import ExpertPolicy, RandomPolicy
from agentgym.train import Outcome
from agentgym.types import EnvSpec


def test_an_environment_and_a_method_are_enough_and_what_was_taken_is_said(agentgym) -> None:
    code, out, _ = agentgym("train", "--env", "alfworld", "--method", "epo", "--dry-run")
    assert code == 0
    assert "recipe: laptop" in out
    assert "model: alfworld-tiny; --model takes" in out
    assert "games: generated ones" in out
    assert "would train alfworld-tiny by epo for" in out


@pytest.mark.parametrize(("env", "named"), [("alfworld", True), ("webshop", False)])
def test_a_recipe_is_recommended_only_where_there_is_one(agentgym, env: str, named: bool) -> None:
    code, out, _ = agentgym("train", "--env", env, "--dry-run")
    assert code == 0
    assert ("--recipe paper" in out) == named


def test_flags_and_settings_overrule_the_recipe(agentgym) -> None:
    given = ("--env", "alfworld", "--method", "grpo", "--steps", 7, "--set", "optim.lr=0.5")
    code, out, _ = agentgym("train", *given, "--dry-run")
    assert code == 0
    assert "steps = 7" in out
    assert "lr = 0.5" in out
    assert "by grpo for 7 steps" in out


def test_workers_are_of_each_environment_of_a_mix(agentgym) -> None:
    given = ("--env", "alfworld,webshop", "--workers", "ray:3", "--set", "mix.webshop.share=2")
    code, out, _ = agentgym("train", *given, "--dry-run")
    assert code == 0
    assert out.count('workers = "ray:3"') == 2
    assert "share = 2.0" in out
    assert "would train alfworld-tiny by epo for 50 steps of 64 episodes on 6719 tasks" in out


def test_a_recipe_may_leave_the_method_to_its_default(agentgym, tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[env]\nsuite = "corridor/train"\n[eval]\nsuite = "corridor/test"\n'
        "[policy.sampling]\nmax_context = 2048\nmax_tokens = 16\n"
    )
    code, out, _ = agentgym("train", "--recipe", recipe, "--dry-run")
    assert code == 0
    assert "method grpo on corridor/train, run folder runs" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "epo"], "say what to train in"),
        (["--env", "alfworld", "--method", "epoo"], "did you mean epo"),
        (["--env", "alfworld", "--method", "epo:publshed"], "preset of epo"),
        (["--env", "alfworld", "--set", "optim.lrr=1"], "did you mean optim.lr"),
        (["--env", "alfworld", "--workers", "rays:2"], "workers is 'rays:2'; expected how many"),
        (["--env", "alfworld,alfworld"], "each environment once"),
        (["--env", "alfworld,webshp"], "did you mean webshop"),
        (["--env", "alfworld", "--set", "method.alpah=1"], "did you mean alpha"),
        (["--env", "alfworld", "--method", "epo", "--set", "method.base=grp"], "did you mean grpo"),
        (["--env", "alfworld", "--method", "empg:released"], "no official code was released"),
        (["--env", "alfworld", "--method", "brake.py"], "no such file"),
        (
            ["--env", "alfworld", "--method", "igpo"],
            "the hook turn_rewards of igpo needs ANSWER_SCORES",
        ),
        (
            ["--env", "alfworld", "--method", "epo", "--set", "rollout.group_size=1"],
            "the hook advantages of grpo needs GROUPS",
        ),
        (["--env", "alfworld", "--method", "aepo", "--set", "method.initial=9"], "initial is 9"),
        (["--env", "alfworld", "--set", "env.suite=alfworld/gen-unseen"], "is held out"),
        (["--resume", "runs/x", "--steps", "3"], "leave out --steps"),
        (["--resume", "no/run"], "holds no run to resume"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_bad_usage(
    agentgym, arguments: list[str], said: str
) -> None:
    code, _, err = agentgym("train", *arguments, "--dry-run")
    assert code == 2
    assert said in err


def test_the_outcome_shows_before_and_after_side_by_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = EnvSpec("corridor", {"suite": "corridor/test"})
    before, after = (evaluate(spec, p, EvalOptions(tasks=8)) for p in (RandomPolicy, ExpertPolicy))
    show_outcome(Outcome(before, after))
    out = capsys.readouterr().out
    rate = before.summary.success.value
    (line,) = [line for line in out.splitlines() if line.strip().startswith("all")]
    assert line.split() == ["all", "8", f"{rate:.3f}", "1.000", f"{1 - rate:+.3f}"]
    assert "held out: 8 tasks of corridor/test" in out
