"""The groups of a step with their rewards, between playing and packing: some stay, some go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from agentgym.types import Group, Trajectory

Rewards = Mapping[str, Sequence[Sequence[float]]]
"""For each named part, for each trajectory in the order of the groups, a reward a turn."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The groups of a step so far, and how many more are wanted.

    Methods select by :meth:`keep` and :meth:`wanting`; a selection is never changed.
    """

    groups: Sequence[Group]
    rewards: Rewards
    rounds: int = 0  # how often the step has played so far
    spare: int = 0  # how many more groups could be played
    wanted: int = 0  # how many more shall be played

    @property
    def trajectories(self) -> list[Trajectory]:
        """All trajectories, in the order of the groups."""
        return [t for group in self.groups for t in group.trajectories]

    @property
    def returns(self) -> list[list[float]]:
        """The return of each trajectory, group by group: the sum of its rewards."""
        totals = iter(self.totals())
        return [[next(totals) for _ in group.trajectories] for group in self.groups]

    def totals(self, parts: Sequence[str] | None = None) -> list[float]:
        """Return the sum of some parts, or of all, for each trajectory."""
        chosen = [self.rewards[part] for part in (self.rewards if parts is None else parts)]
        return [sum(sum(part[n]) for part in chosen) for n, _ in enumerate(self.trajectories)]

    def keep(self, stays: Sequence[bool]) -> Selection:
        """Return the selection of some trajectories; a group without any is gone.

        Args:
            stays: Whether each trajectory stays, in the order of the groups.
        """
        flags = iter(stays)
        groups = [
            Group(group.task, tuple(t for t in group.trajectories if next(flags)))
            for group in self.groups
        ]
        rewards = {name: list(compress(part, stays)) for name, part in self.rewards.items()}
        return replace(self, groups=[g for g in groups if g.trajectories], rewards=rewards)

    def keep_groups(self, stays: Sequence[bool]) -> Selection:
        """Return the selection of some whole groups."""
        return self.keep(
            [stay for g, stay in zip(self.groups, stays, strict=True) for _ in g.trajectories]
        )

    def wanting(self, groups: int) -> Selection:
        """Return the selection, with a wish for so many groups more, of those that are left."""
        return replace(self, wanted=min(groups, self.spare))

    def joined(self, groups: Sequence[Group], rewards: Rewards, spare: int) -> Selection:
        """Return the selection after one more round of play.

        Args:
            groups: What the round brought.
            rewards: Theirs.
            spare: How many groups could be played after it.
        """
        names = self.rewards or rewards
        both = {name: [*self.rewards.get(name, ()), *rewards[name]] for name in names}
        return Selection([*self.groups, *groups], both, self.rounds + 1, spare)
