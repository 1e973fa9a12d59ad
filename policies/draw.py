"""Drawing tokens: exact log-probabilities, whole entropies, one uniform number a token.

All in nats and of logits / temperature. At temperature 0 the likeliest token is taken, and what
is reported is at temperature 1: a point has no distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from agentgym.errors import AgentGymError


class Drawn(NamedTuple):
    """One token for each row."""

    tokens: list[int]
    logprobs: list[float]
    entropies: list[float]


def draw(
    logits_BV: Tensor,
    temperatures: Sequence[float],
    uniforms: Sequence[float],
    top_k: Sequence[int | None],
) -> Drawn:
    """Draw a token for each row by inverting its cumulative distribution.

    Args:
        logits_BV: Of the last position of each row.
        temperatures: One a row; 0 takes the likeliest token.
        uniforms: One number in [0, 1) a row: the same number and logits give the same token.
        top_k: Where not None, the row's entropy is that of the k likeliest tokens and one lumped
            tail.

    Raises:
        AgentGymError: A logit is not a number, or infinite: the weights are broken.
    """
    device = logits_BV.device
    divisor = torch.tensor([t or 1.0 for t in temperatures], device=device)
    logprob_BV = (logits_BV.float() / divisor[:, None]).log_softmax(-1)
    prob_BV = logprob_BV.exp()
    # In double precision, or the sums over a large vocabulary would lose the unlikely tokens.
    cumulative_BV = prob_BV.double().cumsum(-1)
    if not bool(cumulative_BV[:, -1].isfinite().all()):
        raise AgentGymError(
            "the model's logits are not finite; its weights are broken, go back to a checkpoint"
        )
    uniform_B1 = torch.tensor(uniforms, dtype=torch.float64, device=device)[:, None]
    point_B1 = uniform_B1 * cumulative_BV[:, -1:]
    # From the right: a token of probability 0 is never the first that exceeds the point.
    token_B1 = torch.searchsorted(cumulative_BV, point_B1, right=True)
    token_B1 = token_B1.clamp_(max=logits_BV.shape[-1] - 1)
    if 0 in temperatures:
        greedy_B1 = torch.tensor([t == 0 for t in temperatures], device=device)[:, None]
        token_B1 = torch.where(greedy_B1, logits_BV.argmax(-1, keepdim=True), token_B1)
    return Drawn(
        token_B1[:, 0].tolist(),
        logprob_BV.gather(1, token_B1)[:, 0].tolist(),
        _entropies(prob_BV, top_k),
    )


def _entropies(prob_BV: Tensor, top_k: Sequence[int | None]) -> list[float]:
    """Return the entropy of each row, in nats; of k tokens and a tail where ``top_k`` says so."""
    if not any(top_k):
        return entropy_of(prob_BV).tolist()
    size = prob_BV.shape[-1]
    return [
        float(entropy_of(lumped(prob_V, k) if k and k < size else prob_V))
        for prob_V, k in zip(prob_BV, top_k, strict=True)
    ]


def entropy_of(prob: Tensor) -> Tensor:
    """Return the entropy over the last axis, in nats."""
    surprise: Tensor = torch.special.entr(prob)
    return surprise.sum(-1)


def lumped(prob_V: Tensor, k: int) -> Tensor:
    """Return the probabilities of the k likeliest tokens and, last, of all others together."""
    top = prob_V.topk(k).values
    return torch.cat((top, (1 - top.sum()).clamp(min=0)[None]))
