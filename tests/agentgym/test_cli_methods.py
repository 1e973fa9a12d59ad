"""``agentgym methods``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_the_list_has_every_method_with_what_it_stands_on(agentgym: Run) -> None:
    said = agentgym("methods", "list").out
    row = next(line for line in said.splitlines() if line.startswith("epo "))
    assert "grpo, ppo" in row
    assert "released" in row
    assert "prepare, loss, observe" in row
    assert any(line.startswith("sft ") for line in said.splitlines())


def test_a_method_is_explained_with_its_equation_and_every_default(agentgym: Run) -> None:
    said = agentgym("methods", "explain", "epo").out
    assert "L_base - lambda" in said
    assert "needs: entropy gradient" in said
    assert "kappa_high" in said
    assert "epo:restoring" in said


def test_cloning_is_explained_too(agentgym: Run) -> None:
    said = agentgym("methods", "explain", "sft").out
    assert "mean over the demonstrator's tokens of log p" in said
    assert "sft.observation_weight  0.3" in said


def test_a_preset_is_explained_with_what_it_changes(agentgym: Run) -> None:
    said = agentgym("methods", "explain", "epo:restoring").out
    assert "alpha                2.0 (preset)" in said


def test_an_unknown_method_is_answered_with_the_nearest(agentgym: Run) -> None:
    ran = agentgym("methods", "explain", "eop")
    assert ran.code == 2
    assert "did you mean epo" in ran.err


def test_a_preset_that_cannot_be_is_answered_with_the_reason(agentgym: Run) -> None:
    ran = agentgym("methods", "explain", "empg:released")
    assert ran.code == 2
    assert "no official code was released" in ran.err


def test_a_method_in_a_file_is_explained_as_any_other(agentgym: Run, tmp_path: Path) -> None:
    path = tmp_path / "quiet.py"
    path.write_text(
        '"""Says nothing."""\n'
        "from agentgym.trainers.method import Method, Options\n"
        "class Quiet(Method[Options]):\n"
        '    name, summary = "quiet", "says nothing"\n'
    )
    said = agentgym("methods", "explain", path).out
    assert f"{path} (method)\n\nSays nothing." in said
    assert "hooks: none" in said
