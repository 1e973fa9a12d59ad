"""The clipped surrogate of PPO, per token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to this on both sides, so that no ratio overflows."""


def clipped_surrogate(
    log_ratio: Tensor,
    advantage: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
    keep_gradient: bool = False,
) -> Tensor:
    """Return the loss of each token, with r = exp(log-ratio):

        L = max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)),   where A < 0 at most -A dual_clip

    Args:
        log_ratio: Current minus old log-probability.
        advantage: A, of the same shape; not differentiated.
        clip_low: How far a ratio may fall before its gradient stops.
        clip_high: How far it may rise.
        dual_clip: Bounds the loss of a token with negative advantage; inf leaves it unbounded.
        keep_gradient: Above the upper bound take ``(1 + clip_high) r / sg(r)``, with sg the value
            without its gradient: the loss is the same, and a token with positive advantage there
            has the gradient that it had at the bound (Z. Su et al., "Klear-Reasoner", arXiv
            2508.07629).
    """  # noqa: D415 (a formula ends the sentence)
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    if keep_gradient:
        bounded = torch.where(
            ratio > 1 + clip_high, (1 + clip_high) * ratio / ratio.detach(), bounded
        )
    loss = torch.maximum(-advantage * ratio, -advantage * bounded)
    if math.isinf(dual_clip):  # 0 times it is no number
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)


def clipped(log_ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Return where the clip holds the gradient back: boolean, of the same shape."""
    ratio = log_ratio.exp()
    above = (advantage > 0) & (ratio > 1 + clip_high)
    below = (advantage < 0) & (ratio < 1 - clip_low)
    return above | below
