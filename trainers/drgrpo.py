"""Dr. GRPO: GRPO without the two divisions that bias it.

    A_i = R_i - mean_group R                         no division by the standard deviation
    L   = mean over trajectories of (sum over tokens of the surrogate) / constant
                                                     no division by the trajectory's own length

Z. Liu et al., "Understanding R1-Zero-Like Training: A Critical Perspective", arXiv 2503.20783,
section 3. Dividing by the deviation weighs tasks that are almost always or almost never solved
above others; dividing by the length makes long wrong answers cheap.

Departures: released trainers' ``seq-mean-token-sum-norm`` divides by the padded width and not by
the number of sequences, so that the loss grows with the batch; here it is a mean. The constant
scales the whole loss, which Adam takes out again, and so weighs only against other terms.

What to watch: ``response_length/mean``, which is not to grow on its own; ``group/frac_zero_std``.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from agentgym.trainers.advantages import StatisticUnit, group_advantage, of_tokens, unit_counts
from agentgym.trainers.aggregate import Aggregation
from agentgym.trainers.batch import Batch
from agentgym.trainers.method import Options
from agentgym.trainers.policy_gradient import PolicyGradient, SurrogateOptions, refuse_single


class DrGRPOOptions(SurrogateOptions):
    """The settings of Dr. GRPO."""

    unit: StatisticUnit = Field(
        "trajectory", description="what counts once in the group's mean (paper: an output)"
    )
    aggregation: Aggregation = Field(
        Aggregation.SEQ_MEAN_TOKEN_SUM_NORM,
        description="how token losses become one (section 3: the sum over a constant)",
    )
    sum_norm: int | None = Field(
        1024,
        gt=0,
        description="that constant, in tokens; best what a trajectory may sample at most"
        " (section 3: the generation budget)",
    )


class DrGRPO(PolicyGradient[DrGRPOOptions]):
    """GRPO without the bias of length and difficulty."""

    name = "drgrpo"
    summary = "GRPO without dividing by the group's deviation and the trajectory's length"
    paper = "arXiv 2503.20783"
    options_type: ClassVar[type[Options]] = DrGRPOOptions

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Give each token its trajectory's return less the group's mean.

        Raises:
            UsageError: A group has one trajectory.
        """
        refuse_single(batch)
        advantage_N = group_advantage(
            self.returns(batch), batch.group_N, unit_counts(batch, self.options.unit), False
        )
        return batch.with_(advantage_BT=of_tokens(batch, advantage_N))
