"""How the losses of tokens become one number: as weights whose sum over the mini-batch is 1.

A weight depends on the whole mini-batch (how many tokens, sequences or turns it has), so weights
are computed there, before it is split; a loss is then a sum over tokens, and splitting it into
micro-batches changes nothing. With L the loss of a token:

    token-mean               sum L / tokens
    seq-mean-token-mean      mean over sequences of (sum L / tokens of the sequence)
    seq-mean-token-sum       mean over sequences of  sum L
    seq-mean-token-sum-norm  mean over sequences of (sum L / a constant)       (Dr.GRPO)
    nested                   mean over trajectories of means over turns of means over tokens (EPO)

A sequence is a trajectory, or a row where a method says so. Only those with a trained token
count. (Released implementations of the sum-norm divide by the padded width and forget the number
of sequences, so that their loss grows with the batch and with padding.)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import torch
from torch import Tensor

from agentgym.errors import UsageError
from agentgym.trainers.batch import Batch


class Aggregation(StrEnum):
    """The ways to aggregate; see the module."""

    TOKEN_MEAN = "token-mean"  # noqa: S105 (no password)
    SEQ_MEAN_TOKEN_MEAN = "seq-mean-token-mean"  # noqa: S105
    SEQ_MEAN_TOKEN_SUM = "seq-mean-token-sum"  # noqa: S105
    SEQ_MEAN_TOKEN_SUM_NORM = "seq-mean-token-sum-norm"  # noqa: S105
    NESTED = "nested"


SequenceUnit = Literal["trajectory", "row"]


def token_weights(
    batch: Batch,
    aggregation: Aggregation,
    sequence: SequenceUnit = "trajectory",
    sum_norm: int | None = None,
) -> Tensor:
    """Return the weight of each token, so that a loss is ``(weight_BT * loss_BT).sum()``.

    Args:
        batch: The whole mini-batch.
        aggregation: How to aggregate.
        sequence: What a sequence is.
        sum_norm: The constant of ``seq-mean-token-sum-norm``, in tokens.

    Returns:
        ``weight_BT`` in float64, 0 where the mask is 0. Weighted means sum to 1.

    Raises:
        UsageError: ``sum_norm`` is missing where it is needed.
    """
    mask_BT = batch.mask_BT.double()
    if aggregation is Aggregation.TOKEN_MEAN:
        return mask_BT / mask_BT.sum().clamp(min=1)
    if aggregation is Aggregation.NESTED:
        return _nested(batch, mask_BT)
    row_B = torch.arange(len(mask_BT), device=mask_BT.device)
    sequence_B = batch.trajectory_B if sequence == "trajectory" else row_B
    tokens_S = _sums(mask_BT.sum(-1), sequence_B)
    sequences = (tokens_S > 0).sum().clamp(min=1)
    if aggregation is Aggregation.SEQ_MEAN_TOKEN_MEAN:
        return mask_BT / tokens_S.clamp(min=1)[sequence_B, None] / sequences
    if aggregation is Aggregation.SEQ_MEAN_TOKEN_SUM:
        return mask_BT / sequences
    if sum_norm is None:
        raise UsageError(
            f"{aggregation} divides by a constant and got none; set sum_norm, for example to the"
            " most tokens that a trajectory may sample"
        )
    return mask_BT / (sequences * sum_norm)


def _nested(batch: Batch, mask_BT: Tensor) -> Tensor:
    turns = int(batch.turn_BT.max()) + 1 if batch.turn_BT.numel() else 0
    if turns == 0:
        return mask_BT
    cell_BT = batch.trajectory_B[:, None] * turns + batch.turn_BT.clamp(min=0)
    tokens_NK = _sums(mask_BT.flatten(), cell_BT.flatten(), turns)
    turns_N = (tokens_NK > 0).sum(-1)
    trajectories = (turns_N > 0).sum().clamp(min=1)
    turns_B1 = turns_N.clamp(min=1)[batch.trajectory_B, None]
    return mask_BT / tokens_NK.flatten().clamp(min=1)[cell_BT] / turns_B1 / trajectories


def _sums(value: Tensor, index: Tensor, columns: int | None = None) -> Tensor:
    """Sum values by index; with ``columns``, as a table of so many."""
    length = int(index.max()) + 1 if len(index) else 0
    if columns is not None:
        length = -(-length // columns) * columns
    total = value.new_zeros(length).index_add_(0, index, value)
    return total if columns is None else total.view(-1, columns)
