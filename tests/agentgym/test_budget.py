"""What a run says of its contexts before it begins is what its episodes come to."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from agentgym.budget import Budget, budgets, foretell
from agentgym.config import Config, load
from agentgym.errors import DataError, UsageError
from agentgym.policies.peek import peek

GROWN = Budget("say", turns=10, answer=20, room=300, first=50, more=4.0, grows=True)
REBUILT = Budget("say", turns=10, answer=20, room=300, first=50, more=0.0, grows=False)


def settings(model: Path, **changes: Any) -> Config:
    base = {
        "steps": 5,
        "env": {"suite": "corridor/train"},
        "eval": {"suite": "corridor/test", "tasks": 4},
        "rollout": {"tasks_per_step": 2, "group_size": 3},
        "policy": {
            "model": str(model),
            "template": "plain",
            "sampling": {"max_tokens": 6, "max_context": 256},
        },
    }
    return load([base, changes])


def test_a_context_that_grows_holds_all_answers_and_what_came_between() -> None:
    assert GROWN.whole == 50 + 10 * 20 + 9 * 4
    assert GROWN.sampled == 200
    assert "up to 286 of 300 tokens of context" in str(GROWN)


def test_a_context_that_is_rebuilt_holds_one_answer() -> None:
    assert REBUILT.whole == 70
    assert REBUILT.sampled == 200


def test_an_episode_that_does_not_fit_is_told_so_and_samples_no_more_than_fits() -> None:
    tight = Budget("say", turns=10, answer=50, room=300, first=50, more=4.0, grows=True)
    assert tight.sampled == 250
    assert "up to 586 of 300" in str(tight)
    assert "ends with the reason tokens" in str(tight)


def test_prompts_are_measured_by_the_model_s_own_tokenizer(corridor_model: Path) -> None:
    seen = peek(str(corridor_model))
    assert seen is not None
    config = settings(corridor_model)
    (budget,) = budgets(config, seen)
    assert (budget.turns, budget.answer, budget.room, budget.grows) == (8, 6, 256, True)
    # By hand: the corridor's first prompt in this template, and an observation later.
    from agentgym.envs.registry import make_env
    from agentgym.policies.conversation import Script
    from agentgym.run_envs import env_spec
    from agentgym.types import View

    env = make_env(env_spec(config, "corridor/train"))
    script = Script(seen.prompt, seen.tokenizer)
    firsts = []
    for task in env.suite.tasks[::86]:
        observation, info = env.reset(seed=0, options={"task": task})
        view = View(observation, info["goal"], 0, info["admissible_actions"], None)
        firsts.append(len(script.begin().observe(view)))
    assert budget.first == max(firsts)
    assert budget.more > 3


def test_a_rebuilt_context_is_measured_with_what_it_tells_again(corridor_model: Path) -> None:
    shutil.copytree(corridor_model, folder := corridor_model.with_name("windowed"))
    (folder / "prompt.json").unlink()
    seen = peek(str(folder))
    template = "tags"
    told = [
        budgets(settings(folder, policy={"context": context, "template": template}), seen)[0].first
        for context in ("window(0)", "window(2)")
    ]
    assert 0 < told[0] < told[1]  # type: ignore[operator]


def test_what_is_foretold_counts_episodes_steps_and_tokens(corridor_model: Path) -> None:
    lines = foretell(settings(corridor_model), peek(str(corridor_model)))
    # 6 episodes of 8 turns of 6 tokens; 5 steps.
    assert lines[0] == "would sample at most 288 tokens a step, 1,440 in all"
    assert lines[1].startswith("context of corridor: 8 turns of at most 6 tokens, a first prompt")
    assert len(lines) == 2


def test_a_model_that_is_elsewhere_leaves_prompts_unmeasured_and_says_so() -> None:
    assert peek("nobody/has-this") is None
    lines = foretell(settings(Path("nobody/has-this")), None)
    assert "prompts that were not measured" in lines[1]
    assert lines[2] == "the model nobody/has-this is not on this machine: no prompt was read"


def test_what_the_run_would_refuse_is_refused(corridor_model: Path, tmp_path: Path) -> None:
    seen = peek(str(corridor_model))
    long = {"policy": {"sampling": {"max_context": 9999}}}
    with pytest.raises(UsageError, match=r"max_context is 9999 tokens, the model .* reads"):
        budgets(settings(corridor_model, **long), seen)
    other = {"policy": {"context": "window(2)"}}
    with pytest.raises(UsageError, match="was trained with context full"):
        budgets(settings(corridor_model, **other), seen)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="has no weights"):
        peek(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="cannot load the model"):
        peek(str(tmp_path))
    shutil.copy(corridor_model / "config.json", tmp_path)
    with pytest.raises(DataError, match="has no tokenizer"):
        peek(str(tmp_path))
