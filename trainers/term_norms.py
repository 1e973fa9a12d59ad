"""Norms of gradients: of a whole step, and of single terms of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from agentgym.trainers.sharding import whole


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of the gradients that were gathered, over all processes that share them."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm: Tensor = whole(nn.utils.get_total_norm(gradients))
    return norm


@contextmanager
def set_aside(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let gradients be gathered inside the block that are not the step's; those come back."""
    kept = [p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    yield
    for parameter, gradient in zip(parameters, kept, strict=True):
        parameter.grad = gradient
