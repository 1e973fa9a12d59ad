"""DAPO: a higher upper clip, the mean over tokens, and groups with a signal only.

    A as in GRPO;  L as in GRPO with clip(r, 1 - 0.2, 1 + 0.28), mean over all tokens, no divergence
    dynamic sampling: a group whose outcomes are all equal has no advantage; another takes its place
    overlong shaping: a turn of n tokens costs  min(1, max(0, n - (limit - buffer)) / buffer)

Q. Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", arXiv 2503.14476.

Departures:

- As many groups are played anew as were left out, not whole batches whose surplus is thrown away;
  a step draws no task twice.
- After ``max_rounds``, or when the tasks run out, the step learns from the groups that it has. If
  none has a signal the last ones stay, so that a run goes on whose policy wins everything.
- Overlong shaping is off unless ``overlong_limit`` says how long a turn may be, and counts turns:
  a trajectory of many turns is no overlong answer.
- The dual clip of the other bases stays.

What to watch: ``rollout/rounds``, how often a step played to find groups with a signal, and
``rollout/left_out``, the episodes that this cost; at ``max_rounds`` the step was not filled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from agentgym.trainers.grpo import GRPO, GRPOOptions
from agentgym.trainers.method import Options
from agentgym.trainers.selection import Rewards, Selection
from agentgym.types import Group, Trajectory

SAME = 1e-9
"""Returns that differ by less are equal: sums in another order differ in their last bits."""


class DAPOOptions(GRPOOptions):
    """The settings of DAPO."""

    clip_high: float = Field(0.28, ge=0, description="how far a ratio may rise (section 3.1)")
    signal: Literal["outcome", "return", "any"] = Field(
        "outcome",
        description="what must differ within a group for it to stay (section 3.2: the outcome,"
        " without penalties); any keeps every group",
    )
    max_rounds: int = Field(
        10, ge=1, description="how often a step plays at most (released recipe: 10)"
    )
    overlong_limit: int | None = Field(
        None, gt=0, description="tokens of a turn from which the whole penalty is due (section 3.4)"
    )
    overlong_buffer: int = Field(
        64, gt=0, description="tokens below the limit in which the penalty rises (section 3.4)"
    )

    @model_validator(mode="after")
    def _buffer_fits(self) -> DAPOOptions:
        if self.overlong_limit is not None and self.overlong_buffer > self.overlong_limit:
            raise ValueError(
                f"overlong_buffer is {self.overlong_buffer} and overlong_limit"
                f" {self.overlong_limit}; the buffer ends at the limit and cannot be larger"
            )
        return self


class DAPO(GRPO):
    """Decoupled clip and dynamic sampling."""

    name = "dapo"
    summary = "GRPO with a higher upper clip, on groups with a signal only"
    paper = "arXiv 2503.14476"
    options_type: ClassVar[type[Options]] = DAPOOptions
    options: DAPOOptions

    def turn_rewards(self, groups: Sequence[Group], rewards: Rewards, step: int) -> Rewards:
        """Add what overlong turns cost, as the part ``overlong``."""
        limit = self.options.overlong_limit
        if limit is None:
            return rewards
        start = limit - self.options.overlong_buffer
        penalties = [
            [-min(1.0, max(0, tokens - start) / self.options.overlong_buffer) for tokens in lengths]
            for lengths in (turn_lengths(t) for group in groups for t in group.trajectories)
        ]
        return {**rewards, "overlong": penalties}

    def select(self, selection: Selection, step: int) -> Selection:
        """Leave out groups without a signal, and ask for others in their place."""
        if self.options.signal == "any":
            return selection
        stays = self._with_signal(selection)
        left_out = stays.count(False)
        last = selection.rounds >= self.options.max_rounds or not selection.spare
        if not left_out or (last and not any(stays)):
            return selection
        return selection.keep_groups(stays).wanting(0 if last else left_out)

    def _with_signal(self, selection: Selection) -> list[bool]:
        parts = ["outcome"] if self.options.signal == "outcome" else None
        totals = iter(selection.totals(parts))
        of_groups = [[next(totals) for _ in group.trajectories] for group in selection.groups]
        return [max(found) - min(found) > SAME for found in of_groups]


def turn_lengths(trajectory: Trajectory) -> list[int]:
    """Return how many tokens each turn of a trajectory has."""
    count = Counter(turn for row in trajectory.rows for turn in row.turns)
    return [count[turn] for turn in range(len(trajectory.turns))]
