"""The recipes with published settings: each can be run as soon as its model and data are there."""

import math
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import Config, load, read_recipe, recipe_names
from agentgym.envs.registry import env_class, env_names
from agentgym.policies.prompt import load_prompt
from agentgym.train import dry_run
from agentgym.trainers.registry import build_chain

PUBLISHED = [
    (env, name)
    for env in env_names()
    for name in recipe_names(env)
    if not name.startswith("laptop")
]
GENERATED = {  # what stands in for published data that must be downloaded
    "alfworld": ("alfworld/gen-train", "alfworld/gen-unseen"),
    "webshop": ("webshop/gen-train", "webshop/gen-test"),
    "search": ("search/gen-train", "search/gen-test"),
}


def recipe(env: str, name: str, *over: dict[str, Any]) -> Config:
    return load([read_recipe(env, name), *over])


def test_each_paper_has_its_recipes() -> None:
    named = {(env, name): recipe(env, name) for env, name in PUBLISHED}
    models = {key: config.policy.model.partition("/")[2] for key, config in named.items()}
    methods = {key: config.method_name for key, config in named.items()}
    small, large = "Qwen2.5-1.5B-Instruct", "Qwen2.5-7B-Instruct"
    assert {key: (methods[key], models[key]) for key in named} == {
        ("alfworld", "paper"): ("epo", "Qwen2.5-3B-Instruct"),
        ("scienceworld", "paper"): ("epo", large),
        ("scienceworld", "epo-ppo-7b"): ("epo", large),
        ("search", "igpo-7b"): ("igpo", large),
        ("search", "aepo-14b"): ("aepo", "Qwen3-14B"),
        **{
            (env, f"{method}-{size}"): (method, model)
            for env in ("alfworld", "webshop")
            for method in ("empg", "spear")
            for size, model in (("1.5b", small), ("7b", large))
        },
    }


@pytest.mark.parametrize(("env", "name"), PUBLISHED)
def test_a_published_recipe_would_run_once_its_data_is_there(
    env: str, name: str, tmp_path: Path
) -> None:
    config = recipe(env, name)
    assert {config.env.suite, config.eval.suite} <= set(env_class(env).suite_names())
    if env in GENERATED:
        trained, measured = GENERATED[env]
        stand_in = {"env": {"suite": trained}, "eval": {"suite": measured}}
        config = recipe(env, name, stand_in)
    said = dry_run(config, tmp_path / "run", resume=False)
    episodes = config.rollout.tasks_per_step * config.rollout.group_size
    assert any(f"for {config.steps} steps of {episodes} episodes" in line for line in said)


@pytest.mark.parametrize(("env", "name"), PUBLISHED)
def test_a_published_recipe_has_a_prompt_of_its_own_and_room_for_one(env: str, name: str) -> None:
    chosen = recipe(env, name).policy
    prompt = load_prompt(env, chosen.template, chosen.context)
    assert prompt.template.name == f"{env}.{chosen.template}"
    assert chosen.sampling.max_context - chosen.sampling.max_tokens >= 2000


@pytest.mark.parametrize("env", ["alfworld", "webshop"])
@pytest.mark.parametrize("method", ["empg", "spear"])
def test_two_sizes_of_a_recipe_differ_in_the_model_and_its_memory_alone(
    env: str, method: str
) -> None:
    small, large = (read_recipe(env, f"{method}-{size}") for size in ("1.5b", "7b"))
    for one in (small, large):
        del one["policy"]["model"], one["optim"]["gradient_checkpointing"]
    assert small == large


@pytest.mark.parametrize(
    ("env", "name", "rollout", "published"),
    [
        # tasks a step x group; steps, turns, learning rate, optimiser step in rows
        ("scienceworld", "paper", (16, 8), (125, 30, 5e-6, 128)),
        ("scienceworld", "epo-ppo-7b", (128, 1), (125, 30, 3e-6, 64)),
        ("alfworld", "empg-7b", (16, 8), (150, 50, 1e-6, 256)),
        ("webshop", "empg-7b", (16, 8), (150, 15, 1e-6, 64)),
        ("alfworld", "spear-7b", (32, 8), (200, 50, 1e-6, 1024)),
        ("webshop", "spear-7b", (32, 8), (350, 15, 1e-6, 256)),
        ("search", "igpo-7b", (32, 16), (2500, 10, 1e-6, None)),
        ("search", "aepo-14b", (64, 12), (80, 7, 1e-6, 96)),
    ],
)
def test_a_published_recipe_has_the_published_sizes(
    env: str, name: str, rollout: tuple[int, int], published: tuple[float | None, ...]
) -> None:
    config = recipe(env, name)
    assert (config.rollout.tasks_per_step, config.rollout.group_size) == rollout
    optim = config.optim
    assert (config.steps, config.env.max_turns, optim.lr, optim.mini_batch) == published


def test_the_methods_terms_are_those_of_their_papers() -> None:
    def options(env: str, name: str) -> dict[str, Any]:
        chain = build_chain(recipe(env, name).method, 100)
        return {k: v for link in chain.links for k, v in dict(link.options).items()}

    epo = options("scienceworld", "paper")
    assert (epo["alpha"], epo["kappa_low"], epo["kappa_high"], epo["kl_coef"]) == (0.05, 0, 2, 0.01)
    empg = options("alfworld", "empg-7b")
    assert (empg["k"], empg["k_future"], empg["zeta"], empg["normalise"]) == (1, 1, 0.1, True)
    spear = options("webshop", "spear-7b")
    assert (spear["clip_low"], spear["clip_high"], spear["dual_clip"]) == (0.2, 0.28, math.inf)
    assert (spear["kl_coef"], spear["normalise"], spear["keep_groups"]) == (0, False, 0.75)
    assert (spear["tool_steps"], spear["warmup_steps"]) == (200, 200)
    igpo = options("search", "igpo-7b")
    assert (igpo["gain"], igpo["normalise"], igpo["kl"]) == ("logprob", "separate", "k3")
    assert (igpo["kl_coef"], igpo["entropy_coef"], igpo["format_outcome"]) == (0.001, 0.001, -2)
    aepo = options("search", "aepo-14b")
    assert (aepo["alpha"], aepo["weight"], aepo["beam"], aepo["entropy_weight"]) == (
        0.5,
        0.2,
        2,
        0.2,
    )
    assert (aepo["clip_high_gradient"], aepo["dual_clip"], aepo["kl_coef"]) == ("keep", 3, 0)
