"""IGPO: each turn is rewarded for how much likelier it made the gold answer.

With a the gold answer and s_t the mean of log pi(a_j | what stands before turn t, a_<j) over its
tokens, by the weights that played:

    gain_t = s_(t+1) - s_t            of every turn but the last; or exp s_(t+1) - exp s_t
    out    = the outcome, at the last turn; a constant below 0 where the format is bad
    z      = (x - mean) / (sqrt(var + 1e-8) + 1e-6)      over the gains of a group, and apart
                                                         from them over its outcomes
    A_t    = z_t + gamma A_(t+1)                         of every token of turn t

"Information Gain-based Policy Optimization", arXiv 2510.14967: log-probabilities and separate sets
are those of the newest version; version 1 has differences of probabilities and one set. Loss and
clip are the base's; its advantages are replaced, and with them its ``unit`` and ``eps``. The
authors train with ``kl_coef`` 0.001 and ``aggregation`` seq-mean-token-mean, on search with the
metric ``f1_of_sets`` and ``reward.outcome`` score.

What to know: without normalisation and with gamma 1 the gains are a potential and telescope: the
return of turn t is s_last - s_t + out. Normalising breaks that. A gain in log-probability has no
bound, and a rare answer can rule its group's deviation; look at ``igpo/gain_max``.

Departures:

- What a trajectory was rewarded for beside gains is its outcome, format penalties included.
- The format is bad where a turn did not follow it, or where the episode ran out and is worth
  nothing: nothing was answered.
- Whether a turn has a gain is told by a mask, never by a reward that is not 0.
- The answer's tokens are found by where they stand in the text. They are scored by the weights
  that played, at the same places in whatever context these read.

``igpo:released`` is what the first released code trains with: differences of probabilities, and
no deviations; from the return of each token goes the mean of the group's returns at the same place
of the row, where a row that has ended counts 0. It has entropy_coef and kl_coef 0.001 too. Left
out: the stale context of finished rollouts, gains on the wrong tokens where a turn repeats an
earlier text, gains dropped where their number is not that of the turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, isfinite, nan
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from agentgym.errors import UsageError
from agentgym.trainers.advantages import group_advantage, of_turns
from agentgym.trainers.batch import Batch
from agentgym.trainers.method import AnswerOptions, Method, Need, Options
from agentgym.trainers.returns import discounted
from agentgym.trainers.selection import Rewards
from agentgym.types import Group, Stop, Trajectory

GAIN = "information_gain"
"""The name of the part of the reward."""

Span = tuple[float, float]


class IGPOOptions(AnswerOptions):
    """The settings of IGPO."""

    gain: Literal["logprob", "probability"] = Field(
        "logprob", description="what differences are of (newest version; version 1: probability)"
    )
    normalise: Literal["separate", "joint", "none", "position"] = Field(
        "separate",
        description="sets of the group's z-scores: gains and outcomes apart (newest version), or"
        " together (version 1); none; or less the mean at the same place of the row (code)",
    )
    gamma: float = Field(1.0, ge=0, le=1, description="discount of a turn (script: 1)")
    gain_weight: Span = Field(
        (1.0, 1.0),
        description="weight of gains at the first step and at the last, a line between"
        " (curriculum: 1 to 0.5; 0 to 0: nothing but the base)",
    )
    outcome_weight: Span = Field(
        (1.0, 1.0), description="weight of outcomes, likewise (curriculum: 0.5 to 1)"
    )
    format_outcome: float | Literal["keep"] = Field(
        -2.0,
        description="the outcome where the format is bad (code: -2; keep: what it would be)",
    )
    kl_in: Literal["loss"] = Field(
        "loss",
        description="where a divergence counts (paper): rewards of single tokens have no turn",
    )


class IGPO(Method[IGPOOptions]):
    """Information-gain policy optimisation."""

    name = "igpo"
    summary = "rewards each turn for how much likelier it made the gold answer"
    paper = "arXiv 2510.14967"
    bases = ("grpo", "dapo")
    options_type: ClassVar[type[Options]] = IGPOOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {
            "gain": "probability",
            "normalise": "position",
            "entropy_coef": 0.001,
            "kl_coef": 0.001,
        },
        "curriculum": {"gain_weight": (1.0, 0.5), "outcome_weight": (0.5, 1.0)},
    }

    def __init__(self, options: IGPOOptions, steps: int) -> None:
        super().__init__(options, steps)
        self._metrics: dict[str, float] = {}

    @property
    def needs(self) -> Need:
        """Answer scores, unless gains never weigh anything."""
        return Need.ANSWER_SCORES if any(self.options.gain_weight) else Need.NOTHING

    @property
    def answers(self) -> AnswerOptions:
        """How answers are scored."""
        return self.options

    def turn_rewards(self, groups: Sequence[Group], rewards: Rewards, step: int) -> Rewards:
        """Add the gain of each turn, and what bad format takes from the outcome."""
        if not self.needs:
            return rewards
        trajectories = [t for group in groups for t in group.trajectories]
        assert all(len(t.answer_logprobs) == len(t.turns) for t in trajectories)
        found = [gains(t.answer_logprobs, self.options.gain) for t in trajectories]
        rewards = {**rewards, GAIN: [[g if isfinite(g) else 0.0 for g in one] for one in found]}
        worth = self.options.format_outcome
        if worth == "keep":
            return rewards
        lost = [
            at_end(worth - sum(outcome) if is_invalid(t) else 0.0, len(outcome))
            for t, outcome in zip(trajectories, rewards["outcome"], strict=True)
        ]
        return {**rewards, "invalid": lost}

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Give each token the return of its turn, in z-scores of gains and outcomes.

        Raises:
            UsageError: ``normalise`` is position, and a trajectory has several rows.
        """
        if not self.needs:
            return batch
        gain_NK, there_NK, outcome_N = self._parts(batch)
        self._metrics = _metrics(batch, gain_NK, there_NK)
        z = z_scores(gain_NK, there_NK, outcome_N, batch.group_N, self.options.normalise)
        gain_weight, outcome_weight = self.weights(step)
        return_NK = turn_returns(
            gain_weight * z[0], outcome_weight * z[1], batch.turns_N, self.options.gamma
        ).to(batch.mask_BT)
        if self.options.normalise == "position":
            return batch.with_(advantage_BT=less_mean_at_place(batch, return_NK))
        return batch.with_(advantage_BT=of_turns(batch, return_NK))

    def _parts(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return gains, where there are any, and the sums of what else was rewarded."""
        there_NK = torch.zeros_like(batch.reward_mask_NK)
        for n, trajectory in enumerate(batch.trajectories):
            found = gains(trajectory.answer_logprobs, self.options.gain)
            there_NK[n, : len(found)] = torch.tensor([isfinite(gain) for gain in found])
        gain_NK = batch.reward_NK[GAIN].double()
        others = [part.double().sum(-1) for name, part in batch.reward_NK.items() if name != GAIN]
        return gain_NK, there_NK, torch.stack(others).sum(0)

    def weights(self, step: int) -> tuple[float, float]:
        """Return what gains and outcomes weigh in a step, which is counted from 1."""
        done = (step - 1) / max(1, self.steps - 1)
        (gain, gain_end), (outcome, outcome_end) = (
            self.options.gain_weight,
            self.options.outcome_weight,
        )
        return gain + (gain_end - gain) * done, outcome + (outcome_end - outcome) * done

    def metrics(self, step: int) -> dict[str, float]:
        """Return what the step's gains were."""
        return self._metrics


def gains(scores: Sequence[float], kind: str = "logprob") -> list[float]:
    """Return by how much each turn made the answer likelier; NaN where that is not known.

    It never is of the last turn, after which nothing is asked.

    Args:
        scores: The mean log-probability of the answer's tokens before each turn, in nats.
        kind: ``logprob`` for its differences, ``probability`` for those of its exponential.
    """
    if not scores:
        return []
    values = [exp(s) for s in scores] if kind == "probability" else scores
    return [*(after - before for before, after in pairwise(values)), nan]


def is_invalid(trajectory: Trajectory) -> bool:
    """Return whether a turn broke the action format, or nothing came of the episode in time."""
    ran_out = trajectory.stop in (Stop.TURNS, Stop.TOKENS)
    nothing = ran_out and not trajectory.won and trajectory.score == 0
    return nothing or any(turn.parse_error is not None for turn in trajectory.turns)


def at_end(value: float, turns: int) -> list[float]:
    """Return the rewards of turns of which only the last has one."""
    return [0.0] * (turns - 1) + [value] * (turns > 0)


def z_scores(
    gain_NK: Tensor, there_NK: Tensor, outcome_N: Tensor, group_N: Tensor, normalise: str
) -> tuple[Tensor, Tensor]:
    """Return gains and outcomes as deviations from their group's mean, in standard deviations.

    Args:
        gain_NK: Of each turn.
        there_NK: Boolean; where there is a gain. All else is ignored, and 0 in the result.
        outcome_N: Of each trajectory.
        group_N: Which group each belongs to.
        normalise: ``separate``: gains and outcomes are two sets in each group; ``joint``: they
            are one; anything else leaves them as they are.
    """
    gain_NK = gain_NK.where(there_NK, 0.0)
    if normalise not in ("separate", "joint"):
        return gain_NK, outcome_N
    gain_M = gain_NK[there_NK]
    of_gain_M = group_N[there_NK.nonzero()[:, 0]]
    if normalise == "separate":
        z_M, z_N = _z(gain_M, of_gain_M), _z(outcome_N, group_N)
    else:
        both = _z(torch.cat([gain_M, outcome_N]), torch.cat([of_gain_M, group_N]))
        z_M, z_N = both[: len(gain_M)], both[len(gain_M) :]
    return torch.zeros_like(gain_NK).masked_scatter(there_NK, z_M), z_N


def _z(value_M: Tensor, group_M: Tensor) -> Tensor:
    # The constants and the population's deviation are those of the released code.
    ones_M = torch.ones_like(value_M)
    return group_advantage(value_M, group_M, ones_M, ddof=0, eps=1e-6, variance_eps=1e-8)


def turn_returns(gain_NK: Tensor, outcome_N: Tensor, turns_N: Tensor, gamma: float) -> Tensor:
    """Return what each turn still earned: gains, and the outcome at the last turn, discounted."""
    last_NK = torch.arange(gain_NK.shape[1]) == turns_N[:, None] - 1
    return discounted(gain_NK + outcome_N[:, None] * last_NK, gamma)


def less_mean_at_place(batch: Batch, return_NK: Tensor) -> Tensor:
    """Return ``advantage_BT``: returns less the group's mean at the same place of the row.

    Places count from the first token that was sampled, over what the environment said too; a
    turn's return is there until the next turn begins. A row that has ended counts 0.

    Raises:
        UsageError: A trajectory has several rows.
    """
    if len(torch.unique(batch.trajectory_B)) < len(batch.trajectory_B):
        raise UsageError(
            "normalise = position compares the same places of trajectories that are one row each,"
            " and a rebuilt context has a row for each turn; use policy.context = full, or"
            " normalise = separate"
        )
    width = batch.turn_BT.shape[1]
    index_T = torch.arange(width)
    now_BT = batch.turn_BT.cummax(-1).values
    there_BT = (now_BT >= 0) & (index_T < batch.length_B[:, None])
    value_BT = return_NK[batch.trajectory_B[:, None], now_BT.clamp(min=0)] * there_BT
    first_B1 = (now_BT < 0).sum(-1, keepdim=True)
    # Rolled to the left, the first sampled tokens stand at place 0, and ends stay 0.
    rolled_BT = value_BT.gather(1, (index_T + first_B1) % width)
    size_G = torch.bincount(batch.group_N)
    group_B = batch.group_N[batch.trajectory_B]
    sum_GT = rolled_BT.new_zeros(len(size_G), width).index_add_(0, group_B, rolled_BT)
    mean_BT = (sum_GT / size_G[:, None])[group_B]
    return (value_BT - mean_BT.gather(1, (index_T - first_B1) % width)) * batch.mask_BT


def _metrics(batch: Batch, gain_NK: Tensor, there_NK: Tensor) -> dict[str, float]:
    asked = int((batch.turns_N - 1).clamp(min=0).sum())
    if not there_NK.any():
        return {"igpo/unscored": float(asked > 0)}
    gain_M = gain_NK[there_NK]
    return {
        "igpo/gain_mean": gain_M.mean().item(),
        "igpo/gain_abs": gain_M.abs().mean().item(),
        "igpo/gain_max": gain_M.abs().max().item(),
        "igpo/unscored": 1 - len(gain_M) / asked,
    }
