"""What self-imitation remembers: trajectories that did well, and what groups earned lately.

Nothing here is learnt from until it is recalibrated: an old advantage compares with a policy that
is no more, so a trajectory's return is compared with the median of recent groups' means:

    A~ = R - P50(means of recent groups)

Values are never changed; each operation returns another one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean, median, pstdev
from typing import Any

import torch

from agentgym.trainers.batch import Batch
from agentgym.trainers.memory import PADDING, Memory, Unit


@dataclass(frozen=True, slots=True)
class Baseline:
    """Means and deviations of the returns of recent groups, oldest first."""

    step: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()  # of the population

    def with_step(
        self, batch: Batch, step: int, limit: int, *, whole_steps: bool = False
    ) -> Baseline:
        """Return the baseline with the groups of a step more, each trajectory counting once.

        Args:
            batch: The step's.
            step: Counted from 1.
            limit: How many groups are remembered.
            whole_steps: Forget whole steps, and only before the new ones come, so that there may
                be more than ``limit``.
        """
        return_G = [
            batch.return_N[batch.group_N == g].tolist() for g in torch.unique(batch.group_N)
        ]
        mean, std = map(fmean, return_G), map(pstdev, return_G)
        return self.with_groups([*mean], [*std], step, limit, whole_steps=whole_steps)

    def with_groups(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        step: int,
        limit: int,
        *,
        whole_steps: bool = False,
    ) -> Baseline:
        """Return the baseline with some groups more; see :meth:`with_step`."""
        before = self
        while whole_steps and len(before.step) > limit:
            before = before._last(len(before.step) - before.step.count(before.step[0]))
        joined = Baseline(
            (*before.step, *[step] * len(mean)), (*before.mean, *mean), (*before.std, *std)
        )
        return joined if whole_steps else joined._last(limit)

    def _last(self, count: int) -> Baseline:
        first = max(0, len(self.step) - count)
        return Baseline(self.step[first:], self.mean[first:], self.std[first:])

    @property
    def median(self) -> float:
        """P50 of the groups' means; of an even number the mean of the two in the middle."""
        return median(self.mean)

    def advantages(
        self, rewards: Sequence[float], *, normalise: bool = False, eps: float = 1e-6
    ) -> list[float]:
        """Return ``A~`` of returns: less the median of the groups' means.

        Args:
            rewards: The returns; there are groups where there are any.
            normalise: Divide by the median of the groups' deviations, plus ``eps``.
            eps: See there.
        """
        if not rewards:
            return []
        centre, scale = self.median, median(self.std) + eps if normalise else 1.0
        return [(reward - centre) / scale for reward in rewards]

    def to_json(self) -> dict[str, Any]:
        """Return the baseline as JSON holds it."""
        return {"step": list(self.step), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Baseline:
        """Take back what :meth:`to_json` returned."""
        return cls(tuple(state["step"]), tuple(state["mean"]), tuple(state["std"]))


@dataclass(frozen=True, slots=True)
class ReplayBuffer:
    """Memories, oldest first."""

    memories: tuple[Memory, ...] = ()

    def __len__(self) -> int:
        return len(self.memories)

    def joined(self, found: Sequence[Memory]) -> ReplayBuffer:
        """Return the buffer with newer memories."""
        return ReplayBuffer((*self.memories, *found))

    def newest(self, count: int) -> ReplayBuffer:
        """Return the last ``count`` memories."""
        return ReplayBuffer(self.memories[max(0, len(self.memories) - count) :])

    def since(self, step: int) -> ReplayBuffer:
        """Return the memories of ``step`` and later."""
        return ReplayBuffer(tuple(m for m in self.memories if m.step >= step))

    def state(self) -> dict[str, Any]:
        """Return the buffer as a few flat tensors."""
        rows = [row for memory in self.memories for row in memory.rows]
        return {
            "step": torch.tensor([m.step for m in self.memories], dtype=torch.long),
            "reward": torch.tensor([m.reward for m in self.memories], dtype=torch.double),
            "rows": torch.tensor([len(m.rows) for m in self.memories], dtype=torch.long),
            "length": torch.tensor([len(row["ids_BT"]) for row in rows], dtype=torch.long),
            "tokens": {
                name: torch.cat([row[name] for row in rows])
                for name in PADDING
                if rows and name in rows[0]
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ReplayBuffer:
        """Take back what :meth:`state` returned."""
        lengths = state["length"].tolist()
        tokens = {name: flat.split(lengths) for name, flat in state["tokens"].items()}
        rows = [{name: parts[r] for name, parts in tokens.items()} for r in range(len(lengths))]
        bounds = pairwise(accumulate(state["rows"].tolist(), initial=0))
        return cls(
            tuple(
                Memory(step, reward, tuple(rows[first:last]))
                for step, reward, (first, last) in zip(
                    state["step"].tolist(), state["reward"].tolist(), bounds, strict=True
                )
            )
        )


@dataclass(frozen=True, slots=True)
class BufferRules:
    """How a buffer is filled, and when and how it is used."""

    unit: Unit  # what is remembered as one
    bounded: bool  # it holds its size at most, else all of the steps that are tolerated
    whole_steps: bool  # the returns of groups are forgotten by whole steps
    age_from_last: bool  # age is counted from the last step that is in it, else from now
    zero_stays: bool  # an A~ of 0 is replayed too
    power_of_two: bool  # of rows are drawn, else all are taken

    def full(self, advantages: Sequence[float], size: int) -> bool:
        """Return whether it is time: as many as its size, or 1.5 times as many with A~ above 0.

        Args:
            advantages: A~ of all that is remembered.
            size: Of the buffer.
        """
        if self.bounded:
            return len(advantages) >= size
        return sum(advantage > 0 for advantage in advantages) > 1.5 * size

    def chosen(self, advantages: Sequence[float], size: int, rng: random.Random) -> list[int]:
        """Return what is replayed, by its place.

        Args:
            advantages: A~ of all that is remembered.
            size: Of the buffer.
            rng: Decides where not all are taken.
        """
        stays = [n for n, a in enumerate(advantages) if a > 0 or (self.zero_stays and a == 0)]
        if not self.power_of_two:
            return stays
        return rng.sample(stays, power_of_two(len(stays), size))


STRICT = BufferRules("trajectory", True, False, False, False, False)
"""Trajectories, first in, first out."""
RELEASED = BufferRules("row", False, True, True, True, True)
"""What SPEAR's published ALFWorld and WebShop scripts run."""


def power_of_two(count: int, limit: int) -> int:
    """Return the largest power of two that is at most ``count``, at most ``limit``; 0 below 2."""
    return min(1 << (count.bit_length() - 1), limit) if count > 1 else 0
