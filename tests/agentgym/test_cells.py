"""The five methods take real steps in the four environments, in one process.

With the models that come with the package, on few and short episodes.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from agentgym.config import Config, load, read_recipe
from agentgym.errors import UsageError
from agentgym.policies.bundled import resolve_model
from agentgym.train import Reporter, run_training

pytestmark = pytest.mark.timeout(600)  # a busy machine may take its time
ENVS = ("alfworld", "scienceworld", "search", "webshop")
CELLS = [(method, env) for method in ("epo", "empg", "spear", "igpo", "aepo") for env in ENVS]
WITHOUT_ANSWERS = ("alfworld", "scienceworld")

# Played hot, and for as long as some episodes of a group get further than others. In ScienceWorld
# the model knows where to go, not which animals to choose; its expert's plan fits into the turns.
TWO_CHOICES = "lifespan-longest-lived-then-shortest-lived"
PLAYED: dict[str, dict[str, object]] = {
    "alfworld": {"max_turns": 16},
    "scienceworld": {"max_turns": 8, "task_types": [TWO_CHOICES]},
    "search": {"max_turns": 4},
    "webshop": {"max_turns": 4},
}
TEMPERATURES = {"alfworld": 1.2, "scienceworld": 2.0, "search": 1.5, "webshop": 1.5}

METHODS: dict[str, dict[str, object]] = {
    "epo": {"kappa_high": 0.5, "log_every": 1},
    "empg": {},
    "spear": {"warmup_steps": 1, "buffer_size": 1, "filters": [], "tool_schedule": "none"},
    "igpo": {},
    "aepo": {"alpha": 1.0, "look_ahead": 2},
}
ACTED: dict[str, Callable[[dict[str, float]], bool]] = {
    "epo": lambda last: last["epo/outside"] > 0 and last["loss/smooth"] > 0,
    "empg": lambda last: last["empg/scale_max"] > 1 > last["empg/scale_min"],
    "spear": lambda last: last["spear/replayed"] > 0 and last["replay/optim/grad_norm"] > 0,
    "igpo": lambda last: last["igpo/gain_abs"] > 0,
    "aepo": lambda last: last["tree/branches"] > 0 and last["aepo/factor_max"] > 1,
}
REMEMBERING = ("epo", "spear")  # what they do depends on an earlier step


def cell(method: str, env: str, **changes: object) -> Config:
    """Return a step or two of a method on two tasks, four short episodes each."""
    small = {
        "steps": 2 if method in REMEMBERING else 1,
        "env": PLAYED[env],
        "policy": {"sampling": {"temperature": TEMPERATURES[env], "max_tokens": 12}},
        "rollout": {"tasks_per_step": 1 if env == "scienceworld" else 2, "group_size": 4},
        "reward": {"outcome": "score"},
        "eval": {"tasks": 1},
        "save": {"trajectories_every": 0},
    }
    recipe = read_recipe(env, "laptop")
    recipe["method"] = {"name": method, **METHODS[method], **changes}
    return load([recipe, small])


def steps_of(config: Config, folder: Path) -> list[dict[str, float]]:
    """Run a configuration and return the metrics of its steps."""
    lines: list[dict[str, float]] = []
    reporter = Reporter(lambda _: None, lambda line: lines.append(dict(line)))
    run_training(config, folder, reporter, resume=False)
    return lines


def largest_change(config: Config, folder: Path) -> float:
    """Return how far the run took the weight that it changed most."""
    model = "model.safetensors"
    before = load_file(Path(resolve_model(config.policy.model)) / model)
    after = load_file(folder / "checkpoints" / f"step_{config.steps:06}" / "hf" / model)
    return max((after[name].float() - before[name].float()).abs().max().item() for name in before)


@pytest.mark.parametrize(("method", "env"), CELLS)
def test_each_method_takes_a_step_in_each_environment(
    method: str,
    env: str,
    tmp_path: Path,
    unexplained: Callable[[Iterable[str]], list[str]],
) -> None:
    stands_in = {"answer": "expert"} if method == "igpo" and env in WITHOUT_ANSWERS else {}
    config = cell(method, env, **stands_in)
    lines = steps_of(config, tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, config.steps + 1))
    assert max(line["optim/grad_norm"] for line in lines) > 0
    assert max(line["advantage/std"] for line in lines) > 0
    assert largest_change(config, tmp_path / "run") > 1e-4
    assert ACTED[method](lines[-1]), lines[-1]
    assert unexplained(name for line in lines for name in line) == []


@pytest.mark.parametrize("env", WITHOUT_ANSWERS)
def test_without_an_answer_igpo_refuses_and_names_its_stand_in(env: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{env} has no answer.*method.answer = expert"):
        steps_of(cell("igpo", env), tmp_path / "run")
    assert not (tmp_path / "run").exists()
