"""The environments of a training run: what is trained on and measured, what a model is told."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from agentgym.config import Config
from agentgym.envs.registry import env_of_suite, make_env
from agentgym.errors import UsageError
from agentgym.evaluate import tasks_of
from agentgym.models import prompt_of
from agentgym.policies.conversation import Script
from agentgym.policies.hf import HFPolicy
from agentgym.policies.prompt import PROMPT_FILE, Prompt, is_template_file, saved_prompt
from agentgym.trainers.answer_scores import answer_scorer, refuse_without_answers
from agentgym.trainers.decks import Deck, refuse_shared_tasks
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain
from agentgym.trainers.worlds import World
from agentgym.types import EnvSpec, Policy
from agentgym.workers import WorkerPool


def env_spec(config: Config, suite: str) -> EnvSpec:
    """Return the environment that plays a suite in a run, with the options that it has there.

    Raises:
        UsageError: There is no such suite, or the run mixes environments and has not this one.
    """
    name = env_of_suite(suite)
    if config.mix is not None and name not in config.mix:
        raise UsageError(
            f"eval.suite names {suite}, and the run mixes {', '.join(config.mix)}; add"
            f" [mix.{name}], or leave the suite out"
        )
    env = config.env or config.envs[name]
    options: dict[str, object] = {"suite": suite, **env.options}
    if env.max_turns is not None:
        options["max_turns"] = env.max_turns
    return EnvSpec(name, options)


@dataclass(frozen=True, slots=True)
class Suites:
    """What a run trains on, by environment, and the digests of all its suites by name."""

    decks: Mapping[str, Deck]
    digests: Mapping[str, str]

    @property
    def tasks(self) -> int:
        """How many tasks are trained on."""
        return sum(len(deck.tasks) for deck in self.decks.values())


def open_suites(config: Config, method: Chain) -> Suites:
    """Return what a run trains on, after all of its suites were looked at.

    Raises:
        UsageError: A suite or task type is not there, what would be trained on is held out, or
            the method needs an answer that is not there.
    """
    decks: dict[str, Deck] = {}
    digests: dict[str, str] = {}
    with ExitStack() as stack:
        for name, asked in config.envs.items():
            env = stack.enter_context(closing(make_env(env_spec(config, asked.suite))))
            if env.suite.held_out:
                raise UsageError(f"{env.suite.name} is held out: nothing is learnt from it")
            refuse_without_answers(method, env)
            decks[name] = Deck(tasks_of(env, asked.task_types), config.share(name))
            digests[env.suite.name] = env.suite.digest
        for suite in config.eval.suites:
            env = stack.enter_context(closing(make_env(env_spec(config, suite))))
            tasks_of(env, config.eval.task_types)
            digests[suite] = env.suite.digest
    refuse_shared_tasks(decks)
    return Suites(decks, digests)


def open_scripts(
    config: Config, policy: HFPolicy, trained: Path | None = None
) -> dict[str, Script]:
    """Return what the model is told in each environment.

    Words from a file of the user's own go into the model folders that the run saves.

    Args:
        config: Of the run.
        policy: Its model.
        trained: The model folder of the checkpoint that is gone on from.

    Raises:
        UsageError: The model was trained in another context, its chat template does not fit, or
            the template file has changed since the run began.
        DataError: The template file cannot be read or breaks a rule.
    """
    asked = config.policy
    prompts = {
        name: prompt_of(asked.model, policy.prompt, name, asked.template, asked.context)
        for name in config.envs
    }
    if is_template_file(asked.template):
        policy.prompt = next(iter(prompts.values()))  # the same in every environment
        _refuse_other_words(asked.template, policy.prompt, trained)
    return {name: Script(prompt, policy.tokenizer) for name, prompt in prompts.items()}


def _refuse_other_words(file: str, prompt: Prompt, trained: Path | None) -> None:
    if trained is None:
        return
    before = saved_prompt(trained)
    if before is not None and before.digest != prompt.digest:
        raise UsageError(
            f"{file} has changed since the run began, whose model was told what is in"
            f" {trained / PROMPT_FILE}; bring it back, or start a new run"
        )


def open_worlds(
    config: Config,
    suites: Suites,
    scripts: Mapping[str, Script],
    stack: ExitStack,
    method: Chain,
    learner: Learner,
    sampler: Policy,
    *,
    by_first: bool = False,
) -> list[World]:
    """Return the environments to train in, whose workers the stack closes."""
    return [
        World(
            name,
            suites.decks[name],
            stack.enter_context(closing(WorkerPool(env_spec(config, env.suite), env.workers))),
            scripts[name].begin,
            answer_scorer(method, scripts[name], learner, sampler, by_first=by_first),
        )
        for name, env in config.envs.items()
    ]
