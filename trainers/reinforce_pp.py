"""REINFORCE++: the return that is still to come, whitened over all tokens of the batch.

    G_t = r_t + gamma G_{t+1}           along the policy's tokens of a trajectory
    A_t = (G_t - mean G) / std G        over the policy's tokens of the batch
    with a baseline: G_t = R_i - mean_group R for every token, whitened the same way

r is the reward of a turn at its last token, less the divergence from the reference at each token.
J. Hu et al., "REINFORCE++: A Simple and Efficient Approach for Aligning Large Language Models",
arXiv 2501.03262; ``baseline`` is its variant for groups.

Departures: released code forgets what is to come at each token that the policy did not say, so that
no credit crosses what an environment said, though one row holds the trajectory; here credit flows
along the trajectory, whatever rows it is in. The paper weighs the divergence by 0.001 or so; here
it is off unless ``kl_coef`` is set, as in the other bases.

What to watch: ``advantage/min`` and ``advantage/max``: whitening over the batch makes the few
tokens that stand out large where most returns are the same.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from agentgym.trainers.advantages import group_advantage, of_tokens
from agentgym.trainers.batch import Batch
from agentgym.trainers.kl import KL
from agentgym.trainers.method import Options
from agentgym.trainers.policy_gradient import PolicyGradient, SurrogateOptions, refuse_single
from agentgym.trainers.returns import Timeline, discounted, whitened


class ReinforcePPOptions(SurrogateOptions):
    """The settings of REINFORCE++."""

    gamma: float = Field(1.0, ge=0, le=1, description="discount of a token (paper: 1)")
    baseline: bool = Field(
        False, description="subtract the group's mean return first (REINFORCE++-baseline)"
    )
    eps: float = Field(1e-8, gt=0, description="added to the variance (verl)")
    kl: KL = Field(KL.K1, description="estimate of the divergence (paper: the log-ratio)")
    kl_in: Literal["loss", "reward"] = Field(
        "reward", description="where it counts: a penalty of each token (paper) or the loss"
    )


class ReinforcePP(PolicyGradient[ReinforcePPOptions]):
    """REINFORCE with whitened returns to come."""

    name = "reinforce++"
    summary = "REINFORCE on returns to come, whitened over the batch; needs no groups"
    paper = "arXiv 2501.03262"
    options_type: ClassVar[type[Options]] = ReinforcePPOptions
    presets: ClassVar[dict[str, dict[str, Any]]] = {"baseline": {"baseline": True}}

    @property
    def compares(self) -> bool:
        """Whether an advantage is relative to the others of its group: with a baseline only."""
        return self.options.baseline

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Give each token its whitened return.

        Raises:
            UsageError: A baseline is asked for, and a group has one trajectory.
        """
        return_BT = self._against_group(batch) if self.options.baseline else self._to_come(batch)
        return batch.with_(advantage_BT=whitened(return_BT, batch.mask_BT, self.options.eps))

    def _to_come(self, batch: Batch) -> Tensor:
        timeline = Timeline.of(batch)
        reward_NL = timeline.lay(self.token_rewards(batch))
        return timeline.put_back(discounted(reward_NL, self.options.gamma))

    def _against_group(self, batch: Batch) -> Tensor:
        refuse_single(batch)
        once_N = torch.ones_like(batch.turns_N)
        centred_N = group_advantage(self.returns(batch).double(), batch.group_N, once_N, False)
        return of_tokens(batch, centred_N)
