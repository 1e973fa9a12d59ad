"""The training loop. It reads top to bottom and knows no method and no environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from agentgym.branching import collect_trees
from agentgym.errors import AgentGymError, CollapseError, UsageError
from agentgym.policies.hf import HFPolicy
from agentgym.rollout import RolloutOptions, collect_groups
from agentgym.trainers.ahead import Played, Rollouts, Took
from agentgym.trainers.batch import pack
from agentgym.trainers.checkpoint import save_checkpoint
from agentgym.trainers.collect import Collected, Play, collect
from agentgym.trainers.decks import draw_tasks, spare_tasks
from agentgym.trainers.guard import Guard, Verdict
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain
from agentgym.trainers.metrics import (
    age_metrics,
    batch_metrics,
    episode_metrics,
    metrics_by_environment,
)
from agentgym.trainers.run_folder import RunFolder, SaveOptions
from agentgym.trainers.shared_play import shared
from agentgym.trainers.trajectory_lines import Decode, trajectory_lines
from agentgym.trainers.worlds import World, answers_at_home, each_at_home
from agentgym.types import Group, Policy, Trajectory
from agentgym.voices import SamplingOptions


class HeldOutOptions(BaseModel):
    """What is measured during training, and how often.

    Attributes:
        suite: Held-out tasks, by the name of their suite, or of several.
        task_types: Only tasks of these types; all when empty.
        tasks: How many of each suite, from the front of its fixed order.
        every: After every so many steps; 0 measures only before the first and after the last.
        temperature: Sampling temperature of evaluations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str | tuple[str, ...] = Field(min_length=1)
    task_types: tuple[str, ...] = ()
    tasks: int = Field(default=64, ge=1)
    every: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.4, ge=0)

    @property
    def suites(self) -> tuple[str, ...]:
        """The names of the suites."""
        return (self.suite,) if isinstance(self.suite, str) else self.suite


class Spent(Protocol):
    """What sampling took."""

    @property
    def seconds(self) -> float:
        """In which something was sampled, so far."""


class Sampler(Policy, Protocol):
    """A policy that knows what sampling took."""

    @property
    def spent(self) -> Spent:
        """Until now."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of.

    ``policy`` holds what is trained and saved; ``sampler`` plays with it, is the same or a server,
    and has the weights of a version after ``hand_over`` was told its number; after ``rest`` it need
    not answer until the next ``hand_over``. ``evaluate`` measures the policy as it is after a step
    and returns metrics; ``report`` is told the metrics of each step and ``say`` what else people
    should know; ``interrupted`` says whether someone asked the run to stop. Of a run on many
    processes each one has parts of its own and takes every step; ``by_first`` says whether the
    first one alone plays, as it alone knows the servers.
    """

    run: RunFolder
    learner: Learner
    method: Chain
    policy: HFPolicy
    sampler: Sampler
    hand_over: Callable[[int], None]
    worlds: Sequence[World]
    evaluate: Callable[[int], dict[str, float]]
    report: Callable[[dict[str, float]], None]
    say: Callable[[str], None]
    interrupted: Callable[[], bool]
    decode: Decode | None = None  # for people who look at the tokens of a trajectory
    guard: Guard | None = None  # watches for a collapse
    stage: Callable[[str], None] = lambda _: None  # told what begins
    rest: Callable[[], None] | None = None  # of a sampler that takes room which an update needs
    by_first: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes: how long, how much a step collects, what is measured and kept."""

    steps: int
    seed: int
    rollout: RolloutOptions
    sampling: SamplingOptions
    eval_every: int  # 0: only after the last step
    save: SaveOptions


@dataclass(slots=True)
class Clock:
    """Seconds that the stages of one step took, as ``time/<stage>``; tells what begins."""

    entered: Callable[[str], None] = lambda _: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside the block to the stage's."""
        self.entered(name)
        begun = time.perf_counter()
        yield
        spent = time.perf_counter() - begun
        self.seconds[f"time/{name}"] = self.seconds.get(f"time/{name}", 0.0) + spent

    def divide_rollout(self, took: Took, *, ahead: bool) -> None:
        """Say how much of the rollout was generation; the rest went into the environments.

        Args:
            took: What playing took.
            ahead: Whether it was played ahead: then the stage was a wait.
        """
        answers = self.seconds.get("time/answers", 0.0)
        if ahead:
            self.seconds["time/wait"] = self.seconds["time/rollout"] - answers
            self.seconds["time/rollout"] = took.seconds + answers
        self.seconds["time/generate"] = took.generated
        self.seconds["time/env"] = self.seconds["time/rollout"] - took.generated - answers


def train(parts: Parts, plan: Plan, done: int = 0) -> None:
    """Train from after step ``done`` to the last step.

    Each step: sample groups with the current weights, give rewards, select (and sample others in
    the place of those that went), pack, score before the update, give credit, update, remember,
    hand the weights to the sampler, evaluate, save, report. Where ``plan.rollout.staleness`` is
    not 0, the groups of later steps are sampled meanwhile; what was sampled ahead is in no
    checkpoint, and a resumed run samples it anew.

    Raises:
        AgentGymError: No group of a step was left to learn from.
        CollapseError: The guard said so; the step it was in is done and saved.
        UsageError: No episode of a step had room for its first turn.
        KeyboardInterrupt: ``parts.interrupted`` said so; the step it was in is done and saved.
    """
    with _rollouts(parts, plan) as rollouts:
        _steps(parts, plan, rollouts, done)


def _steps(parts: Parts, plan: Plan, rollouts: Rollouts, done: int) -> None:
    """Take the steps from after ``done`` on."""
    learner, method, run = parts.learner, parts.method, parts.run
    names = [world.name for world in parts.worlds]
    heard: set[str] = set()
    for step in range(done + 1, plan.steps + 1):
        clock = Clock(parts.stage)
        with clock.stage("step"):
            with clock.stage("sync"):
                parts.hand_over(step - 1)
            found = _play(parts, plan, rollouts, step, clock)
            if not heard.issuperset(found.reasons()):
                parts.say(f"step {step}: {found.what_broke(heard)}")
                heard.update(found.reasons())
            _refuse_nothing(found, plan, step)
            batch = pack(found.groups, found.rewards)
            if parts.rest is not None:
                with clock.stage("sync"):
                    parts.rest()
            with clock.stage("score"):
                batch = learner.prepare(batch, plan.sampling.temperature)
            batch = method.advantages(batch, step)
            with clock.stage("update"):
                batch, updated = learner.update(batch, method, step)
            method.observe(batch, step)
        metrics = {
            "step": step,
            **episode_metrics(found.played, plan.sampling.max_tokens),
            **batch_metrics(batch),
            **updated,
            **found.metrics(),
            **age_metrics(batch.trajectories, step - 1),
            **metrics_by_environment(names, found.played, found.broken, batch),
            **clock.seconds,
            "perf/tokens_per_s": batch.length_B.sum().item() / clock.seconds["time/step"],
        }
        last = step == plan.steps
        if last or (plan.eval_every and step % plan.eval_every == 0):
            parts.hand_over(step)
            with clock.stage("eval"):
                metrics |= parts.evaluate(step)
            metrics["time/eval"] = clock.seconds["time/eval"]
        if plan.save.trajectories_every and (step % plan.save.trajectories_every == 0 or last):
            run.write_trajectories(
                step, trajectory_lines(batch, plan.save.token_fields, parts.decode)
            )
        metrics = learner.ranks.by_first(partial(dict, metrics))  # times are those of the first
        verdict = parts.guard(metrics) if parts.guard else Verdict()
        run.append_metrics(metrics | verdict.metrics)
        stop = parts.interrupted()  # asked once: a step that ends the run is a step that was saved
        if last or stop or verdict.save or step % plan.save.every == 0:
            parts.stage("save")
            save_checkpoint(parts.run, learner, method, parts.policy, step, plan.save.keep)
        parts.report(metrics)
        if verdict.stop and not last:
            raise CollapseError(f"{verdict.alarms[0]}; the guard ended the run, which is saved")
        if stop and not last:
            raise KeyboardInterrupt


def _play(parts: Parts, plan: Plan, rollouts: Rollouts, step: int, clock: Clock) -> Collected:
    """Return the groups of a step; later ones may be played while it is learnt from."""
    method, ranks, decks = parts.method, parts.learner.ranks, [w.deck for w in parts.worlds]
    with clock.stage("rollout"):
        tasks = draw_tasks(decks, plan.rollout.tasks_per_step, plan.seed, step)
        spare = spare_tasks(decks, tasks, plan.seed, step)
        play = shared(rollouts.of(step), ranks, parts.worlds, by_first=parts.by_first)
        play = _scoring(play, parts, clock, f"{plan.seed}:{step}")
        found = collect(play, method, tasks, spare, step)
        method.gather(ranks, step)
    clock.divide_rollout(rollouts.took(step), ahead=rollouts.ahead)
    rollouts.go_on(step)
    return found


def _rollouts(parts: Parts, plan: Plan) -> Rollouts:
    """Return what plays the steps: each in its turn, or ahead where the plan says so."""
    decks, asked = [world.deck for world in parts.worlds], plan.rollout
    return Rollouts(
        begin=partial(_begin, parts, plan),
        tasks=partial(draw_tasks, decks, asked.tasks_per_step, plan.seed),
        staleness=asked.staleness if parts.learner.ranks.is_first else 0,  # others only listen
        last=plan.steps,
        spent=lambda: parts.sampler.spent.seconds,
        stop=parts.sampler.close,
    )


def _begin(parts: Parts, plan: Plan, step: int, tasks: Sequence[str]) -> Callable[[], Played]:
    """Return what plays a group of episodes a task with the weights as they are then."""
    size, seed = plan.rollout.group_size, f"{plan.seed}:{step}"
    plans = {world.name: parts.method.collect(size, seed, step) for world in parts.worlds}

    def play_in(world: World, tasks: Sequence[str]) -> Played:
        pool, policy, conversation = world.pool, parts.sampler, world.conversation
        branching = plans[world.name]
        if branching is None:
            return collect_groups(pool, tasks, size, policy, conversation, plan.sampling, seed)
        return collect_trees(
            pool, tasks, size, policy, conversation, plan.sampling, seed, branching
        )

    return partial(each_at_home(parts.worlds, play_in), tasks)


def _scoring(play: Play, parts: Parts, clock: Clock, seed: str) -> Play:
    """Return what plays, and then scores gold answers where the method needs to know them."""
    if parts.method.answers is None:
        return play

    def play_and_score(tasks: Sequence[str]) -> tuple[list[Group], list[Trajectory]]:
        groups, broken = play(tasks)
        with clock.stage("answers"):
            return answers_at_home(parts.worlds, groups, seed), broken

    return play_and_score


def _refuse_nothing(found: Collected, plan: Plan, step: int) -> None:
    """Refuse a step that has nothing to learn from.

    Raises:
        AgentGymError: No group is left.
        UsageError: No episode had room for its first turn.
    """
    if not found.groups:
        raise AgentGymError(f"step {step}: no group is left to learn from; {found.what_broke()}")
    if not any(t.rows for group in found.groups for t in group.trajectories):
        raise UsageError(
            f"step {step}: no episode had room for a first turn of"
            f" {plan.sampling.max_tokens} tokens; raise policy.sampling.max_context"
            f" (it is {plan.sampling.max_context}) or lower max_tokens"
        )
