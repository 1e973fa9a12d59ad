"""Per-token estimates of the divergence from a reference policy, from sampled tokens.

With d = logprob - reference logprob of a token that the current policy sampled:

    k1 = d        abs = |d|        k2 = d^2 / 2        k3 = exp(-d) + d - 1

k1 and k3 are unbiased, k2 and k3 never negative. As losses their gradients with respect to the
log-probability are 1 (of no use: its mean is the gradient of a constant), sign d, d, 1 - exp(-d).
(J. Schulman, "Approximating KL divergence", 2020.)
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

K3_LIMIT = 10.0
"""k3 is clamped to this, so that one token far from the reference does not rule a step."""
LOG_RATIO_LIMIT = 20.0
"""Keeps the exponential of k3 finite where the reference is far above."""


class KL(StrEnum):
    """The estimates; see the module."""

    K1 = "k1"
    ABS = "abs"
    K2 = "k2"
    K3 = "k3"


def kl_estimate(logprob: Tensor, ref_logprob: Tensor, kind: KL) -> Tensor:
    """Return the estimate of each token, differentiable in ``logprob``."""
    d = logprob - ref_logprob
    if kind is KL.K1:
        return d
    if kind is KL.ABS:
        return d.abs()
    if kind is KL.K2:
        return d.square() / 2
    return (torch.expm1(-d.clamp(min=-LOG_RATIO_LIMIT)) + d).clamp(max=K3_LIMIT)
