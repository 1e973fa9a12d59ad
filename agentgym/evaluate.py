"""Run a policy over a suite: every task exactly once a sample, and the protocol beside the result.

The result is a function of the protocol alone: each draw comes from the seed, the task and the
sample, so neither the number of workers nor their timing changes anything. One exception: a model
in this process, on an environment that needs processes, plays in waves of as many as there are
workers, and the same turn sampled in another batch differs in its last bits.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from agentgym import __version__
from agentgym.envs.base import TextEnv
from agentgym.envs.registry import make_env
from agentgym.episodes import Episode, Summary, episode_of, summarise, unpublished_note
from agentgym.errors import DataError, UsageError, unknown
from agentgym.files import make_folder, write_atomic
from agentgym.policies.conversation import Script
from agentgym.rollout import SamplingOptions, TextVoice, Voice, play_all, play_policy
from agentgym.types import EnvSpec, Key, Policy, TextPolicy, Trajectory
from agentgym.workers import WorkerPool

RESULTS_FILE = "results.json"
_A_WORKER = 2  # episodes of a policy that acts on text: one is answered while the other's steps


@dataclass(frozen=True, slots=True)
class EvalProtocol:
    """Everything that the episodes of an evaluation are a function of."""

    agentgym: str  # the version of this package
    env: str
    options: dict[str, object]  # of the environment, beside suite and max_turns
    suite: str
    digest: str  # of the whole suite's task ids
    official: bool
    held_out: bool
    note: str | None  # what must be said beside the result
    suite_tasks: int  # tasks in the suite
    tasks: int  # tasks evaluated: the first of the suite
    samples: int  # episodes a task
    seed: int
    max_turns: int
    policy: str
    task_types: tuple[str, ...] = ()  # only these; all when empty
    sampling: dict[str, object] | None = None  # of a model
    prompt: str | None = None  # SHA-256 of what a model is told, and how its answers are read


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation, whole. Episodes are in the suite's order, the samples of a task together."""

    protocol: EvalProtocol
    summary: Summary
    episodes: tuple[Episode, ...]

    def to_json(self) -> str:
        """Return the content of ``results.json``."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """How much is evaluated, and how.

    Raises:
        UsageError: A number below 1.
    """

    tasks: int | None = None  # only the first tasks of the suite; None takes all
    samples: int = 1  # episodes a task
    seed: int = 0
    workers: int = 0  # environment processes; 0 steps the environments inside this one
    task_types: tuple[str, ...] = ()  # only these; all when empty

    def __post_init__(self) -> None:
        for name, value in (("tasks", self.tasks), ("samples", self.samples)):
            if value is not None and value < 1:
                raise UsageError(f"an evaluation needs at least 1 of {name}, got {value}")


@dataclass(frozen=True, slots=True)
class Model:
    """A policy in tokens, with what it is told and how it is sampled."""

    name: str
    policy: Policy
    script: Script
    sampling: SamplingOptions


def evaluate(
    spec: EnvSpec,
    policy: Callable[[], TextPolicy],
    options: EvalOptions,
    started: Callable[[int, int], None] = lambda _done, _all: None,
) -> Evaluation:
    """Play every task of a suite and return what happened.

    Args:
        spec: The environment; its options name the suite.
        policy: Makes the policy of one episode. Episodes go on at the same time, so each has its
            own.
        options: How much, and how.
        started: Told, whenever an episode starts, how many have and how many there are.

    Raises:
        UsageError: The policy needs an expert and the environment has none, or an option does not
            fit.
        DataError: The suite's data is not there.
    """
    env = make_env(spec)
    env.close()  # it was only asked what it would play
    example = policy()
    if example.needs_expert and not env.has_expert:
        raise UsageError(f"{env.name} has no expert; choose another policy than {example.name}")
    protocol = _protocol(env, spec, example.name, options)
    return _evaluation(env, protocol, _play(spec, policy, _keys(env, options), options, started))


def evaluate_model(
    spec: EnvSpec,
    model: Model,
    options: EvalOptions,
    played: Callable[[Sequence[Trajectory]], None] = lambda _: None,
) -> Evaluation:
    """Play every task of a suite with a policy in tokens and return what happened.

    Args:
        spec: The environment; its options name the suite.
        model: What plays.
        options: How much, and how.
        played: Given the episodes, whole, in the order of the result's.

    Raises:
        UsageError: An option does not fit.
        DataError: The suite's data is not there.
    """
    env = make_env(spec)
    env.close()
    protocol = replace(
        _protocol(env, spec, model.name, options),
        sampling=model.sampling.model_dump(),
        prompt=model.script.prompt.digest,
    )

    async def run() -> list[Trajectory]:
        async with WorkerPool(spec, options.workers) as pool:
            return await play_policy(
                pool,
                _keys(env, options),
                model.policy,
                model.script.begin,
                model.sampling,
                f"{options.seed}:eval",
            )

    trajectories = asyncio.run(run())
    played(trajectories)
    return _evaluation(env, protocol, trajectories)


def tasks_of(env: TextEnv, task_types: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks of an environment's suite that are of some types; all when none are named.

    Raises:
        UsageError: The suite has no task of a type.
    """
    types = {task: env.task_type(task) for task in env.suite.tasks}
    for wanted in task_types:
        if wanted not in types.values():
            raise unknown(f"task type of {env.suite.name}", wanted, set(types.values()))
    return tuple(t for t in env.suite.tasks if not task_types or types[t] in task_types)


def _keys(env: TextEnv, options: EvalOptions) -> list[Key]:
    tasks = tasks_of(env, options.task_types)[: options.tasks]
    return [Key(task, sample) for task in tasks for sample in range(options.samples)]


def has_results(folder: Path) -> bool:
    """Return whether results were written into ``folder``."""
    return (folder / RESULTS_FILE).exists()


def read_results(folder: Path) -> Evaluation:
    """Read ``results.json`` of a folder.

    Raises:
        DataError: It is not there, or was not written by this version.
    """
    path = folder / RESULTS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(Evaluation).validate_python(content)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the results {path}: {error}") from error


def refuse_results(folder: Path) -> Path:
    """Make the folder that results will go to, before any work is done for them.

    Raises:
        UsageError: It holds results already.
        DataError: It cannot be written.
    """
    if (folder / RESULTS_FILE).exists():
        raise UsageError(
            f"{folder / RESULTS_FILE} is already there; nothing was overwritten, choose another"
            " folder"
        )
    return make_folder(folder)


def write_results(evaluation: Evaluation, folder: Path) -> Path:
    """Write ``results.json`` into ``folder`` and return its path.

    Raises:
        UsageError: It is there already.
        DataError: It cannot be written.
    """
    path = refuse_results(folder) / RESULTS_FILE
    write_atomic(path, evaluation.to_json())
    return path


def _evaluation(
    env: TextEnv, protocol: EvalProtocol, trajectories: Sequence[Trajectory]
) -> Evaluation:
    # An episode that broke before its first observation could not say what type its task is.
    typed = (replace(t, task_type=t.task_type or env.task_type(t.key.task)) for t in trajectories)
    episodes = tuple(episode_of(trajectory) for trajectory in typed)
    return Evaluation(protocol, summarise(episodes), episodes)


def _protocol(env: TextEnv, spec: EnvSpec, policy: str, options: EvalOptions) -> EvalProtocol:
    suite = env.suite
    beside = {k: v for k, v in spec.options.items() if k not in ("suite", "max_turns")}
    return EvalProtocol(
        agentgym=__version__,
        env=env.name,
        options=dict(sorted(beside.items())),
        suite=suite.name,
        digest=suite.digest,
        official=suite.official,
        held_out=suite.held_out,
        note=unpublished_note(suite),
        suite_tasks=len(suite.tasks),
        tasks=len(tasks_of(env, options.task_types)[: options.tasks]),
        samples=options.samples,
        seed=options.seed,
        max_turns=env.max_turns,
        policy=policy,
        task_types=options.task_types,
    )


def _play(
    spec: EnvSpec,
    policy: Callable[[], TextPolicy],
    keys: Sequence[Key],
    options: EvalOptions,
    started: Callable[[int, int], None],
) -> list[Trajectory]:
    count = 0

    def voice(key: Key, _: int) -> Voice:
        nonlocal count
        count += 1
        started(count, len(keys))
        draws = random.Random(f"{options.seed}:{key.task}:{key.member}").getrandbits(31)
        return TextVoice(policy(), key, draws)

    # Each holds an environment, which may be dear; inside this process more than one gain nothing.
    at_once = max(1, _A_WORKER * options.workers)

    async def run() -> list[Trajectory]:
        async with WorkerPool(spec, options.workers) as pool:
            return await play_all(pool, keys, voice, str(options.seed), at_once=at_once)

    return asyncio.run(run())
