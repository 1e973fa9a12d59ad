"""The gradients of single terms of the loss: how hard each pulls for itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agentgym.trainers.method import Loss


class TermNorms:
    """Gathers the gradients of the terms that are watched, over the micro-batches of a step.

    Args:
        parameters: What gradients are of.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._totals: dict[str, list[Tensor]] = {}

    def add(self, loss: Loss) -> None:
        """Add the gradients of some rows' terms; the graph stays for the loss's own pass."""
        for name, term in loss.terms.items():
            if not term.watched:
                continue
            zeros = [torch.zeros_like(p) for p in self._parameters]
            totals = self._totals.setdefault(name, zeros)
            if not term.loss_BT.requires_grad:
                continue
            gradients = torch.autograd.grad(
                term.value, self._parameters, retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total += gradient

    def metrics(self) -> dict[str, float]:
        """Return the norm of each watched term's gradient."""
        return {
            f"optim/grad_norm/{name}": float(torch.stack([t.norm() for t in totals]).norm())
            for name, totals in self._totals.items()
        }
