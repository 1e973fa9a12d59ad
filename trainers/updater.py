"""Optimiser steps that are made only where loss and gradient are finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from agentgym.errors import DivergedError
from agentgym.trainers.optim import OptimOptions, build_optimizers, learning_rate
from agentgym.trainers.sharding import cut_like, whole
from agentgym.trainers.term_norms import gradient_norm

SKIPS_IN_A_ROW = 3


class Updater:
    """The optimisers of a module's trainable parameters, and how often they stepped.

    Args:
        module: What is trained, in place.
        options: How.
        steps: How many steps the run has, for the learning rate's schedule.

    Attributes:
        parameters: What is trained.
        rate: The learning rate of the step under way.
        scale: What the schedule's learning rate is multiplied by.
        updates: Optimiser steps made.
        skipped: Optimiser steps not made, because something was not finite.
    """

    def __init__(self, module: nn.Module, options: OptimOptions, steps: int) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.rate = 0.0
        self.scale = 1.0
        self.updates = 0
        self.skipped = 0
        self._skipped_in_a_row = 0
        self._options, self._steps = options, steps
        self._optimizers = build_optimizers(module, options)

    def begin(self, step: int) -> None:
        """Take the learning rate of a step, which is counted from 1."""
        self.rate = self.scale * learning_rate(self._options, step, self._steps)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate

    def apply(self, loss: float, terms: Mapping[str, float], step: int) -> tuple[float, bool]:
        """Step along the gradient that was gathered, if all is finite, and clear it.

        Args:
            loss: In all.
            terms: Its parts, for the message.
            step: For the message.

        Returns:
            The gradient's norm before clipping, and whether the step was made.

        Raises:
            DivergedError: It was the third in a row that was not.
        """
        length = gradient_norm(self.parameters)
        nn.utils.clip_grads_with_norm_(self.parameters, self._options.clip or math.inf, length)
        norm = length.item()
        finite = math.isfinite(norm) and math.isfinite(loss)
        if finite:
            for optimizer in self._optimizers:
                optimizer.step()
            self.updates += 1
            self._skipped_in_a_row = 0
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        if not finite:
            self._skip({**terms, "norm of the gradient": norm}, step)
        return norm, finite

    def _skip(self, terms: Mapping[str, float], step: int) -> None:
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row < SKIPS_IN_A_ROW:
            return
        listed = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        raise DivergedError(
            f"step {step}: loss or gradient was not finite {SKIPS_IN_A_ROW} times in a row"
            f" ({listed}); {self.updates} updates were made before, the learning rate is"
            f" {self.rate:g}; resume from the last checkpoint with a lower optim.lr or optim.clip"
        )

    def state_dict(self, *, keep: bool = True) -> dict[str, Any]:
        """Return optimisers and counters; what is in shards whole, on the CPU, if ``keep``."""
        states = [optimizer.state_dict() for optimizer in self._optimizers]
        return {
            "optimizers": whole(states, keep=keep, to_cpu=True),
            "updates": self.updates,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(_cut(saved, optimizer))
        self.updates = state["updates"]
        self.skipped = state["skipped"]
        self._skipped_in_a_row = state["skipped_in_a_row"]


def _cut(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimiser's whole state with the shards that belong to this process."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {name: cut_like(value, parameters[index]) for name, value in entry.items()}
        for index, entry in saved["state"].items()
    }
    return {**saved, "state": state}
