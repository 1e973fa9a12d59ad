"""GiGPO: GRPO, and a second comparison between the turns that began in the same state.

    A_i,k = A_i + omega A^S_i,k
    A_i     the trajectory's return against its group's, as in GRPO
    R_i,k = sum_{j >= k} gamma^(j-k) r_i,j                      what turn k still earned
    A^S   = R_i,k - mean of R over the turns of the group with the same anchor state

L. Feng et al., "Group-in-Group Policy Optimization for LLM Agent Training", arXiv 2505.10978. Both
parts are divided by their standard deviation where ``normalise`` is set. A turn whose state nobody
else met has nothing to compare with, and A^S = 0. A trajectory that comes back to a state is
compared with itself too.

Departures: states are compared by the environment's own anchor, which holds no history and no
counter of steps, not by the text of the observation. Returns follow the turns of a trajectory,
where released code takes the rows in the order of the batch. Each trajectory counts once in its
group's statistics; released code counts each of its turns (``unit="turn"``). A divergence in the
reward counts in A_i alone.

What to watch: ``gigpo/compared``, the share of turns that another turn is compared with. Near 0 it
is GRPO, as where observations never come twice.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from agentgym.trainers.advantages import (
    StatisticUnit,
    group_advantage,
    of_tokens,
    of_turns,
    unit_counts,
)
from agentgym.trainers.batch import Batch
from agentgym.trainers.method import Options
from agentgym.trainers.policy_gradient import PolicyGradient, SurrogateOptions, refuse_single
from agentgym.trainers.returns import discounted, turn_rewards


class GiGPOOptions(SurrogateOptions):
    """The settings of GiGPO."""

    omega: float = Field(1.0, ge=0, description="weight of the turns' comparison (paper: 1)")
    gamma: float = Field(
        0.95,
        ge=0,
        le=1,
        description="discount of a turn in what is still to come (released scripts: 0.95)",
    )
    normalise: bool = Field(
        False, description="divide by standard deviations (released default: no)"
    )
    unit: StatisticUnit = Field(
        "trajectory",
        description="what counts once in a group's statistics (paper: trajectory; released: turn)",
    )
    eps: float = Field(1e-6, gt=0, description="added to standard deviations (released code)")


class GiGPO(PolicyGradient[GiGPOOptions]):
    """Group-in-group policy optimisation."""

    name = "gigpo"
    summary = "GRPO, and a comparison of turns that began in the same state"
    paper = "arXiv 2505.10978"
    options_type: ClassVar[type[Options]] = GiGPOOptions

    def __init__(self, options: GiGPOOptions, steps: int) -> None:
        super().__init__(options, steps)
        self._compared = 0.0

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Give each token its trajectory's advantage and its turn's.

        Raises:
            UsageError: A group has one trajectory.
        """
        refuse_single(batch)
        o = self.options
        counts_N = unit_counts(batch, o.unit)
        episode_N = group_advantage(
            self.returns(batch), batch.group_N, counts_N, o.normalise, eps=o.eps
        )
        state_NK = anchor_states(batch)
        turn_NK = self._of_turns(batch, state_NK)
        self._compared = _share_compared(state_NK)
        advantage_BT = of_tokens(batch, episode_N) + o.omega * of_turns(batch, turn_NK)
        return batch.with_(advantage_BT=advantage_BT)

    def _of_turns(self, batch: Batch, state_NK: Tensor) -> Tensor:
        there_NK = state_NK >= 0
        return_S = discounted(turn_rewards(batch), self.options.gamma)[there_NK]
        advantage_S = group_advantage(
            return_S,
            state_NK[there_NK],
            torch.ones_like(return_S),
            self.options.normalise,
            eps=self.options.eps,
        )
        advantage_NK = torch.zeros(state_NK.shape)
        return advantage_NK.masked_scatter(there_NK, advantage_S.to(advantage_NK))

    def metrics(self, step: int) -> dict[str, float]:
        """Return the share of turns that another turn is compared with."""
        return {"gigpo/compared": self._compared}


def anchor_states(batch: Batch) -> Tensor:
    """Return ``state_NK``, a number for each state met in each group; -1 where there is no turn.

    Turns of one group that saw the same anchor have the same number.
    """
    number: dict[tuple[int, str], int] = {}
    state_NK = torch.full(batch.reward_mask_NK.shape, -1)
    for n, trajectory in enumerate(batch.trajectories):
        group = int(batch.group_N[n])
        for k, turn in enumerate(trajectory.turns):
            state_NK[n, k] = number.setdefault((group, turn.anchor), len(number))
    return state_NK


def _share_compared(state_NK: Tensor) -> float:
    state_S = state_NK[state_NK >= 0]
    if not len(state_S):
        return 0.0
    return (torch.bincount(state_S)[state_S] > 1).double().mean().item()
