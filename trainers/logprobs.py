"""Log-probability and entropy of sampled tokens without a [tokens, vocabulary] tensor.

The logits of a step would be its largest tensor by far. Here they exist one block at a time: the
forward pass gathers what it needs from each, and the backward pass computes most of them again.
With z the logits divided by the temperature, p = softmax(z) and y the sampled token:

    logprob = z_y - lse,  lse = log sum exp z     d logprob / d z = onehot(y) - p
    entropy = - sum p log p                       d entropy / d z = - p (log p + entropy)

Blocks of the vocabulary have an lse and an entropy of their own, and those of the whole follow:

    lse = log sum_b exp lse_b, w_b = exp(lse_b - lse)   entropy = sum_b w_b (entropy_b - log w_b)

Axes: **M** tokens, **V** vocabulary, **D** hidden size, **C** and **W** the tokens and the
vocabulary of one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

BLOCK_TOKENS = 1024
BLOCK_VOCAB = 2048
KEPT_LOGITS = 2**25
"""So many logits, 128 MiB in float32, are kept for the backward pass; a small model's all fit."""


@dataclass(frozen=True, slots=True)
class Projection:
    """How products become logits: ``cap * tanh(scale * (h W^T + b) / cap) / temperature``.

    Without a cap the tanh is left out.
    """

    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    def logits(self, raw: Tensor) -> Tensor:
        """Turn plain products into logits, in place."""
        if self.cap is None:
            factor = self.scale / self.temperature
            return raw if factor == 1 else raw.mul_(factor)
        return raw.mul_(self.scale / self.cap).tanh_().mul_(self.cap / self.temperature)

    def slope(self, logits: Tensor) -> Tensor | float | None:
        """Return d logits / d products, given the logits; None stands for 1."""
        factor = self.scale / self.temperature
        if self.cap is None:
            return None if factor == 1 else factor
        return logits.mul(self.temperature / self.cap).square_().neg_().add_(1).mul_(factor)


PLAIN = Projection()


def token_logprobs(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_M: Tensor,
    projection: Projection = PLAIN,
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each target and the entropy of its distribution, in nats.

    Both are differentiable in hidden states, weight and bias. Half-precision inputs are
    multiplied as they are; what comes after the product is computed and returned in float32.

    Args:
        hidden_MD: The hidden states that predict the targets.
        weight_VD: The output projection.
        bias_V: Its bias, if it has one.
        target_M: Token ids, long.
        projection: What stands between product and softmax.

    Returns:
        ``logprob_M`` and ``entropy_M``.
    """
    logprob_M, entropy_M = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_MD, weight_VD, bias_V, target_M, projection
    )
    return logprob_M, entropy_M


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_M: Tensor,
        projection: Projection,
    ) -> tuple[Tensor, Tensor]:
        grid = _Grid(hidden_MD, weight_VD, bias_V, target_M, projection)
        lse_M, entropy_M, chosen_M, kept = grid.reduce(keep=any(ctx.needs_input_grad))
        ctx.projection = projection
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_MD, weight_VD, bias_V, target_M, lse_M, entropy_M, *kept)
        return chosen_M - lse_M, entropy_M

    @staticmethod
    def backward(
        ctx: Any, grad_logprob_M: Tensor | None, grad_entropy_M: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden_MD, weight_VD, bias_V, target_M, lse_M, entropy_M, *kept = ctx.saved_tensors
        if grad_logprob_M is None:  # only the entropy was used
            grad_logprob_M = torch.zeros_like(lse_M)
        want_hidden, want_weight, want_bias, *_ = ctx.needs_input_grad
        grad_hidden_MD = torch.zeros_like(hidden_MD, dtype=lse_M.dtype)
        grad_weight_VD = torch.empty_like(weight_VD) if want_weight else None
        grad_bias_V = torch.empty_like(bias_V) if bias_V is not None and want_bias else None
        grid = _Grid(hidden_MD, weight_VD, bias_V, target_M, ctx.projection)
        stored = iter(kept)
        for vocab in grid.vocab():
            weight_WD = weight_VD[vocab]
            sum_WD = torch.zeros_like(weight_WD, dtype=lse_M.dtype)
            sum_W = lse_M.new_zeros(len(weight_WD))
            for tokens in grid.tokens():
                grad_CW = _gradient(
                    grid.logits(tokens, vocab, next(stored, None)),
                    grid.columns(tokens, vocab),
                    lse_M[tokens],
                    entropy_M[tokens],
                    grad_logprob_M[tokens],
                    None if grad_entropy_M is None else grad_entropy_M[tokens],
                    ctx.projection,
                )
                if grad_bias_V is not None:
                    sum_W += grad_CW.sum(0)
                grad_CW = grad_CW.to(weight_WD.dtype)
                if want_hidden:
                    _add_product(grad_hidden_MD[tokens], grad_CW, weight_WD)
                if want_weight:
                    _add_product(sum_WD, grad_CW.T, hidden_MD[tokens])
            if grad_weight_VD is not None:
                grad_weight_VD[vocab] = sum_WD
            if grad_bias_V is not None:
                grad_bias_V[vocab] = sum_W
        grad_hidden = grad_hidden_MD.to(hidden_MD.dtype) if want_hidden else None
        return grad_hidden, grad_weight_VD, grad_bias_V, None, None


@dataclass(frozen=True, slots=True)
class _Grid:
    """The logits, cut into blocks."""

    hidden_MD: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None
    target_M: Tensor
    projection: Projection

    def tokens(self) -> Iterator[slice]:
        """Yield the token ranges of the grid."""
        return _ranges(len(self.target_M), BLOCK_TOKENS)

    def vocab(self) -> Iterator[slice]:
        """Yield the vocabulary ranges of the grid."""
        return _ranges(len(self.weight_VD), BLOCK_VOCAB)

    def logits(self, tokens: slice, vocab: slice, kept_CW: Tensor | None = None) -> Tensor:
        """Return one block, to be overwritten; a kept one is copied."""
        if kept_CW is not None:
            return kept_CW.clone()
        bias_W = None if self.bias_V is None else self.bias_V[vocab]
        raw_CW = linear(self.hidden_MD[tokens], self.weight_VD[vocab], bias_W)
        if raw_CW.dtype in (torch.bfloat16, torch.float16):
            raw_CW = raw_CW.float()
        return self.projection.logits(raw_CW)

    def columns(self, tokens: slice, vocab: slice) -> Tensor:
        """Return each target's column in a block; out of its range where it is elsewhere."""
        return self.target_M[tokens] - int(vocab.start)

    def reduce(self, keep: bool) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Return log-sum-exp, entropy, the target's logit, and the first blocks if wanted."""
        dtype = torch.promote_types(self.hidden_MD.dtype, torch.float32)
        lse_M, entropy_M, chosen_M = self.hidden_MD.new_zeros((3, len(self.target_M)), dtype=dtype)
        lse_M.fill_(-math.inf)
        kept: list[Tensor] = []
        room = KEPT_LOGITS if keep else 0
        for vocab in self.vocab():
            for tokens in self.tokens():
                logits_CW = self.logits(tokens, vocab)
                _pick(chosen_M[tokens], logits_CW, self.columns(tokens, vocab))
                _merge(lse_M[tokens], entropy_M[tokens], *_reduced(logits_CW))
                room -= logits_CW.numel()
                if room >= 0:
                    kept.append(logits_CW)
        return lse_M, entropy_M.clamp_(min=0), chosen_M, kept  # rounding may leave it below 0


def _ranges(length: int, size: int) -> Iterator[slice]:
    return (slice(a, min(a + size, length)) for a in range(0, length, size))


def _pick(chosen_C: Tensor, logits_CW: Tensor, column_C: Tensor) -> None:
    """Take the logits of those targets that are in the block."""
    width = logits_CW.shape[1]
    inside_C = (column_C >= 0) & (column_C < width)
    found_C = logits_CW.gather(1, column_C.clamp(0, width - 1)[:, None])[:, 0]
    chosen_C.copy_(torch.where(inside_C, found_C, chosen_C))


def _reduced(logits_CW: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-sum-exp and entropy of a block for itself."""
    logp_CW = torch.log_softmax(logits_CW, -1)
    lse_C = logits_CW.amax(-1) - logp_CW.amax(-1)  # at the likeliest token, where it is exact
    return lse_C, -logp_CW.exp().mul_(logp_CW).sum(-1)


def _merge(lse_C: Tensor, entropy_C: Tensor, block_lse_C: Tensor, block_entropy_C: Tensor) -> None:
    """Take a block's log-sum-exp and entropy into those of the blocks before, in place."""
    total_C = torch.logaddexp(lse_C, block_lse_C)
    log_old_C, log_new_C = lse_C - total_C, block_lse_C - total_C
    old_C = torch.special.entr(log_old_C.exp()) + log_old_C.exp() * entropy_C
    new_C = torch.special.entr(log_new_C.exp()) + log_new_C.exp() * block_entropy_C
    entropy_C.copy_(old_C + new_C)
    lse_C.copy_(total_C)


def _gradient(
    logits_CW: Tensor,
    column_C: Tensor,
    lse_C: Tensor,
    entropy_C: Tensor,
    grad_logprob_C: Tensor,
    grad_entropy_C: Tensor | None,
    projection: Projection,
) -> Tensor:
    """Return the gradient with respect to the plain products; overwrites the logits."""
    slope = projection.slope(logits_CW)
    logp_CW = logits_CW.sub_(lse_C[:, None])
    grad_CW = logp_CW.exp()
    if grad_entropy_C is None:
        grad_CW.mul_(-grad_logprob_C[:, None])
    else:
        offset_C = -(grad_logprob_C + grad_entropy_C * entropy_C)
        grad_CW.mul_(logp_CW.mul_(-grad_entropy_C[:, None]).add_(offset_C[:, None]))
    width = grad_CW.shape[1]
    inside_C = (column_C >= 0) & (column_C < width)
    at_target_C = torch.where(inside_C, grad_logprob_C, 0)
    grad_CW.scatter_add_(1, column_C.clamp(0, width - 1)[:, None], at_target_C[:, None])
    return grad_CW.mul_(slope) if slope is not None else grad_CW


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a matrix product to ``total``, in place and in its precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
