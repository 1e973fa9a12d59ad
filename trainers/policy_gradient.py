"""What all bases share: the clipped surrogate, the divergence from a reference, the entropy bonus.

    L = aggregate( clipped surrogate(r, A) + kl_coef KL - entropy_coef H )

A base is a subclass that says what the advantage A of a token is. Settings of the surrogate are
those of PPO (J. Schulman et al., "Proximal Policy Optimization Algorithms", arXiv 1707.06347) with
what later work added, each off or symmetric unless a base says otherwise.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from agentgym.errors import UsageError
from agentgym.trainers.aggregate import Aggregation, SequenceUnit
from agentgym.trainers.batch import Batch
from agentgym.trainers.kl import KL, kl_estimate
from agentgym.trainers.method import Chain, Forward, Loss, Method, Need, Options, Term
from agentgym.trainers.returns import turn_end_rewards
from agentgym.trainers.surrogate import clipped, clipped_surrogate


class SurrogateOptions(Options):
    """The settings of the surrogate that stands under every method."""

    clip_low: float = Field(0.2, ge=0, description="how far a ratio may fall (PPO)")
    clip_high: float = Field(0.2, ge=0, description="how far a ratio may rise (PPO; DAPO: 0.28)")
    clip_high_gradient: Literal["stop", "keep"] = Field(
        "stop",
        description="of a token whose ratio rose too far: none (PPO), or that of the bound (GPPO)",
    )
    dual_clip: float = Field(
        3.0,
        gt=1,
        description="bound where the advantage is negative, in advantages (verl); inf: none",
    )
    kl_coef: float = Field(
        0.0,
        ge=0,
        description="weight of the divergence from the reference (DAPO: 0; DeepSeekMath: 0.04)",
    )
    kl: KL = Field(KL.K3, description="its estimate (DeepSeekMath, equation 4: k3)")
    kl_in: Literal["loss", "reward"] = Field(
        "loss", description="where it counts: a term of the loss (GRPO) or a penalty of each token"
    )
    entropy_coef: float = Field(
        0.0, description="weight of a plain entropy bonus (PPO, c_2 of equation 9; verl: 0)"
    )
    aggregation: Aggregation = Field(
        Aggregation.TOKEN_MEAN, description="how token losses become one (DAPO; verl's default)"
    )
    sequence: SequenceUnit = Field(
        "trajectory",
        description="what a sequence is to it (DeepSeekMath: an output, here a trajectory;"
        " verl-agent: row)",
    )
    sum_norm: int | None = Field(
        None,
        gt=0,
        description="the constant of seq-mean-token-sum-norm, in tokens (Dr. GRPO: the budget)",
    )

    @model_validator(mode="after")
    def _sum_norm_is_there(self) -> SurrogateOptions:
        if self.aggregation is Aggregation.SEQ_MEAN_TOKEN_SUM_NORM and self.sum_norm is None:
            raise ValueError(f"{self.aggregation} needs sum_norm, a number of tokens")
        return self


SurrogateOptionsT = TypeVar("SurrogateOptionsT", bound=SurrogateOptions)


class PolicyGradient(Method[SurrogateOptionsT]):
    """A base: the surrogate's loss; subclasses give the advantages."""

    role = "base"
    options_type: ClassVar[type[Options]] = SurrogateOptions

    @property
    def compares(self) -> bool:
        """Whether an advantage is relative to the others of its group."""
        return True

    @property
    def needs(self) -> Need:
        """Groups to compare in, a reference to diverge from, entropies for a bonus."""
        needs = Need.GROUPS if self.compares else Need.NOTHING
        needs |= Need.REFERENCE if self.options.kl_coef else Need.NOTHING
        if self.options.kl_coef and self.options.kl_in == "reward":
            needs |= Need.OLD_LOGPROB
        return needs | (Need.ENTROPY_GRADIENT if self.options.entropy_coef else Need.NOTHING)

    def token_rewards(self, batch: Batch) -> Tensor:
        """Return ``reward_BT``: a turn's reward at its last token, less the divergence's penalty.

        The penalty is there where ``kl_in`` says so. A turn without a token has its reward
        nowhere; sums over a trajectory are :meth:`returns`.
        """
        reward_BT, penalty_BT = turn_end_rewards(batch), self._penalty(batch)
        return reward_BT if penalty_BT is None else reward_BT - penalty_BT

    def returns(self, batch: Batch) -> Tensor:
        """Return ``return_N``: the rewards of each trajectory, less the divergence's penalty."""
        penalty_BT = self._penalty(batch)
        if penalty_BT is None:
            return batch.return_N
        penalty_B = penalty_BT.double().sum(-1).to(batch.return_N.device)
        return batch.return_N.double().index_add(0, batch.trajectory_B, -penalty_B)

    def _penalty(self, batch: Batch) -> Tensor | None:
        o = self.options
        if not o.kl_coef or o.kl_in == "loss":
            return None
        assert batch.old_logprob_BT is not None
        assert batch.ref_logprob_BT is not None
        return o.kl_coef * kl_estimate(batch.old_logprob_BT, batch.ref_logprob_BT, o.kl)

    def hold_back(
        self, mini_batch: Batch, logprob_BT: Tensor, held_BT: Tensor, step: int
    ) -> Tensor:
        """Return where the clip holds the gradient back."""
        assert mini_batch.old_logprob_BT is not None
        assert mini_batch.advantage_BT is not None
        log_ratio_BT = logprob_BT - mini_batch.old_logprob_BT
        o = self.options
        return held_BT | clipped(log_ratio_BT, mini_batch.advantage_BT, o.clip_low, o.clip_high)

    def loss(self, forward: Forward, loss: Loss) -> Loss:
        """Return surrogate, divergence from the reference and entropy bonus.

        What is replayed has no divergence: nobody asked the reference about it.
        """
        o, batch = self.options, forward.batch
        assert batch.old_logprob_BT is not None
        assert batch.advantage_BT is not None
        weight_BT = forward.weight_BT(o.aggregation, o.sequence, o.sum_norm)
        mean_BT = forward.weight_BT(Aggregation.TOKEN_MEAN)
        log_ratio_BT = forward.logprob_BT - batch.old_logprob_BT
        keep = o.clip_high_gradient == "keep"
        surrogate_BT = clipped_surrogate(
            log_ratio_BT, batch.advantage_BT, o.clip_low, o.clip_high, o.dual_clip, keep
        )
        if batch.correction_BT is not None:
            surrogate_BT = surrogate_BT * batch.correction_BT
        loss = loss.with_term("policy", Term(surrogate_BT, weight_BT))
        if o.kl_coef and not batch.replayed:
            assert batch.ref_logprob_BT is not None
            kl_BT = kl_estimate(forward.logprob_BT, batch.ref_logprob_BT, o.kl)
            loss = loss.with_metric("actor/ref_kl", kl_BT, mean_BT)
            if o.kl_in == "loss":
                loss = loss.with_term("ref_kl", Term(o.kl_coef * kl_BT, weight_BT))
        if o.entropy_coef:
            bonus_BT = -o.entropy_coef * forward.entropy_BT
            loss = loss.with_term("entropy", Term(bonus_BT, weight_BT))
        held_BT = clipped(log_ratio_BT, batch.advantage_BT, o.clip_low, o.clip_high)
        if keep:
            kept_BT = held_BT & (batch.advantage_BT > 0)
            loss = loss.with_metric("actor/clip_kept", kept_BT.to(mean_BT), mean_BT)
            held_BT = held_BT & ~kept_BT
        loss = loss.with_metric("actor/clip_frac", held_BT.to(mean_BT), mean_BT)
        return loss.with_metric("actor/ppo_kl", -log_ratio_BT, mean_BT)


def refuse_groups_of_one(method: Chain, group_size: int) -> None:
    """Refuse to play groups of one for a base that compares the members of a group.

    Raises:
        UsageError: They would be.
    """
    if Need.GROUPS in method.needs and group_size < 2:
        raise UsageError(
            f"the hook advantages of {method.links[0].name} needs {Need.GROUPS.name}, two"
            f" trajectories or more of each task, and rollout.group_size is {group_size}; set it to"
            " 2 or more, or take a base that compares none: ppo or reinforce++"
        )


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
