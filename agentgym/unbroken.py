"""Carrying out an evaluation so that a kill at any moment changes nothing.

Each finished episode is kept in a journal. An evaluation that is carried out again plays only what
is missing there, and ends with the results of one without a break.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agentgym.episodes import data_digest, episode_of, summarise
from agentgym.files import write_atomic
from agentgym.journal import Journal, open_journal, remove_journal
from agentgym.results import TRAJECTORIES_FILE, EvalProtocol, Evaluation, results_there
from agentgym.run_files import RESULTS_FILE
from agentgym.trajectory_line import gzipped, trajectory_line
from agentgym.types import EnvSpec, Key, Trajectory
from agentgym.workers import WorkerPool

Finished = Callable[[Sequence[Trajectory]], None]
"""Is told episodes that are over and count from now on."""

Play = Callable[[WorkerPool, Sequence[Key], Finished], Awaitable[None]]
"""Plays episodes, and tells each of them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An evaluation before it is carried out.

    Attributes:
        spec: The environment.
        workers: As of a pool.
        keys: The episodes, in the order of the result.
        task_type: Of a task.
        protocol: All that the episodes are a function of.
        play: Plays some of them.
        batch: How many are sampled together, and kept when all of them are finished; None where
            each is on its own.
    """

    spec: EnvSpec
    workers: int | str
    keys: tuple[Key, ...]
    task_type: Callable[[str], str]
    protocol: EvalProtocol
    play: Play
    batch: int | None = None

    def fitted(self, capacity: int | None) -> Plan:
        """Return the plan for so many environments at once; None is any number."""
        if self.batch is None:
            return self
        batch = min(self.batch, len(self.keys), capacity or self.batch)
        return replace(self, batch=batch, protocol=replace(self.protocol, batch=batch))

    def batches(self, done: Mapping[Key, Trajectory]) -> list[Sequence[Key]]:
        """Return the episodes to play; those of one batch together."""
        if self.batch is None:
            return [[key for key in self.keys if key not in done]]
        starts = range(0, len(self.keys), self.batch)
        cut = [self.keys[start : start + self.batch] for start in starts]
        return [part for part in cut if any(key not in done for key in part)]

    def kept(self, trajectory: Trajectory) -> Trajectory:
        """Return what is kept of an episode."""
        # One that broke before its first observation could not say what type its task is.
        kind = trajectory.task_type or self.task_type(trajectory.key.task)
        return replace(trajectory, task_type=kind, rows=())


def carry_out(
    plan: Plan,
    tell: Callable[[int, int], None],
    folder: Path | None,
    played: Callable[[Sequence[Trajectory]], None] = lambda _: None,
) -> Evaluation:
    """Play what is not finished yet, and write the results where they are wanted.

    Args:
        plan: What is evaluated.
        tell: Told, whenever episodes are over, how many are and how many there are.
        folder: Where finished episodes are kept and results are written; an evaluation that was
            ended there goes on, and one that is done is read.
        played: Given all episodes, without their tokens, in the plan's order.

    Raises:
        UsageError: The folder holds something else.
        DataError: The folder cannot be written.
    """
    with closing(WorkerPool(plan.spec, plan.workers)) as pool:
        plan = plan.fitted(pool.capacity)
        there = None if folder is None else results_there(folder, plan.protocol)
        if there is not None:
            return there
        with _journal(folder, plan.protocol) as journal:
            trajectories = _play(plan, pool, journal, tell)
            played(trajectories)
            evaluation = _evaluation(plan.protocol, trajectories)
            if journal is not None:
                lines = map(trajectory_line, trajectories)
                write_atomic(journal.folder / TRAJECTORIES_FILE, gzipped(lines))
                write_atomic(journal.folder / RESULTS_FILE, evaluation.to_json())
                remove_journal(journal.folder)
            return evaluation


def _play(
    plan: Plan, pool: WorkerPool, journal: Journal | None, tell: Callable[[int, int], None]
) -> list[Trajectory]:
    """Return all episodes, those that were finished before among them, in the suite's order."""
    done = dict(journal.finished) if journal is not None else {}

    def finished(trajectories: Sequence[Trajectory]) -> None:
        kept = [plan.kept(one) for one in trajectories]
        if journal is not None:
            journal.append(kept)
        done.update({one.key: one for one in kept})
        tell(len(done), len(plan.keys))

    async def run() -> None:
        for part in plan.batches(done):
            await plan.play(pool, part, finished)

    if done:
        tell(len(done), len(plan.keys))
    asyncio.run(run())
    return [done[key] for key in plan.keys]


@contextmanager
def _journal(folder: Path | None, protocol: EvalProtocol) -> Iterator[Journal | None]:
    if folder is None:
        yield None
        return
    with open_journal(folder, asdict(protocol)) as journal:
        yield journal


def _evaluation(protocol: EvalProtocol, trajectories: Sequence[Trajectory]) -> Evaluation:
    episodes = tuple(map(episode_of, trajectories))
    return Evaluation(protocol, summarise(episodes), data_digest(episodes), episodes)
