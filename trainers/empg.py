"""EMPG: uncertain steps learn less, confident ones more, and clarity of what comes next is credit.

A step is a turn's tokens of the policy. With H the mean entropy of its tokens before the update,
and min, max and means over all steps of the batch:

    h         = (H - min H) / (max H - min H + eps)
    g(H)      = exp(-k h) / mean exp(-k h)                      self-calibrating scale, mean 1
    f(H)      = exp(-k' h)                                      clarity
    A_mod     = A g(H) + zeta f(H of the next step)             no bonus for a trajectory's last
    A_final   = A_mod - mean A_mod

"Harnessing Uncertainty: Entropy-Modulated Policy Gradients for Long-Horizon LLM Agents", arXiv
2509.09265, equations 10 to 12 and the two that put them together. A is the base's advantage; the
loss is the base's.

For a softmax policy the expected squared norm of the score is 1 - sum p^2, so that uncertain steps
have the larger gradients; g works against that.

What to know: the bonus is credit for failed trajectories too, and for groups without a signal,
which a base like ``dapo`` leaves out before. The mean is over steps, so a mean over tokens keeps a
bias. The shift can turn the sign of a small advantage (``empg/flipped``). The bonus rewards low
entropy: watch ``actor/entropy``. Min and max are of the whole batch: one very uncertain step
presses the others together (``empg/scale_max`` near 1).

Departures: none in the formulas. The eps in the denominator of g is left out, as a mean of
exponentials is never 0. Steps are turns, not spans between a chat template's tokens. There is no
released code; the constants are those of the listing on the authors' project page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from agentgym.trainers.advantages import of_turns, turn_means
from agentgym.trainers.batch import Batch
from agentgym.trainers.method import Method, Need, Options


class EMPGOptions(Options):
    """The settings of EMPG, named after the paper's symbols."""

    k: float = Field(1.0, ge=0, description="how much uncertainty scales down (equation 10)")
    k_future: float = Field(
        1.0, ge=0, description="k', how fast clarity falls with uncertainty (equation 11)"
    )
    zeta: float = Field(
        0.1,
        ge=0,
        description="weight of the next step's clarity (modulated advantage; project page 0.1, an"
        " independent study 0.05)",
    )
    centre: bool = Field(True, description="subtract the mean over all steps (final advantage)")
    eps: float = Field(1e-8, gt=0, description="added to max - min (equation 12)")


class EMPG(Method[EMPGOptions]):
    """Entropy-modulated policy gradients."""

    name = "empg"
    summary = "scales the credit of steps by their certainty, and credits the next step's clarity"
    paper = "arXiv 2509.09265"
    bases = ("grpo", "dapo")
    options_type: ClassVar[type[Options]] = EMPGOptions
    refused_presets: ClassVar[Mapping[str, str]] = {
        "released": "no official code was released; plain empg has the paper's formulas and the"
        " constants of the authors' project page"
    }

    def __init__(self, options: EMPGOptions, steps: int) -> None:
        super().__init__(options, steps)
        self._metrics: dict[str, float] = {}

    @property
    def needs(self) -> Need:
        """Entropies, unless it is neutral."""
        o = self.options
        return Need.ENTROPY if o.k or o.zeta or o.centre else Need.NOTHING

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Scale the base's credit, add the bonus, subtract the mean over steps."""
        if not self.needs:
            return batch
        assert batch.advantage_BT is not None
        assert batch.entropy_BT is not None
        entropy_NK, step_NK = turn_means(batch, batch.entropy_BT)
        base_NK, _ = turn_means(batch, batch.advantage_BT)
        found = modulate(base_NK, entropy_NK, step_NK, self.options)
        self._metrics = _metrics(base_NK, entropy_NK, step_NK, found)
        scale_BT, added_BT = of_turns(batch, found.scale_NK), of_turns(batch, found.added_NK)
        advantage_BT = batch.advantage_BT * scale_BT + added_BT
        return batch.with_(advantage_BT=advantage_BT.to(batch.advantage_BT.dtype))

    def metrics(self, step: int) -> dict[str, float]:
        """Return how the step's credit was changed."""
        return self._metrics


@dataclass(frozen=True, slots=True)
class Modulation:
    """``A_final = A scale + added``, with added the bonus less the mean over steps."""

    scale_NK: Tensor
    bonus_NK: Tensor
    added_NK: Tensor


def modulate(
    advantage_NK: Tensor, entropy_NK: Tensor, step_NK: Tensor, options: EMPGOptions
) -> Modulation:
    """Return how each step's advantage is changed (equations 10 to 12, and what they make).

    Args:
        advantage_NK: The base's, of each step.
        entropy_NK: Mean entropy of the policy's tokens of each step, in nats.
        step_NK: Boolean; where there is a step. All else is ignored, and 0 in the result.
        options: The constants.
    """
    if not step_NK.any():
        nothing_NK = torch.zeros_like(entropy_NK)
        return Modulation(nothing_NK, nothing_NK, nothing_NK)
    low, high = entropy_NK[step_NK].min(), entropy_NK[step_NK].max()
    uncertain_NK = (entropy_NK - low) / (high - low + options.eps)
    raw_NK = (-options.k * uncertain_NK).exp()
    scale_NK = raw_NK / raw_NK[step_NK].mean() * step_NK
    clarity_NK = (-options.k_future * uncertain_NK).exp() * step_NK
    bonus_NK = options.zeta * torch.nn.functional.pad(clarity_NK[:, 1:], (0, 1)) * step_NK
    added_NK = bonus_NK
    if options.centre:
        shift = (advantage_NK * scale_NK + bonus_NK)[step_NK].mean()
        added_NK = (bonus_NK - shift) * step_NK
    return Modulation(scale_NK, bonus_NK, added_NK)


def _metrics(
    base_NK: Tensor, entropy_NK: Tensor, step_NK: Tensor, found: Modulation
) -> dict[str, float]:
    if not step_NK.any():
        return {}
    base_S, scale_S = base_NK[step_NK], found.scale_NK[step_NK]
    flipped_S = base_S * (base_S * scale_S + found.added_NK[step_NK]) < 0
    return {
        "empg/entropy_min": entropy_NK[step_NK].min().item(),
        "empg/entropy_max": entropy_NK[step_NK].max().item(),
        "empg/scale_min": scale_S.min().item(),
        "empg/scale_max": scale_S.max().item(),
        "empg/bonus": found.bonus_NK[step_NK].mean().item(),
        "empg/flipped": flipped_S.double().mean().item(),
    }
