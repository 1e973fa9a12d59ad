"""Behaviour cloning: supervised learning of a demonstrator's actions.

    L = - mean over the demonstrator's tokens of log p - w mean over all other tokens of log p

w is ``observation_weight``; slips count in neither mean, nor does padding. To foretell what the
environment says is no aim of its own; but it is mostly copying of names, which is what a small
model finds hardest to learn, and there are eight such tokens for each of an action's.

Slips are told from what the environment said by their version: somebody said them.

What to watch: ``sft/action_loss`` and ``sft/action_accuracy``, of the tokens that are imitated;
``sft/observation_loss``, of those that are only foretold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from agentgym.trainers.optim import OptimOptions, build_optimizers, learning_rate
from agentgym.types import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel


NAME = "sft"
"""What it is called, though it is no link of a chain."""


class CloningOptions(BaseModel):
    """How demonstrations are learnt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens_per_step: int = Field(
        default=10000, ge=1, description="rows are taken until they have so many tokens (ours)"
    )
    observation_weight: float = Field(
        default=0.3, ge=0, description="w, of the tokens that the environment said (ours)"
    )
    bfloat16: bool = Field(
        default=True,
        description="the body of the model computes in bfloat16, the loss in float32 (ours)",
    )


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows of one forward pass, right-padded. Axes as in :mod:`agentgym.trainers.batch`."""

    ids_BT: Tensor  # long
    action_BT: Tensor  # bool; the demonstrator's tokens
    other_BT: Tensor  # bool; what the environment said, without slips and padding


@dataclass(slots=True)
class Cloner:
    """A model that learns demonstrations, and all that goes on from a checkpoint.

    ``row`` gives the row of a number, whether it is to be learnt at all (None if not).
    """

    model: PreTrainedModel
    options: CloningOptions
    optim: OptimOptions
    steps: int
    row: Callable[[int], Row | None]
    step: int = 0
    number: int = 0  # of the next row
    tokens: int = 0  # learnt so far
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    _head: Any = field(init=False)

    def __post_init__(self) -> None:
        self._head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.optimizers = build_optimizers(self.model, self.optim)

    def take_step(self) -> dict[str, float]:
        """Learn the next rows and return the step's metrics."""
        begun = time.perf_counter()
        rows = self._next_rows()
        passes = [pack_rows(part) for part in _cut(rows, self.optim.micro_batch_tokens)]
        actions = sum(int(part.action_BT[:, 1:].sum()) for part in passes)
        others = sum(int(part.other_BT[:, 1:].sum()) for part in passes)
        weights = (1 / max(actions, 1), self.options.observation_weight / max(others, 1))
        sums = torch.zeros(3)
        self.model.train()
        for part in passes:
            sums += self._learn(part, *weights)
        norm = clip_grad_norm_(self.model.parameters(), self.optim.clip or float("inf"))
        self.step += 1
        rate = learning_rate(self.optim, self.step, self.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        tokens = sum(len(row.ids) for row in rows)
        self.tokens += tokens
        return {
            "step": self.step,
            "sft/tokens": float(self.tokens),
            "sft/action_loss": float(sums[0]) / max(actions, 1),
            "sft/action_accuracy": float(sums[1]) / max(actions, 1),
            "sft/observation_loss": float(sums[2]) / max(others, 1),
            "optim/grad_norm": float(norm),
            "optim/lr": rate,
            "perf/tokens_per_s": tokens / (time.perf_counter() - begun),
        }

    def _next_rows(self) -> list[Row]:
        rows: list[Row] = []
        tokens = 0
        while tokens < self.options.tokens_per_step:
            row = self.row(self.number)
            self.number += 1
            if row is not None:
                rows.append(row)
                tokens += len(row.ids)
        return sorted(rows, key=lambda row: len(row.ids))

    def _learn(self, part: Packed, action_weight: float, other_weight: float) -> Tensor:
        """Add the gradient of some rows; return sums over actions (loss, right ones), others."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bfloat16):
            # No mask: rows are padded on the right, where causal attention does not look.
            hidden_BTH = self.model.base_model(input_ids=part.ids_BT, use_cache=False)[0][:, :-1]
        action_BT, other_BT = part.action_BT[:, 1:], part.other_BT[:, 1:]
        learnt_BT = action_BT | other_BT if other_weight else action_BT
        targets = part.ids_BT[:, 1:][learnt_BT]
        logits = self._head(hidden_BTH[learnt_BT].float())
        losses = cross_entropy(logits, targets, reduction="none")
        is_action = action_BT[learnt_BT]
        weights = torch.where(is_action, action_weight, other_weight)
        (losses * weights).sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            right = logits.argmax(-1) == targets
            sums = (losses[is_action].sum(), right[is_action].sum(), losses[~is_action].sum())
            return torch.stack([one.float() for one in sums])

    def state(self) -> dict[str, object]:
        """Return everything but the weights that training goes on from."""
        return {
            "step": self.step,
            "number": self.number,
            "tokens": self.tokens,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state(self, state: dict[str, object]) -> None:
        """Go on from what :meth:`state` returned."""
        self.step, self.number = int(state["step"]), int(state["number"])  # type: ignore[call-overload]
        self.tokens = int(state["tokens"])  # type: ignore[call-overload]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):  # type: ignore[call-overload]
            optimizer.load_state_dict(saved)


def pack_rows(rows: Sequence[Row]) -> Packed:
    """Pad rows on the right. Slips are neither actions nor others: their version is not -1."""
    width = max(len(row.ids) for row in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
    action_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    other_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    for b, row in enumerate(rows):
        end = len(row.ids)
        turns, versions = torch.tensor(row.turns), torch.tensor(row.versions)
        ids_BT[b, :end] = torch.tensor(row.ids)
        action_BT[b, :end] = turns >= 0
        other_BT[b, :end] = versions < 0
    return Packed(ids_BT, action_BT, other_BT)


def _cut(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """Cut rows, sorted by length, into passes of at most so many tokens with padding."""
    part: list[Row] = []
    for row in rows:
        if part and (len(part) + 1) * len(row.ids) > tokens:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
