"""Run a policy over a suite: every task exactly once a sample, and the protocol beside the result.

The result is a function of the protocol alone: each draw comes from the seed, the task and the
sample, so neither the number of workers nor their timing changes anything, nor does a kill: an
evaluation into a folder keeps each finished episode there and goes on after the last. A model in
this process samples all episodes of a batch together, and the same turn sampled in another batch
differs in its last bits; so its batches are part of the protocol, and a batch is kept when all of
it is finished.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentgym import __version__
from agentgym.envs.base import TextEnv
from agentgym.envs.registry import make_env
from agentgym.episodes import unpublished_note
from agentgym.errors import UsageError, unknown
from agentgym.policies.conversation import Script
from agentgym.policies.openai import ChatEpisode, Endpoint
from agentgym.policies.prompt import Prompt
from agentgym.provenance import commit, versions
from agentgym.results import EvalProtocol, Evaluation
from agentgym.rollout import play_all, play_policy, session_name
from agentgym.types import EnvSpec, Key, Policy, Row, TextPolicy, Trajectory, View
from agentgym.unbroken import Finished, Plan, Play, carry_out
from agentgym.voices import Said, SamplingOptions, TextVoice, Voice
from agentgym.workers import WorkerPool, check_workers, count_workers

_A_WORKER = 2  # episodes of a policy that acts on text: one is answered while the other's steps
_AT_AN_ENDPOINT = 8


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """How much is evaluated, and how.

    Raises:
        UsageError: A number below 1, or workers that nobody has.
    """

    tasks: int | None = None  # only the first tasks of the suite; None takes all
    samples: int = 1  # episodes a task
    seed: int = 0
    workers: int | str = 0  # as of a WorkerPool: processes, 0 for none, ray:8 for actors of Ray
    task_types: tuple[str, ...] = ()  # only these; all when empty
    at_once: int | None = None  # episodes at the same time; None takes what suits the policy

    def __post_init__(self) -> None:
        check_workers(self.workers)
        numbers = {"tasks": self.tasks, "samples": self.samples, "at_once": self.at_once}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise UsageError(f"an evaluation needs at least 1 of {name}, got {value}")


@dataclass(frozen=True, slots=True)
class Model:
    """A policy in tokens, with what it is told and how it is sampled."""

    name: str
    policy: Policy
    script: Script
    sampling: SamplingOptions
    weights: str | None = None  # SHA-256 of its folder, or its commit on the hub
    tokenizer: str | None = None  # SHA-256 of it and its chat template
    endpoint: str | None = None  # servers that others started, with weights of their own


def _nothing(_done: int, _all: int) -> None:
    pass


def evaluate(
    spec: EnvSpec,
    policy: Callable[[], TextPolicy],
    options: EvalOptions,
    tell: Callable[[int, int], None] = _nothing,
    folder: Path | None = None,
) -> Evaluation:
    """Play every task of a suite and return what happened.

    Args:
        spec: The environment; its options name the suite.
        policy: Makes the policy of one episode. Episodes go on at the same time, so each has its
            own.
        options: How much, and how.
        tell: Told, whenever an episode is over, how many are and how many there are.
        folder: Where finished episodes are kept and results are written; an evaluation that was
            ended there goes on, and one that is done is read.

    Raises:
        UsageError: The policy needs an expert and the environment has none, an option does not
            fit, or the folder holds something else.
        DataError: The suite's data is not there, or the folder cannot be written.
    """
    env = _asked(spec)
    example = policy()
    if example.needs_expert and not env.has_expert:
        raise UsageError(f"{env.name} has no expert; choose another policy than {example.name}")
    # Each holds an environment, which may be dear; inside this process more than one gain nothing.
    at_once = options.at_once or max(1, _A_WORKER * count_workers(options.workers))

    def voice(key: Key, _: int) -> Voice:
        draws = random.Random(f"{options.seed}:{key.task}:{key.member}").getrandbits(31)
        return TextVoice(policy(), key, draws)

    async def play(pool: WorkerPool, keys: Sequence[Key], finished: Finished) -> None:
        seed = _env_seed(options)
        await play_all(
            pool, keys, voice, seed, at_once=at_once, finished=lambda one: finished([one])
        )

    protocol = _protocol(env, spec, example.name, options)
    return carry_out(_plan(env, spec, options, protocol, play), tell, folder)


def evaluate_model(
    spec: EnvSpec,
    model: Model,
    options: EvalOptions,
    played: Callable[[Sequence[Trajectory]], None] = lambda _: None,
    tell: Callable[[int, int], None] = _nothing,
    folder: Path | None = None,
) -> Evaluation:
    """Play every task of a suite with a policy in tokens and return what happened.

    Args:
        spec: The environment; its options name the suite.
        model: What plays.
        options: How much, and how.
        played: Given the episodes, without their tokens, in the order of the result's.
        tell: Told, whenever episodes are over, how many are and how many there are.
        folder: Where finished episodes are kept and results are written; see :func:`evaluate`.

    Raises:
        UsageError: An option does not fit, or the folder holds something else.
        DataError: The suite's data is not there, or the folder cannot be written.
    """
    env = _asked(spec)
    protocol = replace(
        _protocol(env, spec, model.name, options),
        sampling=model.sampling.model_dump(),
        prompt=model.script.prompt.digest,
        weights=model.weights,
        tokenizer=model.tokenizer,
        endpoint=model.endpoint,
    )

    rounds = model.policy.pacing == "rounds"  # a batch then counts when all of it is over

    async def play(pool: WorkerPool, keys: Sequence[Key], finished: Finished) -> None:
        done = await play_policy(
            pool,
            keys,
            model.policy,
            model.script.begin,
            model.sampling,
            _env_seed(options),
            finished=None if rounds else lambda one: finished([one]),
            at_once=options.at_once,
        )
        if rounds:
            finished(done)

    plan = _plan(env, spec, options, protocol, play)
    if rounds:
        plan = replace(plan, batch=options.at_once or len(plan.keys))
    return carry_out(plan, tell, folder, played)


class _ChatVoice:
    """An endpoint, as the voice of one episode."""

    needs_expert = False

    def __init__(self, episode: ChatEpisode) -> None:
        self._episode = episode
        self.faults = 0

    async def answer(self, view: View) -> Said | None:
        parsed = await self._episode.answer(view)
        self.faults = self._episode.faults
        return None if parsed is None else Said(parsed.text, parsed.action, parsed.error)

    def rows(self) -> tuple[Row, ...]:
        return ()


def evaluate_endpoint(
    spec: EnvSpec,
    endpoint: Endpoint,
    prompt: Prompt,
    options: EvalOptions,
    tell: Callable[[int, int], None] = _nothing,
    folder: Path | None = None,
) -> Evaluation:
    """Play every task of a suite with a model of a chat endpoint and return what happened.

    What it says is the endpoint's own doing: the same protocol need not give the same result.

    Args:
        spec: The environment; its options name the suite.
        endpoint: What plays; closed afterwards.
        prompt: What the model is told.
        options: How much, and how.
        tell: Told, whenever an episode is over, how many are and how many there are.
        folder: Where finished episodes are kept and results are written; see :func:`evaluate`.

    Raises:
        UsageError: An option does not fit, or the folder holds something else.
        DataError: The suite's data is not there, or the folder cannot be written.
        ServerError: The endpoint refused, or could not be reached. Finished episodes are kept.
    """
    env = _asked(spec)
    asked = endpoint.options
    protocol = replace(
        _protocol(env, spec, asked.model, options),
        sampling=asked.model_dump(include={"temperature", "max_tokens", "request"}),
        prompt=prompt.digest,
        endpoint=endpoint.url,
    )
    seed = _env_seed(options)

    async def play(pool: WorkerPool, keys: Sequence[Key], finished: Finished) -> None:
        episodes: dict[Key, ChatEpisode] = {}

        def voice(key: Key, _: int) -> Voice:
            episodes[key] = endpoint.begin(prompt, session_name(seed, key))
            return _ChatVoice(episodes[key])

        def counted(one: Trajectory) -> None:
            finished([replace(one, usage=episodes.pop(one.key).usage)])

        at_once = options.at_once or _AT_AN_ENDPOINT
        async with endpoint:
            await play_all(pool, keys, voice, seed, at_once=at_once, finished=counted)

    return carry_out(_plan(env, spec, options, protocol, play), tell, folder)


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


def _asked(spec: EnvSpec) -> TextEnv:
    env = make_env(spec)
    env.close()
    return env


def _env_seed(options: EvalOptions) -> str:
    return f"{options.seed}:eval"


def _keys(env: TextEnv, options: EvalOptions) -> tuple[Key, ...]:
    """Return the episodes, in the suite's order, the samples of a task together."""
    tasks = tasks_of(env, options.task_types)[: options.tasks]
    return tuple(Key(task, sample) for task in tasks for sample in range(options.samples))


def _plan(
    env: TextEnv, spec: EnvSpec, options: EvalOptions, protocol: EvalProtocol, play: Play
) -> Plan:
    return Plan(spec, options.workers, _keys(env, options), env.task_type, protocol, play)


def _protocol(env: TextEnv, spec: EnvSpec, policy: str, options: EvalOptions) -> EvalProtocol:
    suite = env.suite
    beside = {k: v for k, v in spec.options.items() if k not in ("suite", "max_turns")}
    return EvalProtocol(
        agentgym=__version__,
        commit=commit(),
        versions=versions(),
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
