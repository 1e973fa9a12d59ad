"""What is worth doing again: trajectories that did well, and how they become a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from agentgym.trainers.batch import Batch

Unit = Literal["trajectory", "row"]

PADDING = {
    "ids_BT": 0,
    "turn_BT": -1,
    "behaviour_logprob_BT": 0,
    "old_logprob_BT": 0,
    "correction_BT": 0,
}
"""What is kept of each token (where it is there), and what stands behind a row's last one."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A trajectory that did well, or one row of it, with the log-probabilities of its time."""

    step: int  # in which it was played
    reward: float  # the return of its trajectory, as it was
    rows: tuple[Mapping[str, Tensor], ...]  # a value a token of each kept tensor


def memories(batch: Batch, step: int, unit: Unit) -> list[Memory]:
    """Return what of a step did better than its baseline: its mean advantage is above 0.

    Args:
        batch: After the update, with old log-probabilities and advantages.
        step: Counted from 1.
        unit: What is remembered as one.
    """
    assert batch.advantage_BT is not None
    parts: dict[int, list[int]] = {}
    for row in _in_order(batch):
        whole = int(batch.trajectory_B[row]) if unit == "trajectory" else row
        parts.setdefault(whole, []).append(row)
    total_B = (batch.advantage_BT.double() * batch.mask_BT).sum(-1)  # of the same sign as the mean
    return [
        Memory(
            step,
            batch.return_N[batch.trajectory_B[part[0]]].item(),
            tuple(_row(batch, row) for row in part),
        )
        for part in parts.values()
        if total_B[part].sum() > 0
    ]


def _in_order(batch: Batch) -> list[int]:
    """Return the rows in the order they were sampled, trajectory by trajectory."""
    last_B = batch.turn_BT.max(-1).values
    rows = range(len(batch.trajectory_B))
    return sorted(rows, key=lambda row: (int(batch.trajectory_B[row]), int(last_B[row])))


def _row(batch: Batch, row: int) -> dict[str, Tensor]:
    length = int(batch.length_B[row])
    kept = {name: getattr(batch, name) for name in PADDING}
    return {name: x[row, :length].clone() for name, x in kept.items() if x is not None}


def as_batch(found: Sequence[Memory], advantages: Sequence[float], temperature: float) -> Batch:
    """Return memories as a batch to train on, each as a trajectory of its own.

    Args:
        found: At least one.
        advantages: Of each.
        temperature: At which they were sampled.
    """
    rows = [row for memory in found for row in memory.rows]
    tokens = {
        name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill)
        for name, fill in PADDING.items()
        if name in rows[0]
    }
    mask_BT = (tokens["turn_BT"] >= 0).float()
    trajectory_B = torch.tensor([n for n, memory in enumerate(found) for _ in memory.rows])
    turns_N = torch.tensor([1 + max(int(r["turn_BT"].max()) for r in m.rows) for m in found])
    turn_K = torch.arange(int(turns_N.max()))
    advantage_N = torch.tensor(advantages, dtype=torch.double)
    reward_N1 = torch.tensor([[memory.reward] for memory in found])
    return Batch(
        **tokens,
        length_B=torch.tensor([len(row["ids_BT"]) for row in rows]),
        mask_BT=mask_BT,
        trajectory_B=trajectory_B,
        group_N=torch.arange(len(found)),
        turns_N=turns_N,
        trajectories=(),
        reward_NK={"outcome": reward_N1 * (turn_K == turns_N[:, None] - 1)},
        reward_mask_NK=turn_K < turns_N[:, None],
        advantage_BT=advantage_N.to(mask_BT)[trajectory_B, None] * mask_BT,
        temperature=temperature,
        replayed=True,
    )
