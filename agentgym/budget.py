"""How much of a context the episodes of a run use, measured on a few before it begins.

The first turns of each are played by the environment's expert, or by what it offers; they
are read by the model's own tokenizer, without the model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from agentgym.config import Config
from agentgym.envs.base import TextEnv
from agentgym.envs.registry import make_env
from agentgym.evaluate import tasks_of
from agentgym.models import check_context, prompt_of
from agentgym.policies.conversation import Script
from agentgym.policies.peek import Peek
from agentgym.run_envs import env_spec
from agentgym.types import Sample, View

_EPISODES, _TURNS = 3, 8  # that are played; a context grows by about as much from then on


@dataclass(frozen=True, slots=True)
class Budget:
    """The context of one environment's episodes.

    Attributes:
        env: Its name.
        turns: Of an episode, at most.
        answer: Tokens of a turn, at most.
        room: Tokens of a context, at most.
        first: The longest prompt before a turn that tells the whole context anew, in tokens: of a
            context that grows the first turn's, of one that is rebuilt any turn's. None where
            nothing was measured.
        more: Tokens by which a context that grows is longer for each observation, the mean of the
            longest episode; 0 for one that is rebuilt.
        grows: Whether the context grows.
    """

    env: str
    turns: int
    answer: int
    room: int
    first: int | None
    more: float
    grows: bool

    @property
    def whole(self) -> int:
        """Tokens of the longest context that an episode of all turns may come to."""
        answers = self.turns * self.answer if self.grows else self.answer
        return (self.first or 0) + answers + round(self.more * (self.turns - 1))

    @property
    def sampled(self) -> int:
        """Tokens that an episode may be answered with."""
        most = self.turns * self.answer
        return min(most, max(0, self.room - (self.first or 0))) if self.grows else most

    def __str__(self) -> str:
        """Return it as a sentence."""
        if self.first is None:
            told = "prompts that were not measured"
        elif self.grows:
            told = (
                f"a first prompt of {self.first:,} tokens and {self.more:,.0f} for each later one"
            )
        else:
            told = f"prompts of up to {self.first:,} tokens"
        said = (
            f"{self.env}: {self.turns} turns of at most {self.answer:,} tokens, {told}:"
            f" up to {self.whole:,} of {self.room:,} tokens of context"
        )
        if self.whole <= self.room:
            return said
        return f"{said}; an episode that would need more ends with the reason tokens"


def budgets(config: Config, model: Peek | None) -> list[Budget]:
    """Return the budget of each environment that a run trains in.

    Args:
        config: The run's.
        model: What is known of its model; None measures no prompts.

    Raises:
        UsageError: The model reads less than the run wants, was trained in another context, or
            its chat template does not fit; as the run would say.
        DataError: Data of an environment is missing.
    """
    if model is not None:
        check_context(config.policy.model, model, config.policy.sampling)
    return [budget_of(config, name, model) for name in config.envs]


def foretell(config: Config, model: Peek | None) -> list[str]:
    """Return what a run would sample and how long its contexts would be, as lines.

    Raises:
        AgentGymError: As for :func:`budgets`.
    """
    found = budgets(config, model)
    episodes = config.rollout.tasks_per_step * config.rollout.group_size
    step = episodes * max(budget.sampled for budget in found)
    lines = [
        f"would sample at most {step:,} tokens a step, {step * config.steps:,} in all",
        *(f"context of {budget}" for budget in found),
    ]
    if model is None:
        lines.append(f"the model {config.policy.model} is not on this machine: no prompt was read")
    return lines


def budget_of(config: Config, name: str, model: Peek | None) -> Budget:
    """Return the budget of one environment of a run.

    Raises:
        UsageError: The model was trained in another context, or its chat template does not fit.
        DataError: Data of the environment is missing.
    """
    policy, asked = config.policy, config.envs[name]
    saved = None if model is None else model.prompt
    prompt = prompt_of(policy.model, saved, name, policy.template, policy.context)
    with closing(make_env(env_spec(config, asked.suite))) as env:
        played: list[list[int]] = []
        if model is not None:
            script = Script(prompt, model.tokenizer)
            tasks = tasks_of(env, asked.task_types)
            some = tasks[:: -(-len(tasks) // _EPISODES)]
            played = [list(_told(env, task, script)) for task in some]
        turns = env.max_turns
    grows = prompt.context.window is None
    first, more = _measured(played, grows=grows)
    sampling = policy.sampling
    return Budget(name, turns, sampling.max_tokens, sampling.max_context, first, more, grows)


def _measured(played: list[list[int]], *, grows: bool) -> tuple[int | None, float]:
    """Return ``first`` and ``more`` of a budget, from what was told before each turn."""
    if not played:
        return None, 0.0
    if not grows:
        return max(max(told) for told in played), 0.0
    steps = [(told[-1] - told[0]) / (len(told) - 1) for told in played if len(told) > 1]
    return max(told[0] for told in played), max(steps, default=0.0)


def _told(env: TextEnv, task: str, script: Script) -> Iterator[int]:
    """Play an episode; yield before each turn how much of its context is not the model's own."""
    draws = random.Random(f"budget:{task}")
    conversation = script.begin()
    observation, info = env.reset(seed=0, options={"task": task})
    turn, said, over = 0, 0, False
    while not over and turn < _TURNS:
        context = conversation.observe(View.of(observation, info, turn))
        yield len(context) - said
        can = info.get("admissible_actions") or ("look",)
        action = (env.expert() if env.has_expert else None) or draws.choice(can)
        ids = script.chat.said_ids(script.prompt.template.format.write(action))
        conversation.say(Sample(ids, (0.0,) * len(ids), None, "stop", 0))
        said += len(ids) if script.prompt.context.window is None else 0
        observation, _, terminated, truncated, info = env.step(action)
        turn, over = turn + 1, terminated or truncated
