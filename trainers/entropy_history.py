"""Mean entropies of the steps so far, by turn index and overall."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class EntropyHistory:
    """Sums and counts over steps; each step counts once where it has the turn at all."""

    turns: Mapping[int, tuple[float, int]] = field(default_factory=dict)
    overall: tuple[float, int] = (0.0, 0)

    def with_step(self, entropy_of_turn: Mapping[int, float], overall: float) -> EntropyHistory:
        """Return the history with a step more.

        Args:
            entropy_of_turn: Mean entropy in nats of each turn index that the step has.
            overall: Mean entropy of the step.
        """
        turns = dict(self.turns)
        for turn, entropy in entropy_of_turn.items():
            total, count = turns.get(turn, (0.0, 0))
            turns[turn] = (total + entropy, count + 1)
        return EntropyHistory(turns, (self.overall[0] + overall, self.overall[1] + 1))

    def mean(self, turn: int | None = None) -> float:
        """Return the mean entropy of a turn index, or overall; NaN where none was seen."""
        total, count = self.overall if turn is None else self.turns.get(turn, (0.0, 0))
        return total / count if count else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return the history as JSON holds it."""
        return {
            "turns": {str(turn): list(seen) for turn, seen in self.turns.items()},
            "overall": list(self.overall),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> EntropyHistory:
        """Take back what :meth:`to_json` returned."""
        turns = {int(turn): (float(s), int(n)) for turn, (s, n) in state["turns"].items()}
        total, count = state["overall"]
        return cls(turns, (float(total), int(count)))


def turn_entropies(entropy_BT: Tensor, turn_BT: Tensor) -> dict[int, float]:
    """Return the mean entropy over the tokens of each turn index that has any.

    Args:
        entropy_BT: Entropies of tokens, in nats.
        turn_BT: The turn that each token belongs to, -1 where none.
    """
    of_turn = turn_BT >= 0
    turn_M, entropy_M = turn_BT[of_turn], entropy_BT[of_turn].double()
    count_K = torch.bincount(turn_M)
    sum_K = torch.bincount(turn_M, weights=entropy_M)
    return {k: float(sum_K[k] / count_K[k]) for k in count_K.nonzero()[:, 0].tolist()}
