"""GRPO: advantages relative to the group of the same task, and the clipped surrogate.

    A_i = (R_i - mean_group R) / (std_group R + eps)        of every token of trajectory i
    L   = aggregate( clipped surrogate(r, A) + kl_coef KL - entropy_coef H )

Z. Shao et al., "DeepSeekMath", arXiv 2402.03300. Departures, all of them settings:

- Each trajectory counts once in its group's mean and standard deviation. Implementations whose
  rows are turns count each row, so that long trajectories rule the mean: ``unit="turn"``.
- The unbiased standard deviation (ddof 1).
- The mean over tokens of the whole mini-batch, not of each sequence first (as DAPO does).
- A dual clip, which bounds the loss of tokens with negative advantage (verl).
- ``credit="best"`` is for success in any of several tries: the best of a group alone has an
  advantage, of (R_best - R_second) / (std + eps), as in Y. Tang et al., arXiv 2503.19595, by verl.
- A group of one has no statistic and is refused instead of keeping its raw return.

What to watch: ``group/frac_zero_std``, the share of groups that teach nothing as all their returns
are the same; ``actor/clip_frac`` and ``actor/ppo_kl``, how far an update went; ``actor/entropy``,
as a policy that has become sure no longer finds anything new.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from agentgym.trainers.advantages import (
    StatisticUnit,
    group_advantage,
    of_tokens,
    only_best,
    unit_counts,
)
from agentgym.trainers.batch import Batch
from agentgym.trainers.method import Options
from agentgym.trainers.policy_gradient import PolicyGradient, SurrogateOptions, refuse_single


class GRPOOptions(SurrogateOptions):
    """The settings of GRPO."""

    normalise: bool = Field(
        True, description="divide by the group's standard deviation (section 4.1.2: yes)"
    )
    unit: StatisticUnit = Field(
        "trajectory",
        description="what counts once in a group's statistics (paper: an output; verl-agent: turn)",
    )
    eps: float = Field(1e-6, gt=0, description="added to the standard deviation (verl)")
    credit: Literal["all", "best"] = Field(
        "all", description="who of a group gets it; best: the best alone, for its lead (pass@k)"
    )


class GRPO(PolicyGradient[GRPOOptions]):
    """Group-relative policy optimisation."""

    name = "grpo"
    summary = "advantages relative to the group of the same task, clipped surrogate"
    paper = "arXiv 2402.03300"
    options_type: ClassVar[type[Options]] = GRPOOptions

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Give each token its trajectory's advantage.

        Raises:
            UsageError: A group has one trajectory.
        """
        refuse_single(batch)
        o = self.options
        advantage_N = group_advantage(
            self.returns(batch), batch.group_N, unit_counts(batch, o.unit), o.normalise, eps=o.eps
        )
        if o.credit == "best":
            advantage_N = only_best(advantage_N, batch.group_N)
        return batch.with_(advantage_BT=of_tokens(batch, advantage_N))
