"""A training run from its configuration to its last table: builds the parts and runs the loop."""

from __future__ import annotations

import hashlib
import platform
import signal
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple, TypeVar

import torch
import transformers
from torch import nn

from agentgym import __version__
from agentgym.budget import foretell
from agentgym.config import Config, load
from agentgym.envs.registry import env_of_suite
from agentgym.errors import DataError, UsageError
from agentgym.evaluate import EvalOptions, Model, evaluate_model
from agentgym.launch import launched
from agentgym.models import check_context, check_top_k
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.hf import HFPolicy, spare_threads
from agentgym.policies.peek import peek
from agentgym.policies.serve_command import find_vllm
from agentgym.provenance import commit
from agentgym.results import Evaluation, has_results, read_results, write_results
from agentgym.run_envs import Suites, env_spec, open_scripts, open_suites, open_worlds
from agentgym.sharing import refuse_unshareable, served_beside
from agentgym.tracking import tracking
from agentgym.trainers.answer_scores import answer_scorer
from agentgym.trainers.checkpoint import ADAPTER, MODEL, load_trainer_state
from agentgym.trainers.demonstrated import remember_demonstrations
from agentgym.trainers.guard import Guard
from agentgym.trainers.learner import Learner
from agentgym.trainers.loop import Parts, Plan, Sampler, train
from agentgym.trainers.lora import add_adapter, load_adapter
from agentgym.trainers.method import Chain, Need
from agentgym.trainers.policy_gradient import refuse_groups_of_one
from agentgym.trainers.ranks import Ranks
from agentgym.trainers.registry import build_chain
from agentgym.trainers.rendezvous import joined
from agentgym.trainers.run_folder import BystanderFolder, RunFolder, alone
from agentgym.trainers.served import Serving, named_servers, own_servers
from agentgym.trainers.sharding import ParallelOptions
from agentgym.trajectory_line import trajectory_line
from agentgym.types import Policy, Trajectory
from agentgym.waits import longest_wait
from agentgym.watchdog import watching

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who is told what happens: lines of text, the metrics of each step, and what begins."""

    say: Callable[[str], None]
    step: Callable[[dict[str, float]], None]
    stage: Callable[[str], None] = lambda _: None


_TOLD_TWICE_S = 5.0
"""A launcher passes on a signal that a job's manager may have sent to each process itself."""

SILENT = Reporter(lambda _: None, lambda _: None)
"""Tells nobody: of the processes of a run the first one speaks."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The held-out evaluations of a run on one suite."""

    before: Evaluation
    after: Evaluation


def resumed_config(folder: Path) -> Config:
    """Return the configuration of a run that was begun before.

    Raises:
        UsageError: There is no run in the folder, or it is done.
    """
    run = RunFolder.open(folder)
    written = tomllib.loads(run.config)
    if "sft" in written:
        raise UsageError(f"the run in {folder} is behaviour cloning; resume it with --method sft")
    try:
        config = load([written])
    except UsageError as error:
        raise UsageError(
            f"{folder / 'config.toml'}: {error} Which version of agentgym wrote it is in"
            f" {folder / 'env.json'}"
        ) from error
    latest = run.latest_checkpoint()
    if latest is not None and latest[0] >= config.steps:
        raise UsageError(f"the run in {folder} is done: {config.steps} of {config.steps} steps")
    return config


def dry_run(config: Config, folder: Path, *, resume: bool) -> list[str]:
    """Return the resolved configuration and what a run would do, without doing it.

    The weights are not loaded: what they lack only the run finds.

    Raises:
        AgentGymError: Folder, method, suites, task types, model, its tokenizer or the context do
            not fit; the same error as the run's.
    """
    latest = RunFolder.open(folder).latest_checkpoint() if resume else RunFolder.refuse(folder)
    method = _method(config)
    suites = open_suites(config, method)
    episodes = config.rollout.tasks_per_step * config.rollout.group_size
    serving = _serving(config)
    serving.check()
    budget = foretell(config, peek(resolve_model(config.policy.model)))
    return [
        *config.to_toml().splitlines(),
        "",
        f"would {'resume' if resume else 'begin'} in {folder} after step"
        f" {latest[0] if latest else 0}",
        f"would train {config.policy.model} by {method.name} for {config.steps} steps of {episodes}"
        f" episodes on {suites.tasks} tasks",
        f"would measure {config.eval.tasks} tasks of {' and of '.join(config.eval.suites)}"
        " before and after",
        *budget,
        f"would sample {_where(serving)}{_ahead(config.rollout.staleness)}"
        + (", asleep in each update" if serving.server.sleep else ""),
    ]


def _ahead(staleness: int) -> str:
    steps = "a step" if staleness == 1 else f"{staleness} steps"
    return f", {steps} ahead of the update" if staleness else ""


def _where(serving: Serving) -> str:
    if serving.server.urls:
        return f"with the vLLM servers at {', '.join(serving.server.urls)}"
    if serving.serve is not None:
        count = serving.serve.replicas
        own = "a vLLM server" if count == 1 else f"{count} vLLM servers"
        return f"with {own} of its own: {' '.join(find_vllm(serving.serve.vllm))}"
    return "in this process"


def run_training(
    config: Config, folder: Path, reporter: Reporter, *, resume: bool
) -> list[Outcome]:
    """Train a run from where it is to its end.

    Everything that can be refused is refused before a new run's folder is made. A first interrupt
    (Ctrl-C or SIGTERM) lets the step under way end and saves it; a second one ends at once, and
    the last checkpoint stands.

    Of a run on many processes each one calls this; the first one speaks and writes.

    Args:
        config: What to do; of a resumed run, its own.
        folder: The run folder; of many processes the first one's counts.
        reporter: Who is told; of many processes the first one's is.
        resume: Whether the run was begun before.

    Returns:
        For each suite the held-out evaluation before the first step and after the last.

    Raises:
        KeyboardInterrupt: The run was interrupted and its last step saved.
        UsageError: A part does not fit another: folder, model, context, method, task types.
        DataError: The model or a checkpoint cannot be read, or the folder cannot be written.
        ServerError: A server that samples cannot be used, or is lost for good.
        LostRankError: Another process of the run was lost, or never came.
    """
    serving = _serving(config)
    with ExitStack() as stack:
        ranks = stack.enter_context(joined(launched(), _parallel(config), _alike(config)))
        reporter = reporter if ranks.is_first else SILENT
        folder, checkpoint = ranks.by_first(
            partial(_enter, folder, stack, serving, reporter.say, resume=resume)
        )
        if ranks.size > 1:
            reporter.say(f"processes: {ranks.size}, weights {config.parallel.weights}")
        site = _Site(config, folder, serving, ranks, reporter, stack)
        trainee = _trainee(config, checkpoint, ranks)
        suites = open_suites(config, trainee.method)
        _prepare(config, trainee)
        playing = _Playing(trainee.policy, trainee.policy.refresh)
        if serving.server.urls and ranks.is_first:
            playing = _with_named_servers(site, trainee.policy)
        run = _open_run(site, suites, resume=resume)
        run.cut(trainee.done)
        if serving.serve is not None and ranks.is_first:
            playing = _with_own_servers(site, trainee.policy)
        playing.hand_over(trainee.done)
        measure = partial(_measure, run, config, playing.sampler, trainee.scripts)
        parts = _parts(site, run, trainee, suites, playing, measure)
        ranks.by_first(partial(_begin, parts, measure, config, trainee.done))
        train(parts, _plan(config), trainee.done)
        return ranks.by_first(partial(_outcomes, run, config))


@dataclass(frozen=True, slots=True)
class _Site:
    """What the parts of a run are put together in."""

    config: Config
    folder: Path
    serving: Serving
    ranks: Ranks
    reporter: Reporter
    stack: ExitStack  # closes what was opened for the run


class _Playing(NamedTuple):
    """What samples in a run, and how it gets weights; see :class:`Parts`."""

    sampler: Sampler
    hand_over: Callable[[int], None]
    rest: Callable[[], None] | None = None


def _prepare(config: Config, trainee: _Trainee) -> None:
    """Refuse what scoring answers would refuse later, and fill what remembers demonstrations."""
    method, scripts, learner = trainee.method, trainee.scripts, trainee.learner
    for script in scripts.values():
        answer_scorer(method, script, learner, trainee.policy)
    if not trainee.done:
        remember_demonstrations(method, scripts, learner, config.policy.sampling.temperature)


def _with_named_servers(site: _Site, policy: HFPolicy) -> _Playing:
    """Return how servers sample that others started, once they were found to fit."""
    config, serving = site.config, site.serving
    servers = named_servers(policy, serving, site.folder)
    sampler, handing = site.stack.enter_context(servers)
    check_context(config.policy.model, sampler, config.policy.sampling)
    _check_branching(config, sampler, len(serving.server.urls))
    return _Playing(sampler, handing, handing.rest)


def _with_own_servers(site: _Site, policy: HFPolicy) -> _Playing:
    """Start servers in the run's folder, and return how they sample."""
    served = own_servers(policy, site.serving, site.folder, site.reporter.say)
    sampler, handing = site.stack.enter_context(served)
    _check_branching(site.config, sampler)
    return _Playing(sampler, handing, handing.rest)


def _open_run(site: _Site, suites: Suites, *, resume: bool) -> RunFolder:
    """Return the run's folder, made where the run is new; the first process alone writes there."""
    if not site.ranks.is_first:
        return BystanderFolder(site.folder)
    if resume:
        return RunFolder.open(site.folder)
    site.stack.enter_context(alone(site.folder))
    about = _about() | {"suites": suites.digests, "processes": site.ranks.size}
    return RunFolder.create(site.folder, site.config.to_toml(), about)


def _parts(
    site: _Site,
    run: RunFolder,
    trainee: _Trainee,
    suites: Suites,
    playing: _Playing,
    measure: Callable[[int], dict[str, float]],
) -> Parts:
    """Open the environments and all that watches a run, and put its parts together."""
    config, ranks, stack, reporter = site.config, site.ranks, site.stack, site.reporter
    policy, learner, method = trainee.policy, trainee.learner, trainee.method
    sampler = playing.sampler
    by_first = site.serving.is_asked
    worlds = open_worlds(
        config, suites, trainee.scripts, stack, method, learner, sampler, by_first=by_first
    )
    twice_s = _TOLD_TWICE_S if ranks.size > 1 else 0.0
    interrupted = stack.enter_context(interrupts(reporter.say, twice_s))
    watched = watching(config.guard.stall_after, lambda: sampler.spent.seconds, reporter.say)
    begins = _both(stack.enter_context(watched), reporter.stage)
    trackers = config.trackers if ranks.is_first else ()
    tracked = tracking(trackers, run.path, config.model_dump(mode="json"))
    return Parts(
        run=run,
        learner=learner,
        method=method,
        policy=policy,
        sampler=sampler,
        hand_over=_both(lambda _: learner.publish(), playing.hand_over),
        rest=playing.rest,
        worlds=worlds,
        evaluate=lambda step: ranks.by_first(partial(measure, step)),
        report=_both(reporter.step, stack.enter_context(tracked)),
        say=reporter.say,
        interrupted=lambda: ranks.any(interrupted()),
        decode=partial(policy.tokenizer.decode, skip_special_tokens=False),
        guard=Guard(config.guard, reporter.say, learner.scale_rate, ranks.by_first(run.metrics)),
        stage=begins,
        by_first=by_first,
    )


def _enter(
    folder: Path, stack: ExitStack, serving: Serving, say: Callable[[str], None], *, resume: bool
) -> tuple[Path, tuple[int, Path] | None]:
    """Return a run's folder, and the checkpoint that is gone on from."""
    serving.check()
    if not resume:
        RunFolder.refuse(folder)
        return folder, None
    stack.enter_context(alone(RunFolder.open(folder).path))
    return folder, RunFolder(folder).sound_checkpoint(say)


def _parallel(config: Config) -> ParallelOptions:
    """Return how processes train together, with the time that they wait for each other."""
    asked = config.parallel
    if asked.timeout is not None:
        return asked
    return asked.model_copy(update={"timeout": longest_wait(config)})


def _alike(config: Config) -> dict[str, str]:
    """Return what all processes of a run must have in common."""
    return {
        "agentgym": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "the configuration": f"sha256 {hashlib.sha256(config.to_toml().encode()).hexdigest()[:12]}",
    }


def _outcomes(run: RunFolder, config: Config) -> list[Outcome]:
    return [
        Outcome(*(read_results(run.eval_folder(step, below)) for step in (0, config.steps)))
        for below in _measured(config).values()
    ]


@dataclass(frozen=True, slots=True)
class _Trainee:
    """What a run trains and by what, brought to the step that it goes on from."""

    policy: HFPolicy
    scripts: Mapping[str, Script]  # by environment
    method: Chain
    learner: Learner
    done: int  # steps


def _trainee(config: Config, checkpoint: tuple[int, Path] | None, ranks: Ranks) -> _Trainee:
    """Return the model that a run begins with, or that of a checkpoint, and what trains it."""
    asked, device = config.policy, str(ranks.device) if ranks.size > 1 else None
    apart = config.parallel.weights == "sharded" and _serving(config).is_asked
    # Where neither the learner nor the sampler uses the whole weights, they are for writing alone.
    place = "cpu" if apart and asked.server.sync != "nccl" else device
    policy = _policy(config, checkpoint[1] if checkpoint else None, place)
    spare_threads(policy.model)
    method = _method(config)
    learner = Learner(
        policy.model,
        config.optim,
        config.steps,
        method.needs,
        config.seed,
        _reference(config, method, place) if checkpoint else None,
        asked.dtype,
        ranks,
        config.parallel,
    )
    done = load_trainer_state(checkpoint[1], learner, method) if checkpoint else 0
    if apart and not ranks.is_first:
        nn.Module.to(policy.model, "meta")  # and the first process writes
    check_context(asked.model, policy, asked.sampling)
    trained = checkpoint[1] / MODEL if checkpoint else None
    return _Trainee(policy, open_scripts(config, policy, trained), method, learner, done)


def _begin(
    parts: Parts, measure: Callable[[int], dict[str, float]], config: Config, done: int
) -> None:
    """Measure the model before the first step; of a resumed run, see that this was done.

    Raises:
        DataError: The results of that measurement are gone.
    """
    if done:
        parts.say(f"resumed after step {done} of {config.steps}")
    folders = [parts.run.eval_folder(0, below) for below in _measured(config).values()]
    missing = [folder for folder in folders if not has_results(folder)]
    if not missing:
        return
    if done:  # the weights are no longer those that the run began with
        raise DataError(
            f"{missing[0]} has no results of the evaluation before the first step, which the last"
            " table needs; bring it back, or start a new run"
        )
    several = len(config.eval.suites)
    each = f" of each of {several} suites" if several > 1 else ""
    parts.say(f"measuring {config.eval.tasks} held-out tasks{each} before the first step")
    parts.stage("eval")
    measure(0)


def _serving(config: Config) -> Serving:
    """Return what the run wants of servers, where it has any.

    Raises:
        UsageError: Steps are to be played ahead, and nobody but this process plays; or a server
            shall sleep meanwhile, and cannot.
    """
    refuse_unshareable(config)
    asked = config.policy
    if config.rollout.staleness and not asked.server.urls and asked.serve is None:
        raise UsageError(
            f"rollout.staleness is {config.rollout.staleness}, and the model samples in this"
            " process, where it cannot be updated meanwhile; let a server sample (--serve or"
            " --server), or set rollout.staleness = 0"
        )
    return Serving(
        asked.server,
        served_beside(config),
        resolve_model(asked.model),
        asked.dtype,
        None if asked.lora is None else asked.lora.rank,
        asked.sampling.max_context,
        (asked.sampling.temperature, config.eval.temperature),
    )


def _both(first: Callable[[T], object], second: Callable[[T], object]) -> Callable[[T], None]:
    def tell(what: T) -> None:
        first(what)
        second(what)

    return tell


def _method(config: Config) -> Chain:
    """Return what the run trains by.

    Raises:
        UsageError: There is no such method, it cannot plan groups of that size, or steps cannot
            be played ahead as far with it.
    """
    method, tried = (build_chain(config.method, config.steps, config.reward) for _ in range(2))
    refuse_groups_of_one(method, config.rollout.group_size)
    plans = method.answers is not None and method.answers.answer == "expert"
    if plans and config.rollout.staleness > 1:
        raise UsageError(
            f"rollout.staleness is {config.rollout.staleness}, and {method.name} asks the expert in"
            " the environments of a step that was played, while a later one would be played in"
            " them; set rollout.staleness = 1"
        )
    tried.collect(config.rollout.group_size, str(config.seed), 1)  # a plan that fits, or an error
    return method


def _check_branching(config: Config, policy: Policy, servers: int = 1) -> None:
    """Refuse servers without the entropies that the method needs, where it branches at all."""
    method = build_chain(config.method, config.steps, config.reward)
    plan = method.collect(config.rollout.group_size, str(config.seed), 1)
    if plan is not None:
        check_top_k(method.name, policy, plan.top_k, servers)


def _about() -> dict[str, object]:
    """Return what made the run, beside its configuration."""
    return {
        "agentgym": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def _policy(config: Config, checkpoint: Path | None, device: str | None) -> HFPolicy:
    """Return the model that is trained: as a run begins, or as a checkpoint left it."""
    asked = config.policy
    if asked.lora is None:
        source = resolve_model(asked.model) if checkpoint is None else checkpoint / MODEL
        return HFPolicy.from_pretrained(source, device, compute=asked.dtype)
    dtype = getattr(torch, asked.dtype)
    policy = HFPolicy.from_pretrained(resolve_model(asked.model), device, dtype, asked.dtype)
    if checkpoint is None:
        add_adapter(policy.model, asked.lora, config.seed)
    else:
        load_adapter(policy.model, checkpoint / ADAPTER)
    return policy


def _reference(config: Config, method: Chain, device: str | None) -> nn.Module | None:
    """Return the model that the run began with, where divergences are measured from it.

    Under LoRA that is the model without its adapter, which the learner has.
    """
    if Need.REFERENCE not in method.needs or config.policy.lora is not None:
        return None
    return HFPolicy.from_pretrained(resolve_model(config.policy.model), device).model


def _plan(config: Config) -> Plan:
    return Plan(
        steps=config.steps,
        seed=config.seed,
        rollout=config.rollout,
        sampling=config.policy.sampling,
        eval_every=config.eval.every,
        save=config.save,
    )


def _measured(config: Config) -> dict[str, str]:
    """Return the name below which the results of each held-out suite are kept in a run."""
    suites = config.eval.suites
    return {suite: suite if len(suites) > 1 else "" for suite in suites}


def _measure(
    run: RunFolder, config: Config, sampler: Policy, scripts: Mapping[str, Script], step: int
) -> dict[str, float]:
    """Evaluate the model as it is on the held-out tasks, and keep the results in the run.

    Results that are there stand: the run may have ended between two suites.
    """
    metrics: dict[str, float] = {}
    for suite, below in _measured(config).items():
        folder = run.eval_folder(step, below)
        if has_results(folder):
            evaluation = read_results(folder)
        else:
            model = _cooled(config, sampler, scripts, suite)
            keep = partial(_keep, run, step, below)
            evaluation = evaluate_model(env_spec(config, suite), model, _options(config), keep)
            write_results(evaluation, folder)
        metrics[f"eval/{suite}/success_rate"] = evaluation.summary.success.value
        metrics[f"eval/{suite}/score"] = evaluation.summary.score
    return metrics


def _options(config: Config) -> EvalOptions:
    asked = config.eval
    return EvalOptions(tasks=asked.tasks, task_types=asked.task_types, seed=config.seed)


def _cooled(config: Config, sampler: Policy, scripts: Mapping[str, Script], suite: str) -> Model:
    """Return the model as it is evaluated on a suite."""
    asked, env = config.policy, env_of_suite(suite)
    sampling = asked.sampling.model_copy(update={"temperature": config.eval.temperature})
    # A run in one environment may be measured in another; it is told what it was trained with.
    script = scripts[env] if len(scripts) > 1 else next(iter(scripts.values()))
    return Model(asked.model, sampler, script, sampling)


def _keep(run: RunFolder, step: int, below: str, trajectories: Sequence[Trajectory]) -> None:
    run.write_eval_trajectories(step, [trajectory_line(t) for t in trajectories], below)


@contextmanager
def interrupts(say: Callable[[str], None], twice_s: float = 0.0) -> Iterator[Callable[[], bool]]:
    """Yield what tells whether an interrupt came; a second one is raised where it comes.

    Args:
        say: Told of the first one.
        twice_s: So many seconds later a second one is taken for the first one told again.
    """
    asked: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked is not None:
            if time.monotonic() - asked < twice_s:
                return
            raise KeyboardInterrupt
        asked = time.monotonic()
        say("interrupted: the step under way is finished and saved; once more ends at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked is not None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
