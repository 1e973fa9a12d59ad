"""Where rollouts branch: the mathematics of ARPO and AEPO.

An episode's uncertainty after an observation is that of the first tokens it says then. ``H`` is
its measure, ``H_0`` that after the task's first observation, ``l`` on how many turns in a row
before this one the episode has branched:

    Delta = H - H_0
    P     = clip(alpha + w Delta, 0, 1)                        ARPO, arXiv 2507.19849
    P     = clip((alpha + w Delta) (1 - p l), 0, 1)            AEPO, arXiv 2510.14545
    P     = clip(1 - ((1 - alpha) / (1 - p l) - w Delta), 0, 1)   AEPO as released
    m     = n sigmoid(beta (H_root - mean H_tool))             AEPO: how many of n begin fresh
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

Pool = Literal["sum", "mean"]
"""How the entropies of some tokens become one number."""


def uncertainty(entropies: Sequence[float], pool: Pool, vocabulary: int) -> float:
    """Return the entropies of some tokens as one number, in units of ln(vocabulary)."""
    total = math.fsum(entropies) / math.log(vocabulary)
    return total if pool == "sum" else total / len(entropies)


def branch_probability(delta: float, alpha: float, weight: float) -> float:
    """Return ARPO's ``P = alpha + weight delta``, within [0, 1]."""
    return clip(alpha + weight * delta)


def penalised_probability(
    delta: float, run: int, alpha: float, weight: float, penalty: float
) -> float:
    """Return AEPO's ``P = (alpha + weight delta) (1 - penalty run)``, within [0, 1].

    Args:
        delta: How much more uncertain the episode is than at its beginning.
        run: On how many turns in a row before this one the episode has branched.
        alpha: The probability where there is no difference.
        weight: Of the difference.
        penalty: Of each turn of the run; from ``1 / penalty`` turns on the probability is 0.
    """
    return clip((alpha + weight * delta) * max(0.0, 1 - penalty * run))


def released_probability(
    delta: float, run: int, alpha: float, weight: float, penalty: float
) -> float:
    """Return how likely the released code of AEPO is to branch.

    It draws u from [0, 1) and branches where ``(u + weight delta) (1 - penalty run)`` is at least
    its threshold, here ``1 - alpha``. Without a run that is ARPO's probability; with one it falls
    faster than the paper's product.
    """
    left = max(0.0, 1 - penalty * run)
    if left == 0:
        return float(alpha >= 1)
    return clip(1 - ((1 - alpha) / left - weight * delta))


def fresh_rollouts(size: int, root: float, tool: float, sensitivity: float) -> int:
    """Return how many of ``size`` rollouts begin fresh, by what a pilot rollout was uncertain of.

    ``size sigmoid(sensitivity (root - tool))``, cut to a whole number, and one more; from 1 to
    ``size``. The paper leaves the rounding open; this is the released code's.
    """
    share = (1 + math.tanh(sensitivity * (root - tool) / 2)) / 2  # exp would overflow
    return max(1, min(size, int(size * share) + 1))


def run_before(turn: int, branched: Collection[int]) -> int:
    """Return on how many turns in a row just before ``turn`` there was a branch."""
    run = 0
    while turn - 1 - run in branched:
        run += 1
    return run


def clip(value: float) -> float:
    """Return a value within [0, 1]."""
    return max(0.0, min(1.0, value))
