"""The laptop recipes and the models that come with the package, together."""

from pathlib import Path

import pytest

from agentgym.config import Config, load, read_recipe, recipe_names
from agentgym.envs.registry import env_names
from agentgym.evaluate import EvalOptions, evaluate_model
from agentgym.models import open_model
from agentgym.policies.bundled import bundled_models, resolve_model
from agentgym.run_envs import env_spec

LAPTOPS = tuple(env for env in env_names() if "laptop" in recipe_names(env))


def laptop(env: str) -> Config:
    return load([read_recipe(env, "laptop")])


def test_every_bundled_model_has_a_laptop_recipe_that_trains_it() -> None:
    assert {laptop(env).policy.model for env in LAPTOPS} == set(bundled_models())


def test_the_bundled_models_together_are_small() -> None:
    folders = [Path(resolve_model(name)) for name in bundled_models()]
    assert sum(path.stat().st_size for one in folders for path in one.iterdir()) <= 12_000_000


@pytest.mark.parametrize("env", LAPTOPS)
def test_a_laptop_recipe_plays_its_held_out_tasks_with_its_model(env: str) -> None:
    config = laptop(env)
    chosen = config.policy
    model = open_model(chosen.model, env, chosen.template, chosen.context, chosen.sampling)
    spec = env_spec(config, config.eval.suite)
    evaluation = evaluate_model(spec, model, EvalOptions(tasks=2, samples=1, seed=0, workers=0))
    model.policy.close()
    assert evaluation.protocol.held_out
    assert evaluation.summary.stops.keys() <= {"terminated", "turns", "tokens"}
    # It knows the environment's language: much of what it says means something there.
    assert (evaluation.summary.admissible_rate or 0) > 0.25
