"""Correcting for a sampler whose probabilities are not quite the trainer's.

A sampler with other kernels, another precision or older weights draws tokens with other
probabilities than those that the surrogate's ratio starts from. With d = logprob before the update
minus the sampler's logprob, a token's share of the surrogate is weighted by

    token:     min( exp d, limit )
    sequence:  min( exp sum of d over the policy's tokens of the trajectory, limit )

The token's weight is of low variance and biased; the sequence's is unbiased below the limit, and of
little use where trajectories are long. ("Truncated importance sampling": E. L. Ionides, 2008; for
samplers and trainers of language models F. Yao et al., 2025, whose limit is 2.)
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from agentgym.trainers.batch import Batch
from agentgym.trainers.kl import KL, kl_estimate

LOG_LIMIT = 20.0
"""Log-weights are clamped to this on both sides, so that none overflows."""


class CorrectionOptions(BaseModel):
    """Whether and how the surrogate is corrected.

    Attributes:
        level: What a weight is of; ``off`` only measures.
        limit: The largest weight.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["off", "token", "sequence"] = "off"
    limit: float = Field(default=2.0, gt=0)


def corrected(batch: Batch, options: CorrectionOptions) -> Batch:
    """Return the batch with the weight of each token; the very batch where it is off."""
    if options.level == "off":
        return batch
    weight_BT = _log_weights(batch, options.level).exp().clamp(max=options.limit)
    weight_BT = torch.where(batch.mask_BT > 0, weight_BT, 0.0)
    return batch.with_(correction_BT=weight_BT.to(batch.behaviour_logprob_BT.dtype))


def correction_metrics(batch: Batch, limit: float) -> dict[str, float]:
    """Measure how far sampler and trainer are apart, whether or not it is corrected.

    Means are over the policy's tokens, or over trajectories for what is of sequences. The
    effective share is (sum w)^2 / (n sum w^2) of the weights before they are limited: 1 where
    both agree.
    """
    assert batch.old_logprob_BT is not None
    kept_BT = batch.mask_BT > 0
    if not kept_BT.any():
        return {}
    token_M = _log_weights(batch, "token")[kept_BT].exp()
    there = torch.unique(batch.trajectory_B)
    sequence_N = _log_sums(batch)[there].clamp(-LOG_LIMIT, LOG_LIMIT).exp()
    apart_M = kl_estimate(batch.old_logprob_BT, batch.behaviour_logprob_BT, KL.K3)[kept_BT]
    return {
        "correction/kl": apart_M.mean().item(),
        "correction/token_mean": token_M.mean().item(),
        "correction/token_max": token_M.max().item(),
        "correction/token_limited": (token_M > limit).double().mean().item(),
        "correction/token_effective": _effective(token_M),
        "correction/sequence_max": sequence_N.max().item(),
        "correction/sequence_limited": (sequence_N > limit).double().mean().item(),
        "correction/sequence_effective": _effective(sequence_N),
    }


def _log_weights(batch: Batch, level: Literal["token", "sequence"]) -> Tensor:
    """Return the log-weight of each token."""
    if level == "token":
        return _apart(batch).clamp(-LOG_LIMIT, LOG_LIMIT)
    sum_B1 = _log_sums(batch)[batch.trajectory_B, None]
    return sum_B1.clamp(-LOG_LIMIT, LOG_LIMIT).expand_as(batch.mask_BT)


def _log_sums(batch: Batch) -> Tensor:
    """Return the sum over the policy's tokens of each trajectory."""
    sum_N = torch.zeros(len(batch.turns_N), dtype=torch.double)
    return sum_N.index_add_(0, batch.trajectory_B, _apart(batch).sum(-1))


def _apart(batch: Batch) -> Tensor:
    assert batch.old_logprob_BT is not None
    apart_BT = (batch.old_logprob_BT - batch.behaviour_logprob_BT).double()
    return torch.where(batch.mask_BT > 0, apart_BT, 0.0)


def _effective(weight: Tensor) -> float:
    return (weight.sum().square() / (len(weight) * weight.square().sum())).item()
