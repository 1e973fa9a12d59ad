"""RLOO: each return against the mean of the others in its group.

    A_i = R_i - mean_{j != i} R_j  =  n / (n - 1) (R_i - mean_group R)

A. Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from
Human Feedback in LLMs", arXiv 2402.14740, after W. Kool et al., 2019.

Departures: the paper has the plain gradient of log-probabilities, this the clipped surrogate, which
is the same in the first update of a step. The paper puts the divergence from the reference into the
reward: ``kl_coef`` above 0 does so, ``kl_in="loss"`` makes it a term of the loss instead. A group
of one is refused instead of keeping its raw return.

What to watch: ``group/frac_zero_std``, the share of groups that teach nothing as all their returns
are the same; ``optim/grad_norm``, as nothing divides the returns.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from agentgym.trainers.advantages import group_advantage, of_tokens
from agentgym.trainers.batch import Batch
from agentgym.trainers.kl import KL
from agentgym.trainers.method import Options
from agentgym.trainers.policy_gradient import PolicyGradient, SurrogateOptions, refuse_single


class RLOOOptions(SurrogateOptions):
    """The settings of RLOO."""

    kl: KL = Field(KL.K1, description="estimate of the divergence (paper: the log-ratio)")
    kl_in: Literal["loss", "reward"] = Field(
        "reward", description="where it counts: a penalty in the return (paper) or the loss"
    )


class RLOO(PolicyGradient[RLOOOptions]):
    """REINFORCE with a leave-one-out baseline."""

    name = "rloo"
    summary = "REINFORCE against the mean return of the others in the group"
    paper = "arXiv 2402.14740"
    options_type: ClassVar[type[Options]] = RLOOOptions

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Give each token its trajectory's return less the mean of the others.

        Raises:
            UsageError: A group has one trajectory.
        """
        refuse_single(batch)
        advantage_N = leave_one_out(self.returns(batch), batch.group_N)
        return batch.with_(advantage_BT=of_tokens(batch, advantage_N))


def leave_one_out(return_N: Tensor, group_N: Tensor) -> Tensor:
    """Return ``advantage_N``: each return less the mean of the others in its group.

    Groups have two members or more.
    """
    once_N = torch.ones_like(group_N)
    centred_N = group_advantage(return_N, group_N, once_N, normalise=False)
    size_N = torch.bincount(group_N)[group_N].to(centred_N)
    return centred_N * size_N / (size_N - 1)
