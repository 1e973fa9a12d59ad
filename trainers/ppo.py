"""PPO: advantages by generalised estimation from a critic's values, and the clipped surrogate.

    delta_t = r_t + gamma V_{t+1} - V_t
    A_t     = delta_t + gamma lambda A_{t+1}       along the policy's tokens of a trajectory
    R_t     = A_t + V_t                            what the critic learns
    A_t     whitened over the policy's tokens of the batch

r is the reward of a turn at its last token, less the divergence from the reference at each token
where ``kl_in`` says so; V_t is the value before token t, and 0 behind the last one.
J. Schulman et al., "Proximal Policy Optimization Algorithms", arXiv 1707.06347;
"High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv 1506.02438.
What the critic is, and its clipped loss: :mod:`agentgym.trainers.critic`.

Departures: credit flows along the trajectory, over what environments said and across its rows. In
implementations whose rows are turns each row is an episode to the estimator, which ends with the
outcome of the whole trajectory: ``gae="row"``. A dual clip bounds the loss of tokens with negative
advantage (verl).

What to watch: ``critic/explained_variance``, 1 where the critic knows every return and 0 where a
constant would do as well: there the critic takes no noise out of the advantages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from agentgym.trainers.batch import Batch
from agentgym.trainers.method import Need, Options
from agentgym.trainers.policy_gradient import PolicyGradient, SurrogateOptions
from agentgym.trainers.returns import Timeline, whitened


class PPOOptions(SurrogateOptions):
    """The settings of PPO."""

    gamma: float = Field(1.0, ge=0, le=1, description="discount of a token (verl: 1)")
    lam: float = Field(1.0, ge=0, le=1, description="lambda, of the estimator (verl: 1)")
    gae: Literal["trajectory", "row"] = Field(
        "trajectory",
        description="along what credit flows (GAE: an episode; verl-agent: row, outcome at end)",
    )
    whiten: bool = Field(
        True, description="advantages of mean 0 and variance 1 over the batch (verl)"
    )
    eps: float = Field(1e-8, gt=0, description="added to the variance (verl)")


class PPO(PolicyGradient[PPOOptions]):
    """Proximal policy optimisation with a critic."""

    name = "ppo"
    summary = "advantages from a critic's values, clipped surrogate; needs no groups"
    paper = "arXiv 1707.06347"
    options_type: ClassVar[type[Options]] = PPOOptions

    @property
    def compares(self) -> bool:
        """Whether an advantage is relative to the others of its group: a critic foretells it."""
        return False

    @property
    def needs(self) -> Need:
        """Values, and what the surrogate needs."""
        return super().needs | Need.VALUES

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Give each token its advantage, and the critic its targets."""
        assert batch.value_BT is not None
        o = self.options
        along = rows_as_trajectories(batch) if o.gae == "row" else batch
        reward_BT = self.token_rewards(outcome_at_row_ends(batch) if o.gae == "row" else batch)
        timeline = Timeline.of(along)
        value_NL = timeline.lay(batch.value_BT)
        raw_NL = advantage_estimate(timeline.lay(reward_BT), value_NL, o.gamma, o.lam)
        raw_BT = timeline.put_back(raw_NL).to(batch.value_BT)
        target_BT = timeline.put_back(raw_NL + value_NL).to(batch.value_BT)
        advantage_BT = whitened(raw_BT, batch.mask_BT, o.eps) if o.whiten else raw_BT
        return batch.with_(advantage_BT=advantage_BT, value_target_BT=target_BT)


def advantage_estimate(reward_NL: Tensor, value_NL: Tensor, gamma: float, lam: float) -> Tensor:
    """Return ``A_t = delta_t + gamma lambda A_{t+1}``, in float64.

    Rewards and values are 0 behind the end of a shorter sequence, and so is what comes out.
    """
    reward_NL, value_NL = reward_NL.double(), value_NL.double()
    following_NL = torch.nn.functional.pad(value_NL[:, 1:], (0, 1))
    advantage_NL = reward_NL + gamma * following_NL - value_NL
    for t in range(advantage_NL.shape[1] - 2, -1, -1):
        advantage_NL[:, t] += gamma * lam * advantage_NL[:, t + 1]
    return advantage_NL


def rows_as_trajectories(batch: Batch) -> Batch:
    """Return the batch with each row a trajectory of its own."""
    row_B = torch.arange(len(batch.trajectory_B))
    return batch.with_(trajectory_B=row_B, turns_N=torch.ones_like(row_B))


def outcome_at_row_ends(batch: Batch) -> Batch:
    """Return the batch with each trajectory's outcome at the last turn of each of its rows."""
    outcome_NK = batch.reward_NK["outcome"]
    repeated_NK = torch.zeros_like(outcome_NK)
    last_B = batch.turn_BT.amax(-1)
    ends = (last_B >= 0).nonzero()[:, 0]
    owner = batch.trajectory_B[ends]
    repeated_NK[owner, last_B[ends]] = outcome_NK.sum(-1)[owner]
    return replace(batch, reward_NK={**batch.reward_NK, "outcome": repeated_NK})
