"""GRPO: advantages relative to the group of the same task, and the clipped surrogate.

    A_i = (R_i - mean_group R) / (std_group R + eps)        of every token of trajectory i
    L   = aggregate( clipped surrogate(r, A) + kl_coef KL - entropy_coef H )

Z. Shao et al., "DeepSeekMath", arXiv 2402.03300. Departures, all of them settings:

- Each trajectory counts once in its group's mean and standard deviation. Implementations whose
  rows are turns count each row, so that long trajectories rule the mean: ``unit="row"``.
- The unbiased standard deviation (ddof 1).
- The mean over tokens of the whole mini-batch, not of each sequence first (as DAPO does).
- A dual clip, which bounds the loss of tokens with negative advantage (verl).
- A group of one has no statistic and is refused instead of keeping its raw return.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from agentgym.errors import UsageError
from agentgym.trainers.advantages import group_advantage
from agentgym.trainers.aggregate import Aggregation, SequenceUnit
from agentgym.trainers.batch import Batch
from agentgym.trainers.kl import KL, kl_estimate
from agentgym.trainers.method import Forward, Loss, Method, Need, Options, Term
from agentgym.trainers.surrogate import clipped, clipped_surrogate


class GRPOOptions(Options):
    """The settings of GRPO and of the surrogate that stands under every method."""

    normalise: bool = Field(True, description="divide by the group's standard deviation")
    unit: Literal["trajectory", "row", "turn"] = Field(
        "trajectory", description="what counts once in the group's statistics"
    )
    eps: float = Field(1e-6, gt=0, description="added to the standard deviation")
    clip_low: float = Field(0.2, ge=0, description="how far a ratio may fall (PPO)")
    clip_high: float = Field(0.2, ge=0, description="how far a ratio may rise (PPO; DAPO: 0.28)")
    dual_clip: float | None = Field(
        3.0, gt=1, description="bound where the advantage is negative, in advantages (verl)"
    )
    kl_coef: float = Field(0.0, ge=0, description="weight of the divergence from the reference")
    kl: KL = Field(KL.K3, description="its estimate")
    entropy_coef: float = Field(0.0, description="weight of a plain entropy bonus")
    aggregation: Aggregation = Field(
        Aggregation.TOKEN_MEAN, description="how token losses become one (DAPO; verl's default)"
    )
    sequence: SequenceUnit = Field("trajectory", description="what a sequence is to it")
    sum_norm: int | None = Field(
        None, gt=0, description="the constant of seq-mean-token-sum-norm, in tokens"
    )

    @model_validator(mode="after")
    def _sum_norm_is_there(self) -> GRPOOptions:
        if self.aggregation is Aggregation.SEQ_MEAN_TOKEN_SUM_NORM and self.sum_norm is None:
            raise ValueError(f"{self.aggregation} needs sum_norm, a number of tokens")
        return self


class GRPO(Method[GRPOOptions]):
    """Group-relative policy optimisation."""

    name = "grpo"
    summary = "advantages relative to the group of the same task, clipped surrogate"
    paper = "arXiv 2402.03300"
    role = "base"
    options_type: ClassVar[type[Options]] = GRPOOptions

    @property
    def needs(self) -> Need:
        """A reference where there is a divergence from it, entropies where there is a bonus."""
        needs = Need.REFERENCE if self.options.kl_coef else Need.NOTHING
        return needs | (Need.ENTROPY_GRADIENT if self.options.entropy_coef else Need.NOTHING)

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Give each token its trajectory's advantage.

        Raises:
            UsageError: A group has one trajectory.
        """
        refuse_single(batch)
        advantage_N = group_advantage(
            batch.return_N,
            batch.group_N,
            self._units(batch),
            self.options.normalise,
            eps=self.options.eps,
        )
        return batch.with_(advantage_BT=advantage_N[batch.trajectory_B, None] * batch.mask_BT)

    def _units(self, batch: Batch) -> Tensor:
        if self.options.unit == "trajectory":
            return torch.ones_like(batch.turns_N)
        if self.options.unit == "turn":
            return batch.turns_N
        return torch.bincount(batch.trajectory_B, minlength=len(batch.turns_N))

    def loss(self, forward: Forward, loss: Loss) -> Loss:
        """Return surrogate, divergence from the reference and entropy bonus."""
        o, batch = self.options, forward.batch
        assert batch.old_logprob_BT is not None
        assert batch.advantage_BT is not None
        weight_BT = forward.weight_BT(o.aggregation, o.sequence, o.sum_norm)
        log_ratio_BT = forward.logprob_BT - batch.old_logprob_BT
        surrogate_BT = clipped_surrogate(
            log_ratio_BT, batch.advantage_BT, o.clip_low, o.clip_high, o.dual_clip
        )
        loss = loss.with_term("policy", Term(surrogate_BT, weight_BT))
        if o.kl_coef:
            assert batch.ref_logprob_BT is not None
            kl_BT = kl_estimate(forward.logprob_BT, batch.ref_logprob_BT, o.kl)
            loss = loss.with_term("ref_kl", Term(o.kl_coef * kl_BT, weight_BT))
            loss = loss.with_metric("actor/ref_kl", kl_BT, weight_BT)
        if o.entropy_coef:
            bonus_BT = -o.entropy_coef * forward.entropy_BT
            loss = loss.with_term("entropy", Term(bonus_BT, weight_BT))
        mean_BT = forward.weight_BT(Aggregation.TOKEN_MEAN)
        held_BT = clipped(log_ratio_BT, batch.advantage_BT, o.clip_low, o.clip_high)
        loss = loss.with_metric("actor/clip_frac", held_BT.to(mean_BT), mean_BT)
        return loss.with_metric("actor/ppo_kl", -log_ratio_BT, mean_BT)


def refuse_single(batch: Batch) -> None:
    """Refuse a batch with a group of one, which has no statistic.

    Raises:
        UsageError: There is one.
    """
    size_G = torch.bincount(batch.group_N)
    if (size_G == 1).any():
        single = int((size_G[batch.group_N] == 1).nonzero()[0, 0])
        raise UsageError(
            f"the group of task {batch.trajectories[single].key.task} has one trajectory, and its"
            " advantage is relative to others; set rollout.group_size to 2 or more"
        )
