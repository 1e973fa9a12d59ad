"""SPEAR: at first reward the use of tools, later imitate what went well.

"Learn the Ropes, Then Trust the Wins: Self-imitation with Progressive Exploration for Agentic
Reinforcement Learning", arXiv 2509.22601. With s the steps done:

    R     = R_outcome + mu(s) min(1, 0.1 calls)         mu = (1 + cos(pi s / S_t)) / 2, then 0
    J     = J_base + w(s) J_replay                      w = coef (1 - cos(pi s / S_w)) / 2
    A~    = R - P50(means of recent groups)             the credit of what is replayed

J_replay is the base's own clipped surrogate on trajectories of earlier steps, with A~ and the
log-probabilities that they had then. A trajectory is remembered if its advantage was above 0 and
replayed if A~ is above 0 too. The buffer is first in, first out; when it is full it is replayed,
with optimiser steps of its own behind the step's, and emptied. In both losses Clip-Cov leaves out a
few tokens (:mod:`agentgym.trainers.clip_cov`); KL-Cov is its alternative, which does not clip.

What to know: the rewards of calls are meant beside an outcome of 10 (``reward.scale``); where the
outcome is 1, ``tool_reward`` 0.01 and ``tool_cap`` 0.1 are the same curriculum. They are paid turn
by turn, also to who fails. As replay has optimiser steps of its own, an optimiser that scales
gradients, as Adam does, takes part of w out again. A policy that rarely wins never fills the buffer
within ``tolerate`` steps: watch ``spear/buffer`` against ``spear/buffer_size``. Where all that is
replayed earned the same, as with an outcome of won or lost alone, A~ is one number and has no
covariance: Clip-Cov of replay then takes nothing, and KL-Cov no better tokens than others.

Departures of ``spear:released``, what the published ALFWorld scripts effectively train with:

- rows are remembered, not trajectories, and replayed if A~ is 0 or more
- as full counts a buffer with more than 1.5 x 2048 rows whose return is above P50; then a power of
  two of rows, at most 2048, is drawn at random
- returns are forgotten by whole steps, before the new ones come; rows by their distance from the
  last step that was remembered
- Clip-Cov of 0.0002 within (1, 5), the file's defaults, as the scripts set it for replay alone;
  there 0.02 within (2, 60)
- every turn is a call, also one that says no action; both schedules take 200 steps, as the length
  of 100 that the scripts set for w is not passed on
- the group's statistics count turns, and the sum over tokens is of each row

A row is a turn, as in the scripts, with ``policy.context = "window(k)"``; with ``full`` it may be a
whole trajectory.

Left out of it: penalties written into the stored reward, denominators that count filtered rows,
statistics of Clip-Cov by micro-batch, the dynamic batch that replays another mini-batch.

On ``gigpo`` what is replayed has the credit of its outcome alone, as in released code.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from agentgym.trainers.aggregate import Aggregation
from agentgym.trainers.batch import Batch
from agentgym.trainers.clip_cov import CovBounds, Found, clip_cov, kl_cov, kl_cov_loss
from agentgym.trainers.memory import as_batch, memories
from agentgym.trainers.method import Forward, Loss, Method, Need, Options, Term
from agentgym.trainers.replay_buffer import RELEASED, STRICT, Baseline, ReplayBuffer
from agentgym.trainers.selection import Rewards
from agentgym.types import Group, Trajectory


class SPEAROptions(Options):
    """The settings of SPEAR."""

    tool_schedule: Literal["cosine", "constant", "none"] = Field(
        "cosine", description="how the reward of calls fades (README: cosine)"
    )
    tool_steps: int | None = Field(
        None, ge=1, description="S_t, steps until it is gone (scripts: 200 of 200); None: the run's"
    )
    tool_reward: float = Field(0.1, ge=0, description="of a call (released code: 0.1)")
    tool_cap: float = Field(
        1.0, ge=0, description="of a trajectory's calls together (released code: 1)"
    )
    tool_action: str = Field(
        ".",
        description="regular expression, found in the action of a turn that is a call: '.' in any"
        " action, '' in a turn without one too (released code), '<search>' in a search",
    )
    replay_coef: float = Field(1.0, ge=0, description="weight of replay after the warm-up (1)")
    warmup_steps: int | None = Field(
        None, ge=1, description="S_w, steps of the warm-up (README: 200 of 200); None: the run's"
    )
    buffer_size: int | None = Field(
        None,
        ge=1,
        description="how many are remembered (2048, of 2048 a step in the paper's mathematics);"
        " None: as many as a step has trajectories",
    )
    baseline_size: int = Field(
        10240, ge=1, description="groups whose mean returns are remembered (scripts)"
    )
    demonstrations: str | None = Field(
        None,
        description="file of demonstrations that are in the buffer before the first step, as"
        " `agentgym play` saves them; None: none (ours)",
    )
    tolerate: int = Field(
        5, ge=1, description="steps after which a trajectory is forgotten (scripts: 5)"
    )
    keep: bool = Field(False, description="keep what was replayed, to replay it again (ours)")
    normalise_replay: bool = Field(
        False, description="divide A~ by the median of the groups' deviations (Dr.BoT: no)"
    )
    buffer_rules: Literal["strict", "released"] = Field(
        "strict", description="the buffer as in the paper, or in released code (see the module)"
    )
    selector: Literal["clip_cov", "kl_cov", "none"] = Field(
        "clip_cov", description="what is done about tokens of high covariance (README: clip_cov)"
    )
    clip_cov_ratio: float = Field(0.02, ge=0, le=1, description="share of tokens (README: 0.02)")
    clip_cov_low: float = Field(1.0, description="their lowest covariance (README: 1)")
    clip_cov_high: float = Field(40.0, description="their highest (README: 40)")
    replay_clip_cov_ratio: float = Field(0.02, ge=0, le=1, description="the same of replay (0.02)")
    replay_clip_cov_low: float = Field(1.0, description="lowest there (README: 1; scripts: 2)")
    replay_clip_cov_high: float = Field(40.0, description="highest there (40; scripts: 60)")
    kl_cov_ratio: float = Field(0.02, ge=0, le=1, description="share of tokens (README: 0.02)")
    replay_kl_cov_ratio: float = Field(0.02, ge=0, le=1, description="the same of replay (0.02)")
    kl_cov_coef: float = Field(1.0, ge=0, description="what KL-Cov's tokens pay (Cui et al.: 1)")

    @field_validator("tool_action")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return value


class SPEAR(Method[SPEAROptions]):
    """Self-imitation with progressive exploration."""

    name = "spear"
    summary = "rewards calls at first, replays its own successes later, spares covariant tokens"
    paper = "arXiv 2509.22601"
    bases = ("drbot", "grpo", "gigpo")
    options_type: ClassVar[type[Options]] = SPEAROptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {
            "tool_steps": 200,
            "tool_action": "",
            "warmup_steps": 200,
            "buffer_size": 2048,
            "buffer_rules": "released",
            "clip_cov_ratio": 0.0002,
            "clip_cov_high": 5.0,
            "replay_clip_cov_low": 2.0,
            "replay_clip_cov_high": 60.0,
            "unit": "turn",
            "sequence": "row",
            "sum_norm": 512,
        }
    }

    def __init__(self, options: SPEAROptions, steps: int) -> None:
        super().__init__(options, steps)
        self._rules = STRICT if options.buffer_rules == "strict" else RELEASED
        self._buffer = ReplayBuffer()
        self._baseline = Baseline()
        self._found: Found | None = None
        self._looked = 0  # mini-batches of this step
        self._size = 0  # of the buffer, since the last step
        self._temperature = 1.0  # of this step
        self._call = re.compile(options.tool_action)
        self._metrics: dict[str, float] = {}

    @property
    def needs(self) -> Need:
        """The selector's: log-probabilities before the update and before each optimiser step."""
        played, replayed = self._bounds(False).ratio, self._bounds(True).ratio
        if not played and not (replayed and self.options.replay_coef):
            return Need.NOTHING
        return Need.OLD_LOGPROB | Need.CURRENT_LOGPROB

    # The curriculum ---------------------------------------------------------------------------

    def tool_factor(self, step: int) -> float:
        """Return mu of a step, which is counted from 1."""
        if self.options.tool_schedule == "cosine":
            return fade_out(step - 1, self.options.tool_steps or self.steps)
        return float(self.options.tool_schedule == "constant")

    def replay_weight(self, step: int) -> float:
        """Return w of a step, which is counted from 1."""
        steps = self.options.warmup_steps or self.steps
        return self.options.replay_coef * warm_up(step - 1, steps)

    def turn_rewards(self, groups: Sequence[Group], rewards: Rewards, step: int) -> Rewards:
        """Add the reward of calls, as the part ``tool``."""
        factor = self.tool_factor(step)
        if not factor or not self.options.tool_reward:
            return rewards
        found = [self._of_calls(t, factor) for group in groups for t in group.trajectories]
        return {**rewards, "tool": found}

    def _of_calls(self, trajectory: Trajectory, factor: float) -> list[float]:
        o, calls, paid = self.options, 0, []
        for turn in trajectory.turns:
            before = min(o.tool_cap, o.tool_reward * calls)
            calls += self._call.search(turn.action) is not None
            paid.append(factor * (min(o.tool_cap, o.tool_reward * calls) - before))
        return paid

    # Replay -----------------------------------------------------------------------------------

    def prepare(self, batch: Batch, step: int) -> None:
        """Note at which temperature the step was played."""
        self._temperature = batch.temperature
        self._looked = 0
        self._metrics = {"spear/buffer": float(len(self._buffer)), "spear/replayed": 0.0}

    def replay(self, step: int) -> Sequence[tuple[Batch, float]]:
        """Return what is replayed now, if the buffer is full; forget it, unless it is kept."""
        weight = self.replay_weight(step)
        if not weight:
            return ()
        if not self._rules.age_from_last:
            self._buffer = self._buffer.since(step - self.options.tolerate)
        found = self._buffer.memories
        self._metrics["spear/buffer"] = float(len(found))
        advantages = self._baseline.advantages(
            [memory.reward for memory in found], normalise=self.options.normalise_replay
        )
        rng = random.Random(f"spear:{step}:replay")
        chosen = self._rules.chosen(advantages, self._size, rng)
        if not self._rules.full(advantages, self._size) or not chosen:
            return ()
        if not self.options.keep:
            self._buffer = ReplayBuffer()
        credit = [advantages[n] for n in chosen]
        self._metrics["spear/replayed"] = float(len(chosen))
        self._metrics["spear/replayed_advantage"] = fmean(credit)
        return [(as_batch([found[n] for n in chosen], credit, self._temperature), weight)]

    @property
    def demonstrations(self) -> str | None:
        """What is in the buffer before the first step."""
        return self.options.demonstrations

    def remember(self, batch: Batch) -> None:
        """Put demonstrations into the buffer; they grow old as what step 0 had played would."""
        self._buffer = self._buffer.joined(memories(batch, 0, self._rules.unit))

    def observe(self, batch: Batch, step: int) -> None:
        """Remember what did well, and what each group earned."""
        if not self.options.replay_coef:
            return
        o, rules = self.options, self._rules
        if rules.age_from_last and self._buffer.memories:
            last = self._buffer.memories[-1].step
            self._buffer = self._buffer.since(last - min(o.tolerate, 10))
        self._baseline = self._baseline.with_step(
            batch, step, o.baseline_size, whole_steps=rules.whole_steps
        )
        self._size = o.buffer_size or len(batch.turns_N)
        self._buffer = self._buffer.joined(memories(batch, step, rules.unit))
        if rules.bounded:
            self._buffer = self._buffer.newest(self._size)

    # The tokens that are spared ---------------------------------------------------------------

    def _bounds(self, replayed: bool) -> CovBounds:
        o = self.options
        if o.selector == "none":
            return CovBounds(0)
        if o.selector == "kl_cov":
            return CovBounds(o.replay_kl_cov_ratio if replayed else o.kl_cov_ratio)
        if replayed:
            return CovBounds(o.replay_clip_cov_ratio, o.replay_clip_cov_low, o.replay_clip_cov_high)
        return CovBounds(o.clip_cov_ratio, o.clip_cov_low, o.clip_cov_high)

    def hold_back(
        self, mini_batch: Batch, logprob_BT: Tensor, held_BT: Tensor, step: int
    ) -> Tensor:
        """Choose the tokens that Clip-Cov leaves out, or that pay for KL-Cov."""
        bounds, self._found = self._bounds(mini_batch.replayed), None
        if not bounds.ratio:
            return held_BT
        self._looked += 1
        if self.options.selector == "kl_cov":
            self._found = kl_cov(mini_batch, logprob_BT, bounds.ratio)
            return torch.zeros_like(held_BT)  # it does not clip
        rng = random.Random(f"spear:{step}:{self._looked}:tokens")
        self._found = clip_cov(mini_batch, logprob_BT, held_BT, bounds, rng)
        return held_BT | self._found.chosen_BT

    def loss(self, forward: Forward, loss: Loss) -> Loss:
        """Leave the tokens out of the surrogate, or let them pay."""
        if self._found is None:
            return loss
        policy, mean_BT = loss.terms["policy"], forward.weight_BT(Aggregation.TOKEN_MEAN)
        chosen_BT = _of_rows(self._found.chosen_BT, forward)
        if self.options.selector == "kl_cov":
            loss_BT = kl_cov_loss(forward, chosen_BT, self.options.kl_cov_coef)
        else:
            loss_BT = policy.loss_BT.masked_fill(chosen_BT, 0.0)
        loss = loss.with_term("policy", Term(loss_BT, policy.weight_BT, policy.watched))
        cov_BT = _of_rows(self._found.cov_BT, forward).to(mean_BT)
        loss = loss.with_metric("spear/covariance_abs", cov_BT.abs(), mean_BT)
        candidate_BT = _of_rows(self._found.candidate_BT, forward)
        loss = loss.with_metric("spear/candidates", candidate_BT.to(mean_BT), mean_BT)
        return loss.with_metric("spear/chosen", chosen_BT.to(mean_BT), mean_BT)

    # What is told and kept --------------------------------------------------------------------

    def metrics(self, step: int) -> dict[str, float]:
        """Return where the curriculum is, and what the buffer holds and gave."""
        found = {
            "spear/tool_factor": self.tool_factor(step),
            "spear/replay_weight": self.replay_weight(step),
            "spear/buffer_size": float(self._size),
            **self._metrics,
        }
        if self._baseline.mean:
            found["spear/baseline"] = self._baseline.median
        return found

    def state(self) -> dict[str, Any]:
        """Return the buffer, its size, and the returns of recent groups."""
        return {
            "size": self._size,
            "baseline": self._baseline.to_json(),
            "buffer": self._buffer.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        self._size = state["size"]
        self._baseline = Baseline.from_json(state["baseline"])
        self._buffer = ReplayBuffer.from_state(state["buffer"])


def fade_out(done: int, steps: int) -> float:
    """Return ``(1 + cos(pi done / steps)) / 2``: 1 at first, 0 from ``steps`` on."""
    return (1 + math.cos(math.pi * done / steps)) / 2 if done < steps else 0.0


def warm_up(done: int, steps: int) -> float:
    """Return ``(1 - cos(pi done / steps)) / 2``: 0 at first, 1 from ``steps`` on."""
    return 1 - fade_out(done, steps)


def _of_rows(value_BT: Tensor, forward: Forward) -> Tensor:
    """Return what a mini-batch's tensor says of the rows of a forward pass."""
    width = forward.logprob_BT.shape[1]
    return value_BT[forward.rows, :width].to(forward.logprob_BT.device)
