"""A template file of the user's own, in every command that tells a model something."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import Config, load
from agentgym.errors import UsageError
from agentgym.models import prompt_of
from agentgym.policies.prompt import (
    PLACEHOLDERS,
    Context,
    Prompt,
    Template,
    load_prompt,
    load_template,
    saved_prompt,
)
from agentgym.train import Reporter, run_training
from agentgym.types import View

OWN = """format: plain

=== full.first ===
Mine: {goal} {observation}

=== full.next ===
{observation}
"""
QUIET = Reporter(lambda _: None, lambda _: None)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text(OWN)
    return path


def digest(path: Path) -> str:
    return Prompt(load_template(path), Context.parse("full")).digest


def settings(model: Path, template: Path) -> dict[str, Any]:
    return {
        "steps": 2,
        "env": {"suite": "corridor/train", "max_turns": 2},
        "policy": {
            "model": str(model),
            "template": str(template),
            "sampling": {"max_tokens": 3, "max_context": 250},
        },
        "rollout": {"tasks_per_step": 1, "group_size": 2},
        "eval": {"suite": "corridor/test", "tasks": 1},
        "save": {"every": 1},
    }


def config_of(model: Path, template: Path, **more: Any) -> Config:
    return load([settings(model, template), more])


def test_a_file_takes_the_place_of_what_a_model_was_trained_with(own: Path) -> None:
    saved = load_prompt("corridor", "tags", "full")
    told = prompt_of("m", saved, "corridor", str(own), None)
    view = View("a door", "red", 0, None, None)
    assert told.opening(view)[0]["content"] == "Mine: red a door"
    assert prompt_of("m", None, "alfworld", str(own), "full") == told


@pytest.mark.parametrize(
    "flags", [("--template", "{own}"), ("--set", "policy.template={own}")], ids=["flag", "setting"]
)
def test_training_takes_a_file_and_is_begun_with_its_whole_path(
    agentgym: Any, own: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.chdir(own.parent)
    given = [flag.format(own=own.name) for flag in flags]
    code, out, err = agentgym("train", "--env", "alfworld", *given, "--dry-run")
    assert (code, err) == (0, "")
    assert f'template = "{own}"' in out
    assert "context of alfworld:" in out  # it was read, and the task's first words were put in


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read the template"),
        ("Dear model, please win.", "cannot read 'Dear model, please win.' before the first"),
        ("format: plain\n=== full.first ===\n{goal}", "it has no section full.next"),
        (OWN.replace("{goal}", "{gaol}"), "{gaol} means nothing here; allowed: {actions}, {goal}"),
    ],
    ids=["absent", "no template", "a section short", "a wrong placeholder"],
)
def test_a_file_that_is_no_template_is_said_in_one_line(
    agentgym: Any, tmp_path: Path, corridor_model: Path, text: str | None, said: str
) -> None:
    own = tmp_path / "mine.txt"
    if text is not None:
        own.write_text(text)
    for command in (
        ("train", "--env", "alfworld", "--template", own, "--dry-run"),
        ("eval", "--suite", "corridor/test", "--model", corridor_model, "--template", own),
        ("play", "--env", "corridor", "--model", corridor_model, "--template", own),
        ("eval", "--suite", "corridor/test", "--policy", "openai", "--model", "m",
         "--base-url", "http://127.0.0.1:9/v1", "--template", own),
    ):  # fmt: skip
        code, _, err = agentgym(*command)
        assert code in (1, 2)
        assert said in err
        assert err.count("\n") == 1


def test_a_style_that_is_none_is_refused_with_those_there_are(agentgym: Any) -> None:
    code, _, err = agentgym("train", "--env", "alfworld", "--template", "mine.md", "--dry-run")
    assert code == 2
    assert "unknown template (or path of a .txt file) 'mine.md'; known: arpo, plain, tags" in err
    with pytest.raises(UsageError, match=r"unknown template for alfworld .* known: plain, tags"):
        load_prompt("alfworld", "arpo", "full")


def test_results_have_the_digest_of_the_file(
    agentgym: Any, own: Path, corridor_model: Path, tmp_path: Path
) -> None:
    command = ("eval", "--suite", "corridor/test", "--model", corridor_model, "-n", 1)
    code, _, err = agentgym(*command, "--max-turns", 1, "--template", own, "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["protocol"]["prompt"] == digest(own)


def test_a_model_is_played_beside_with_the_words_of_a_file(
    agentgym: Any, own: Path, corridor_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    opening = Prompt.opening

    def heard(self: Prompt, view: View) -> Any:
        told.append(opening(self, view)[-1]["content"])
        return opening(self, view)

    monkeypatch.setattr(Prompt, "opening", heard)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n:quit\n"))
    code, _, _ = agentgym("play", "--env", "corridor", "--model", corridor_model, "--template", own)
    assert code == 0
    assert any(words.startswith("Mine: ") for words in told)


@pytest.mark.parametrize(
    "arguments",
    [("eval", "--suite", "corridor/test", "--policy", "random"), ("play", "--env", "corridor"),
     ("train", "--env", "alfworld", "--method", "sft")],
)  # fmt: skip
def test_words_for_nobody_are_refused(agentgym: Any, arguments: tuple[str, ...]) -> None:
    code, _, err = agentgym(*arguments, "--template", "tags")
    assert code == 2
    assert "--template is" in err


def test_a_model_that_was_trained_with_another_style_is_not_told_one_without_a_word(
    agentgym: Any, corridor_model: Path
) -> None:
    command = ("eval", "--suite", "corridor/test", "--model", corridor_model, "--template", "tags")
    code, _, err = agentgym(*command)
    assert code == 2
    assert "was trained with the template text.plain, not tags" in err


@pytest.mark.parametrize("name", ["mine.tags.txt", "alfworld.tags.txt", "mine.txt"])
def test_a_model_that_was_trained_with_a_file_is_told_its_words_however_that_is_called(
    tmp_path: Path, name: str
) -> None:
    own = tmp_path / name
    own.write_text(OWN)
    load_prompt("corridor", str(own), "full").save(tmp_path)
    saved = saved_prompt(tmp_path)
    for env in ("alfworld", "webshop", "corridor"):
        assert prompt_of("m", saved, env, "tags", None) is saved


def test_a_model_that_was_trained_with_a_file_has_no_style_by_the_name_of_that(
    agentgym: Any, corridor_model: Path, tmp_path: Path
) -> None:
    own = tmp_path / "mine.tags.txt"
    own.write_text(OWN)
    model = shutil.copytree(corridor_model, tmp_path / "model")
    load_prompt("corridor", str(own), "full").save(model)
    command = ("eval", "--suite", "corridor/test", "--model", model, "--template", "tags")
    code, _, err = agentgym(*command)
    assert code == 2
    assert "was trained with the template mine.tags.txt, not tags" in err


def test_a_trained_model_carries_the_words_and_a_run_does_not_go_on_with_others(
    own: Path, corridor_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_training(config_of(corridor_model, own), run, QUIET, resume=False)
    model = run / "checkpoints" / "step_000002" / "hf"
    saved = saved_prompt(model)
    assert saved is not None
    assert saved.digest == digest(own)
    results = json.loads((run / "eval" / "step_000002" / "results.json").read_text())
    assert results["protocol"]["prompt"] == digest(own)
    own.write_text(OWN.replace("Mine", "Other"))
    with pytest.raises(UsageError, match=r"mine\.txt has changed since the run began"):
        run_training(config_of(corridor_model, own, steps=3), run, QUIET, resume=True)


def test_the_template_that_the_guide_shows_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "train.md").read_text(encoding="utf-8")
    shown = next(block for block in page.split("```") if block.startswith("\nformat:"))
    prompt = Prompt(Template.parse("shown", shown.strip()), Context.parse("full"))
    told = prompt.opening(View("a door", "win", 0, ("look",), None))[0]["content"]
    assert "Your task is to: win\na door\nYou can: 'look'\n" in told
    assert all(f"`{one}`" in page for one in {*PLACEHOLDERS, *set().union(*PLACEHOLDERS.values())})
