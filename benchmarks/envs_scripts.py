"""What the environment benchmarks play: the same tasks and actions for whoever is measured."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from agentgym.envs.base import TextEnv
from agentgym.envs.registry import make_env
from agentgym.envs.webshop import SEARCH_HINT
from agentgym.policies.scripted import RandomPolicy
from agentgym.types import EnvSpec, Info, View

Episode = tuple[str, list[str]]
"""A task and the actions taken in it."""


def script(spec: EnvSpec, tasks: Sequence[str], steps: int) -> list[Episode]:
    """Return an episode for each task: at most so many random actions, fewer where it ends."""
    env = make_env(spec)
    episodes = [(task, list(_walk(env, task, steps))) for task in tasks]
    env.close()
    return episodes


def spread(spec: EnvSpec, count: int) -> list[str]:
    """Return so many tasks of the suite, spread evenly."""
    tasks = make_env(spec).suite.tasks
    return [tasks[n * len(tasks) // count] for n in range(count)]


def _walk(env: TextEnv, task: str, steps: int) -> Iterator[str]:
    policy = RandomPolicy()
    policy.begin(task, 0)
    observation, info = env.reset(seed=0, options={"task": task})
    for turn in range(steps):
        action = _action(policy, observation, info, turn)
        yield action
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return


def _action(policy: RandomPolicy, observation: str, info: Info, turn: int) -> str:
    # What ScienceWorld is asked to focus on is nearly always wrong, which ends the episode.
    templates = [one for one in info.get("templates", ()) if not one.startswith("focus")]
    view = View(
        observation,
        info["goal"],
        turn,
        info.get("admissible_actions"),
        None,
        tuple(templates),
        info.get("objects", ()),
    )
    action = policy.act(view)
    if action != SEARCH_HINT:
        return action
    # What a shop is searched for: some words of the wish, which are hardly ever the same.
    draw, words = random.Random(f"{info['task_id']}:{turn}"), re.findall(r"\w+", info["goal"])
    return f"search[{' '.join(draw.sample(words, min(len(words), draw.randint(3, 8))))}]"
