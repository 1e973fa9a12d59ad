"""Collects the groups of a step: play, give rewards, leave out what broke, select, refill."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from agentgym.trainers.method import Chain
from agentgym.trainers.selection import Rewards, Selection
from agentgym.types import Group, Stop, Trajectory

Play = Callable[[Sequence[str]], tuple[list[Group], list[Trajectory]]]
"""Plays one group a task; returns the groups, and the episodes that broke."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a step has to learn from, and what it took to get it."""

    groups: Sequence[Group]
    rewards: Rewards
    played: Sequence[Trajectory]  # every whole episode, also of groups that were left out
    broken: Sequence[Trajectory]
    rounds: int

    def what_broke(self, known: Container[str] = ()) -> str:
        """Return how many episodes broke, and an example of each reason, as a clause.

        Args:
            known: Reasons that need no example.
        """
        if not self.broken:
            return "no episode broke"
        count = "an episode" if len(self.broken) == 1 else f"{len(self.broken)} episodes"
        examples = {t.error: t.key.task for t in reversed(self.broken) if t.error not in known}
        why = [
            f"in task {examples[reason]}: {reason}"
            for reason in self.reasons()
            if reason in examples
        ]
        return f"{count} broke, {'; '.join(why)}"

    def reasons(self) -> list[str]:
        """Return why episodes broke, each reason once, in the order in which they came."""
        return list(dict.fromkeys(t.error or "" for t in self.broken))

    def metrics(self) -> dict[str, float]:
        """Return what is worth logging of how the groups came together."""
        kept = sum(len(group.trajectories) for group in self.groups)
        errors = len(self.broken)
        return {
            "rollout/errors": float(errors),
            "rollout/error_rate": errors / max(1, errors + len(self.played)),
            "rollout/rounds": float(self.rounds),
            "rollout/left_out": float(len(self.played) - kept),
        }


def collect(
    play: Play, method: Chain, tasks: Sequence[str], spare: Sequence[str], step: int
) -> Collected:
    """Play until the method has the groups that it wants, or no task is left.

    Args:
        play: Plays one group a task.
        method: Gives rewards, selects, and says how many groups it wants in the place of those
            that it left out.
        tasks: The step's tasks.
        spare: Those that can be played in the place of others, in order.
        step: Counted from 1.
    """
    played: list[Trajectory] = []
    broken: list[Trajectory] = []
    selection = Selection((), {})
    while tasks:
        groups, faults = play(tasks)
        rewarded, spoilt = _without_faults(Selection(groups, method.turn_rewards(groups, step)))
        played += rewarded.trajectories
        broken += [*faults, *spoilt]
        joined = selection.joined(rewarded.groups, rewarded.rewards, len(spare))
        selection = method.select(joined, step)
        tasks, spare = spare[: selection.wanted], spare[selection.wanted :]
    return Collected(selection.groups, selection.rewards, played, broken, selection.rounds)


def _without_faults(selection: Selection) -> tuple[Selection, list[Trajectory]]:
    """Leave out trajectories with a reward that is no number, and whom they leave alone.

    Returns:
        What stays, and the trajectories that do not, each with its error.
    """
    faults = [
        _fault(trajectory, {name: part[n] for name, part in selection.rewards.items()})
        for n, trajectory in enumerate(selection.trajectories)
    ]
    if not any(faults):
        return selection, []
    spoilt = [
        replace(trajectory, stop=Stop.ERROR, won=False, score=0.0, error=fault)
        for trajectory, fault in zip(selection.trajectories, faults, strict=True)
        if fault
    ]
    size = {group.task: len(group.trajectories) for group in selection.groups}
    left = selection.keep([fault is None for fault in faults])
    compared = [len(group.trajectories) >= min(2, size[group.task]) for group in left.groups]
    return left.keep_groups(compared), spoilt


def _fault(trajectory: Trajectory, parts: Mapping[str, Sequence[float]]) -> str | None:
    """Return what is wrong with the rewards of a trajectory, or None."""
    if not math.isfinite(trajectory.score):
        return f"the score is {trajectory.score}; expected a number from 0 to 1"
    own = {"environment": [turn.reward for turn in trajectory.turns]}
    for name, values in {**own, **parts}.items():
        for turn, value in enumerate(values):
            if not math.isfinite(value):
                return f"the reward {name!r} of turn {turn} is {value}; expected a finite number"
    return None
