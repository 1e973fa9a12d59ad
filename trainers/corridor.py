"""EPO's mathematics: penalties for entropies outside a corridor, and the schedules of their weight.

Bounds are NaN where a token has no reference; the penalty is 0 there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import relu

RELEASED_MIDDLE = 75
"""Half of the 150 steps that the released schedule is written for, whatever the run's length."""


def hinge(entropy: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return how far an entropy is outside: ``relu(low - H) + relu(H - high)``."""
    known = ~(low.isnan() | high.isnan())
    return relu(torch.where(known, low - entropy, 0)) + relu(torch.where(known, entropy - high, 0))


def indicator(entropy: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return 0 strictly inside and 1 on the bounds and outside; it has no gradient."""
    return ((entropy <= low) | (entropy >= high)).to(entropy.dtype)


def paper_beta(k: int, steps: int, decay: float) -> float:
    """Return ``1 + exp(-decay k / floor(steps / 2))``: 2 at k = 0, falling towards 1."""
    return 1 + math.exp(-decay * k / max(1, steps // 2))


def released_beta(k: int) -> float:
    """Return the released weight: 1 falling to 0.83 until k = 75, then 0.8 falling towards 0."""
    if k <= RELEASED_MIDDLE:
        return 1 - 0.2 * (1 - math.exp(-2 * k / RELEASED_MIDDLE))
    return 0.8 * math.exp(-3 * (k - RELEASED_MIDDLE) / RELEASED_MIDDLE)
