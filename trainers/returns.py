"""Rewards and returns along a trajectory, by turn and by token.

Axes: **B** rows, **T** tokens of a row, **N** trajectories, **K** turns, **L** the policy's tokens
of a trajectory, in the order they were sampled. Which tokens share a row plays no part: credit
flows along the trajectory, over what environments said in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agentgym.trainers.batch import Batch


@dataclass(frozen=True, slots=True)
class Timeline:
    """The policy's tokens of each trajectory, in the order they were sampled.

    Build one with :meth:`of`; then ``timeline.lay(x_BT)`` is ``x_NL``, padded with 0 at the end,
    and ``timeline.put_back(x_NL)`` is ``x_BT``, 0 where no token of the policy is.
    """

    cell_M: Tensor  # long; which of the B x T cells each of the M tokens is
    trajectory_M: Tensor  # long
    position_M: Tensor  # long; in its trajectory
    shape: tuple[int, int, int, int]  # B, T, N, L

    @classmethod
    def of(cls, batch: Batch) -> Timeline:
        """Return the timeline of a batch, whatever order its rows are in."""
        rows, width = batch.turn_BT.shape
        turns = int(batch.turn_BT.max()) + 1 if batch.turn_BT.numel() else 0
        cell_M = (batch.mask_BT > 0).flatten().nonzero()[:, 0]
        trajectory_M = batch.trajectory_B.repeat_interleave(width)[cell_M]
        order_M = trajectory_M * turns + batch.turn_BT.flatten()[cell_M]
        order_M = order_M.argsort(stable=True)  # within a turn, tokens stay as they lie in the row
        trajectory_M = trajectory_M[order_M]
        count_N = torch.bincount(trajectory_M, minlength=len(batch.turns_N))
        first_N = count_N.cumsum(0) - count_N
        position_M = torch.arange(len(cell_M)) - first_N[trajectory_M]
        longest = int(count_N.max()) if len(count_N) else 0
        return cls(cell_M[order_M], trajectory_M, position_M, (rows, width, len(count_N), longest))

    def lay(self, value_BT: Tensor) -> Tensor:
        """Return values of tokens by trajectory and position."""
        value_NL = value_BT.new_zeros(self.shape[2:])
        value_NL[self.trajectory_M, self.position_M] = value_BT.flatten()[self.cell_M]
        return value_NL

    def put_back(self, value_NL: Tensor) -> Tensor:
        """Return values by row and token."""
        rows, width = self.shape[:2]
        value_M = value_NL.new_zeros(rows * width)
        value_M[self.cell_M] = value_NL[self.trajectory_M, self.position_M]
        return value_M.view(rows, width)


def turn_rewards(batch: Batch) -> Tensor:
    """Return ``reward_NK``, the sum of the parts; 0 where a trajectory has no such turn."""
    return torch.stack(tuple(batch.reward_NK.values())).sum(0) * batch.reward_mask_NK


def turn_end_rewards(batch: Batch) -> Tensor:
    """Return ``reward_BT``: the reward of each turn at its last token, 0 elsewhere."""
    following_BT = torch.nn.functional.pad(batch.turn_BT[:, 1:], (0, 1), value=-1)
    last_BT = (batch.mask_BT > 0) & (following_BT != batch.turn_BT)
    row_M, position_M = last_BT.nonzero(as_tuple=True)
    reward_NK = turn_rewards(batch)
    reward_BT = torch.zeros_like(batch.mask_BT)
    turn_M = batch.turn_BT[row_M, position_M]
    reward_BT[row_M, position_M] = reward_NK[batch.trajectory_B[row_M], turn_M].to(reward_BT)
    return reward_BT


def discounted(reward: Tensor, gamma: float) -> Tensor:
    """Return ``G_t = r_t + gamma G_{t+1}`` along the last axis, in float64."""
    result = reward.double().clone()
    for t in range(result.shape[-1] - 2, -1, -1):
        result[..., t] += gamma * result[..., t + 1]
    return result


def whitened(value_BT: Tensor, mask_BT: Tensor, eps: float = 1e-8) -> Tensor:
    """Return ``(x - mean) / sqrt(variance + eps)`` over the masked tokens of the batch, else 0.

    The variance is the unbiased one.
    """
    kept_BT = mask_BT > 0
    value_M = value_BT[kept_BT].double()
    if len(value_M) < 2:
        return torch.zeros_like(mask_BT)
    white_M = (value_M - value_M.mean()) / (value_M.var() + eps).sqrt()
    return torch.zeros_like(mask_BT).masked_scatter(kept_BT, white_M.to(mask_BT))
