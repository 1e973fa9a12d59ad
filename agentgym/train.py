"""A training run from its configuration to its last table: builds the parts and runs the loop."""

from __future__ import annotations

import platform
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType

import torch
import transformers

from agentgym import __version__
from agentgym.config import Config, load
from agentgym.envs.registry import env_of_suite, make_env
from agentgym.errors import UsageError
from agentgym.evaluate import (
    EvalOptions,
    Evaluation,
    Model,
    evaluate_model,
    has_results,
    read_results,
    tasks_of,
    write_results,
)
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.hf import HFPolicy
from agentgym.policies.prompt import Prompt, load_prompt, saved_prompt
from agentgym.trainers.checkpoint import MODEL, load_trainer_state
from agentgym.trainers.learner import Learner
from agentgym.trainers.loop import Parts, Plan, train
from agentgym.trainers.method import make_chain
from agentgym.trainers.run_folder import RunFolder
from agentgym.types import EnvSpec
from agentgym.workers import WorkerPool


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who is told what happens: lines of text, and the metrics of each step."""

    say: Callable[[str], None]
    step: Callable[[dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The held-out evaluations of a run."""

    before: Evaluation
    after: Evaluation


def new_run(config: Config, folder: Path) -> RunFolder:
    """Make the folder of a new run and write down what it is.

    Raises:
        UsageError: It holds a run already, or other files.
        DataError: It cannot be written.
    """
    env = make_env(env_spec(config))
    env.close()
    about = {
        "agentgym": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "suite": {"name": env.suite.name, "digest": env.suite.digest},
        "command": sys.argv,
    }
    return RunFolder.create(folder, config.to_toml(), about)


def open_run(folder: Path) -> RunFolder:
    """Open the folder of a run that was begun before.

    Raises:
        UsageError: There is no run in it, or it is done.
    """
    run = RunFolder.open(folder)
    latest, steps = run.latest_checkpoint(), planned_steps(run)
    if latest is not None and latest[0] >= steps:
        raise UsageError(f"the run in {folder} is done: {steps} of {steps} steps")
    return run


def planned_steps(run: RunFolder) -> int:
    """Return how many steps a run has in all."""
    return load([tomllib.loads(run.config)]).steps


def dry_run(folder: Path, config: Config | None) -> list[str]:
    """Return the resolved configuration and what a run would do, without doing it.

    Args:
        folder: Where the run is or would be.
        config: Of a new run; None resumes the one in ``folder``.

    Raises:
        AgentGymError: The run would not start; the same error.
    """
    run = None if config is not None else open_run(folder)
    config = config or load([tomllib.loads(RunFolder.open(folder).config)])
    latest = run.latest_checkpoint() if run else None
    method = make_chain(config.method, config.reward, config.steps)
    env = make_env(env_spec(config))
    env.close()
    tasks = tasks_of(env, config.env.task_types)
    episodes = config.rollout.tasks_per_step * config.rollout.group_size
    resolve_model(config.policy.model)
    return [
        *config.to_toml().splitlines(),
        "",
        f"would {'resume' if run else 'begin'} in {folder} after step {latest[0] if latest else 0}",
        f"would train {config.policy.model} by {method.name} for {config.steps} steps of {episodes}"
        f" episodes on {len(tasks)} tasks",
        f"would measure {config.eval.tasks} tasks of {config.eval.suite} before and after",
    ]


def env_spec(config: Config, suite: str | None = None) -> EnvSpec:
    """Return the environment that a run trains in, or the one that plays another suite."""
    suite = suite or config.env.suite
    options: dict[str, object] = {"suite": suite, **config.env.options}
    if config.env.max_turns is not None:
        options["max_turns"] = config.env.max_turns
    return EnvSpec(env_of_suite(suite), options)


def run_training(run: RunFolder, reporter: Reporter) -> Outcome:
    """Train the run of a folder from where it is to its end.

    A first interrupt (Ctrl-C or SIGTERM) lets the step under way end and saves it; a second one
    ends at once, and the last checkpoint stands.

    Returns:
        The held-out evaluation before the first step and after the last.

    Raises:
        KeyboardInterrupt: The run was interrupted and its last step saved.
        UsageError: A part does not fit another: model, context, method, task types.
    """
    config = load([tomllib.loads(run.config)])
    checkpoint = run.latest_checkpoint()
    folder = str(checkpoint[1] / MODEL) if checkpoint else resolve_model(config.policy.model)
    policy = HFPolicy.from_folder(folder)
    method = make_chain(config.method, config.reward, config.steps)
    learner = Learner(policy.model, config.optim, config.steps)
    done = load_trainer_state(checkpoint[1], learner, method) if checkpoint else 0
    run.cut(done)
    model = Model(
        name=config.policy.model,
        policy=policy,
        script=Script(prompt_of(config, folder), policy.tokenizer),
        sampling=config.policy.sampling,
    )
    _check_context(config, policy)
    with _interrupts(reporter.say) as interrupted:
        evaluate = partial(_measure, run, config, model)
        if done:
            reporter.say(f"resumed after step {done} of {config.steps}")
        elif not has_results(run.eval_folder(0)):
            reporter.say(f"measuring {config.eval.tasks} held-out tasks before the first step")
            evaluate(0)
        env = make_env(env_spec(config))
        env.close()
        parts = Parts(
            run=run,
            learner=learner,
            method=method,
            policy=policy,
            pool=WorkerPool(env_spec(config), config.env.workers),
            conversation=model.script.begin,
            tasks=tasks_of(env, config.env.task_types),
            evaluate=evaluate,
            report=reporter.step,
            interrupted=interrupted,
        )
        train(parts, _plan(config), done)
    policy.close()
    return Outcome(*(read_results(run.eval_folder(step)) for step in (0, config.steps)))


def prompt_of(config: Config, folder: str) -> Prompt:
    """Return the prompt that the model's folder carries, or the environment's own.

    Raises:
        UsageError: The model was trained in another context than the run wants.
    """
    saved = saved_prompt(Path(folder)) if Path(folder).is_dir() else None
    if saved is None:
        env = env_of_suite(config.env.suite)
        return load_prompt(env, config.policy.template, config.policy.context)
    if str(saved.context) != config.policy.context:
        raise UsageError(
            f"the model {config.policy.model} was trained with context {saved.context}, the run"
            f" wants {config.policy.context}; set policy.context={saved.context}"
        )
    return saved


def _plan(config: Config) -> Plan:
    return Plan(
        steps=config.steps,
        seed=config.seed,
        rollout=config.rollout,
        sampling=config.policy.sampling,
        eval_every=config.eval.every,
        save=config.save,
    )


def _measure(run: RunFolder, config: Config, model: Model, step: int) -> dict[str, float]:
    """Evaluate the model as it is on the held-out tasks, and keep the result in the run."""
    options = EvalOptions(
        tasks=config.eval.tasks, task_types=config.eval.task_types, seed=config.seed
    )
    cooled = replace(
        model, sampling=model.sampling.model_copy(update={"temperature": config.eval.temperature})
    )
    evaluation = evaluate_model(env_spec(config, config.eval.suite), cooled, options)
    write_results(evaluation, run.eval_folder(step))
    name, summary = f"eval/{config.eval.suite}", evaluation.summary
    return {f"{name}/success_rate": summary.success.value, f"{name}/score": summary.score}


def _check_context(config: Config, policy: HFPolicy) -> None:
    wanted = config.policy.sampling.max_context
    if wanted > policy.max_context:
        raise UsageError(
            f"policy.max_context is {wanted} tokens, the model {config.policy.model} reads"
            f" {policy.max_context}; set policy.max_context={policy.max_context}"
        )


@contextmanager
def _interrupts(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yield what tells whether an interrupt came; a second one is raised where it comes."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        say("interrupted: the step under way is finished and saved; once more ends at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
