"""Clip-Cov and KL-Cov: a few tokens move the entropy most, and those are held back.

    cov_t     = (A_t - mean A) (log p_t - mean log p)        means over the mini-batch's tokens
    Clip-Cov    of the tokens with  low < cov_t < high  a share of all tokens is drawn at random;
                their loss counts nothing, neither its value nor its gradient
    KL-Cov      the share of tokens with the highest cov_t pays  coef |log p_t - log p_old|

G. Cui et al., "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
arXiv 2505.22617. Tokens that the surrogate's clip holds back already are no candidates of Clip-Cov.

Departures: both are of the whole mini-batch, where released code takes means, bounds and share of
each micro-batch, so that how much memory there is decides what is learnt. The draw goes through the
tokens in the order they were sampled, so that the order of rows decides nothing. A share of 0 draws
none, where released code always draws one.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from agentgym.trainers.batch import Batch
from agentgym.trainers.method import Forward
from agentgym.trainers.returns import Timeline
from agentgym.trainers.surrogate import LOG_RATIO_LIMIT

ROUNDING = 1e-5
"""Log-ratios up to this are none: at 0 a distance has no slope, and beside it one of 1 to either
side, which rounding would decide in the first update of a step."""


@dataclass(frozen=True, slots=True)
class CovBounds:
    """Which tokens are taken; KL-Cov has no bounds but the ratio."""

    ratio: float  # of the mini-batch's tokens, at most; at least one token unless it is 0
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a mini-batch."""

    cov_BT: Tensor
    candidate_BT: Tensor
    chosen_BT: Tensor


def clip_cov(
    batch: Batch, logprob_BT: Tensor, held_BT: Tensor, bounds: CovBounds, rng: random.Random
) -> Found:
    """Choose the tokens that Clip-Cov leaves out.

    Args:
        batch: The whole mini-batch, with advantages.
        logprob_BT: Of its tokens, by the weights as they are.
        held_BT: Boolean; where the surrogate's clip holds the gradient back already.
        bounds: What is taken; low and high are exclusive. All candidates are where they are few.
        rng: Decides which.
    """
    assert batch.advantage_BT is not None
    cov_BT = covariances(batch.advantage_BT, logprob_BT, batch.mask_BT)
    within_BT = (cov_BT > bounds.low) & (cov_BT < bounds.high)
    candidate_BT = within_BT & (batch.mask_BT > 0) & ~held_BT
    cell_M = Timeline.of(batch).cell_M
    cell_M = cell_M[candidate_BT.flatten()[cell_M]]
    count = min(_share(batch.mask_BT, bounds.ratio), len(cell_M))
    chosen_BT = _at(cell_M[rng.sample(range(len(cell_M)), count)], candidate_BT)
    return Found(cov_BT, candidate_BT, chosen_BT)


def kl_cov(batch: Batch, logprob_BT: Tensor, ratio: float) -> Found:
    """Choose the tokens that pay for KL-Cov: the share of them with the highest covariance."""
    assert batch.advantage_BT is not None
    candidate_BT = batch.mask_BT > 0
    cov_BT = covariances(batch.advantage_BT, logprob_BT, batch.mask_BT)
    cell_M = candidate_BT.flatten().nonzero()[:, 0]
    count = min(_share(batch.mask_BT, ratio), len(cell_M))
    top_M = cov_BT.flatten()[cell_M].topk(count).indices
    return Found(cov_BT, candidate_BT, _at(cell_M[top_M], candidate_BT))


def covariances(advantage_BT: Tensor, logprob_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return ``cov_BT`` in float64, 0 where the mask is 0."""
    kept_BT = mask_BT > 0
    advantage_BT, logprob_BT = advantage_BT.double(), logprob_BT.double()
    advantage_BT = advantage_BT - advantage_BT[kept_BT].mean()  # NaN without a token, and unused
    logprob_BT = logprob_BT - logprob_BT[kept_BT].mean()
    return torch.where(kept_BT, advantage_BT * logprob_BT, 0.0)


def kl_cov_loss(forward: Forward, chosen_BT: Tensor, coef: float) -> Tensor:
    """Return ``-A r`` of each token, which nothing clips, and what the chosen ones pay."""
    batch = forward.batch
    assert batch.old_logprob_BT is not None
    assert batch.advantage_BT is not None
    log_ratio_BT = forward.logprob_BT - batch.old_logprob_BT
    ratio_BT = log_ratio_BT.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    loss_BT = -batch.advantage_BT * ratio_BT
    if batch.correction_BT is not None:
        loss_BT = loss_BT * batch.correction_BT
    apart_BT = log_ratio_BT.abs()
    return loss_BT + coef * torch.where(chosen_BT & (apart_BT > ROUNDING), apart_BT, 0.0)


def _share(mask_BT: Tensor, ratio: float) -> int:
    return max(1, int(ratio * mask_BT.sum().item())) if ratio else 0


def _at(cell_M: Tensor, like_BT: Tensor) -> Tensor:
    """Return booleans that are true at those cells."""
    flat = torch.zeros(like_BT.numel(), dtype=torch.bool)
    flat[cell_M] = True
    return flat.view(like_BT.shape)
