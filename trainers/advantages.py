"""Advantages from the returns of a group. Axes: **N** trajectories, **B** rows, **T** tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from agentgym.trainers.batch import Batch

StatisticUnit = Literal["trajectory", "row", "turn"]


def group_advantage(
    return_N: Tensor,
    group_N: Tensor,
    count_N: Tensor,
    normalise: bool = True,
    ddof: int = 1,
    eps: float = 1e-6,
    variance_eps: float = 0.0,
) -> Tensor:
    """Return ``(R - mean) / (std + eps)`` with mean and std of each group (GRPO).

    Args:
        return_N: Returns.
        group_N: Which group each belongs to.
        count_N: How often each counts in the statistics: 1 where the unit is the trajectory, its
            rows or turns where they are the unit.
        normalise: Divide by the standard deviation; without it this is Dr.GRPO.
        ddof: What is subtracted from the number of units in the variance; 1 is the unbiased one.
        eps: Added to the standard deviation.
        variance_eps: Added to the variance, whose root the standard deviation is.

    Returns:
        ``advantage_N``, of the dtype of ``return_N``; exactly 0 where all returns of a group are
        equal.
    """
    groups = int(group_N.max()) + 1 if len(group_N) else 0
    value_N, weight_N = return_N.double(), count_N.double()

    def total(of_N: Tensor) -> Tensor:
        return value_N.new_zeros(groups).index_add_(0, group_N, of_N)

    units_G = total(weight_N)
    mean_G = total(weight_N * value_N) / units_G.clamp(min=1)
    low_G = mean_G.scatter_reduce(0, group_N, value_N, "amin", include_self=False)
    high_G = mean_G.scatter_reduce(0, group_N, value_N, "amax", include_self=False)
    mean_G = torch.where(low_G == high_G, low_G, mean_G)  # rounding is no signal
    centred_N = value_N - mean_G[group_N]
    if not normalise:
        return centred_N.to(return_N.dtype)
    variance_G = total(weight_N * centred_N.square()) / (units_G - ddof).clamp(min=1)
    std_G = (variance_G + variance_eps).sqrt()
    return (centred_N / (std_G[group_N] + eps)).to(return_N.dtype)


def only_best(advantage_N: Tensor, group_N: Tensor) -> Tensor:
    """Return ``advantage_N``: of the best of each group what it is above the second, else 0.

    Groups have two members or more. Where several are the best nobody is above the second.
    """
    margin_N = torch.zeros_like(advantage_N)
    for group in torch.unique(group_N):
        member_M = torch.nonzero(group_N == group)[:, 0]
        best, second = advantage_N[member_M].topk(2)[0]
        margin_N[member_M[advantage_N[member_M].argmax()]] = best - second
    return margin_N


def unit_counts(batch: Batch, unit: StatisticUnit) -> Tensor:
    """Return ``count_N``: how often each trajectory counts in its group's statistics."""
    if unit == "trajectory":
        return torch.ones_like(batch.turns_N)
    if unit == "turn":
        return batch.turns_N
    return torch.bincount(batch.trajectory_B, minlength=len(batch.turns_N))


def of_tokens(batch: Batch, advantage_N: Tensor) -> Tensor:
    """Return ``advantage_BT``: the trajectory's for each token of the policy, 0 for the others."""
    return advantage_N[batch.trajectory_B, None].to(batch.mask_BT) * batch.mask_BT


def of_turns(batch: Batch, value_NK: Tensor) -> Tensor:
    """Return ``value_BT``: the turn's for each token of the policy, 0 for the others."""
    if not value_NK.shape[1]:
        return torch.zeros_like(batch.mask_BT)
    value_BT = value_NK[batch.trajectory_B[:, None], batch.turn_BT.clamp(min=0)]
    return value_BT * batch.mask_BT


def turn_means(batch: Batch, value_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of a value over the policy's tokens of each turn, in float64.

    Returns:
        ``mean_NK``, and boolean ``there_NK``, which says where the turn has such a token.
    """
    shape = batch.reward_mask_NK.shape
    cells = torch.nonzero(batch.mask_BT > 0, as_tuple=True)
    cell_M = batch.trajectory_B[cells[0]] * shape[1] + batch.turn_BT[cells]
    value_M = value_BT[cells].double()
    count_C = torch.bincount(cell_M, minlength=shape.numel())
    sum_C = value_M.new_zeros(shape.numel()).index_add_(0, cell_M, value_M)
    return (sum_C / count_C.clamp(min=1)).view(shape), (count_C > 0).view(shape)
