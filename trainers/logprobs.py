"""Log-probability and entropy of sampled tokens without a [tokens, vocabulary] tensor.

The logits of a step would be its largest tensor by far. Here they exist one block at a time: a
running log-sum-exp gathers what the forward pass needs, and the backward pass computes each block
again. With z the logits divided by the temperature, p = softmax(z) and y the sampled token:

    logprob = z_y - log sum exp z          d logprob / d z = onehot(y) - p
    entropy = - sum p log p                d entropy / d z = - p (log p + entropy)

Axes: **M** tokens, **V** vocabulary, **D** hidden size, **C** and **W** the tokens and the
vocabulary of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEPT_LOGITS = 2**23
"""Up to so many logits (32 MiB in float32) are one block that is kept for the backward pass."""
BLOCK_TOKENS = 1024
BLOCK_VOCAB = 4096


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

    def slope(self, logits: Tensor) -> Tensor | float:
        """Return d logits / d products, given the logits."""
        factor = self.scale / self.temperature
        if self.cap is None:
            return factor
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
        blocks = _Blocks(hidden_MD, weight_VD, bias_V, target_M, projection)
        lse_M, entropy_M, chosen_M, kept_MV = blocks.reduce()
        ctx.projection = projection
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_MD, weight_VD, bias_V, target_M, lse_M, entropy_M, kept_MV)
        return chosen_M - lse_M, entropy_M

    @staticmethod
    def backward(
        ctx: Any, grad_logprob_M: Tensor | None, grad_entropy_M: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden_MD, weight_VD, bias_V, target_M, lse_M, entropy_M, kept_MV = ctx.saved_tensors
        if grad_logprob_M is None:  # only the entropy was used
            grad_logprob_M = torch.zeros_like(lse_M)
        want_hidden, want_weight, want_bias, *_ = ctx.needs_input_grad
        blocks = _Blocks(hidden_MD, weight_VD, bias_V, target_M, ctx.projection)
        grad_hidden_MD = torch.zeros_like(hidden_MD, dtype=lse_M.dtype)
        grad_weight_VD = torch.empty_like(weight_VD) if want_weight else None
        grad_bias_V = torch.empty_like(bias_V) if bias_V is not None and want_bias else None
        for vocab in blocks.vocab():
            weight_WD = weight_VD[vocab]
            sum_WD = torch.zeros_like(weight_WD, dtype=lse_M.dtype)
            sum_W = lse_M.new_zeros(len(weight_WD))
            for tokens in blocks.tokens():
                logits_CW = blocks.logits(tokens, vocab) if kept_MV is None else kept_MV.clone()
                grad_CW = _gradient(
                    logits_CW,
                    blocks.columns(tokens, vocab),
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


class _Blocks:
    """The logits, block by block. All blocks of one pass share their memory."""

    def __init__(
        self,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_M: Tensor,
        projection: Projection,
    ) -> None:
        self._hidden_MD, self._weight_VD, self._bias_V = hidden_MD, weight_VD, bias_V
        self._target_M, self._projection = target_M, projection
        self._M, self._V = len(target_M), len(weight_VD)
        self._whole = self._M * self._V <= KEPT_LOGITS
        self._C = self._M if self._whole else min(self._M, BLOCK_TOKENS)
        self._W = self._V if self._whole else min(self._V, BLOCK_VOCAB)
        self._memory = hidden_MD.new_empty(self._C * self._W)

    def tokens(self) -> Iterator[slice]:
        """Yield the token ranges of the grid."""
        return _ranges(self._M, self._C)

    def vocab(self) -> Iterator[slice]:
        """Yield the vocabulary ranges of the grid."""
        return _ranges(self._V, self._W)

    def logits(self, tokens: slice, vocab: slice) -> Tensor:
        """Compute one block; it is valid until the next is asked for."""
        hidden_CD, weight_WD = self._hidden_MD[tokens], self._weight_VD[vocab]
        size = len(hidden_CD) * len(weight_WD)
        raw_CW: Tensor = self._memory[:size].view(len(hidden_CD), len(weight_WD))
        torch.mm(hidden_CD, weight_WD.T, out=raw_CW)
        if self._bias_V is not None:
            raw_CW.add_(self._bias_V[vocab])
        if raw_CW.dtype in (torch.bfloat16, torch.float16):
            raw_CW = raw_CW.float()
        return self._projection.logits(raw_CW)

    def columns(self, tokens: slice, vocab: slice) -> Tensor:
        """Return each target's column in a block; out of its range where it is elsewhere."""
        return self._target_M[tokens] - int(vocab.start)

    def reduce(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return log-sum-exp, entropy and the target's logit, and the logits if all fit a block.

        Keeps a running maximum m, s = sum exp(z - m) and u = sum exp(z - m) (z - m); then
        log-sum-exp = m + log s and entropy = log s - u / s.
        """
        dtype = torch.promote_types(self._hidden_MD.dtype, torch.float32)
        m_M = self._hidden_MD.new_full((self._M,), torch.finfo(dtype).min, dtype=dtype)
        s_M, u_M, chosen_M = (torch.zeros_like(m_M) for _ in range(3))
        logits_CW: Tensor | None = None
        for vocab in self.vocab():
            for tokens in self.tokens():
                logits_CW = self.logits(tokens, vocab)
                _pick(chosen_M[tokens], logits_CW, self.columns(tokens, vocab))
                _accumulate(m_M[tokens], s_M[tokens], u_M[tokens], logits_CW)
        log_s_M = s_M.log()
        entropy_M = (log_s_M - u_M / s_M).clamp_(min=0)  # rounding may leave it just below
        return m_M + log_s_M, entropy_M, chosen_M, logits_CW if self._whole else None


def _ranges(length: int, size: int) -> Iterator[slice]:
    return (slice(a, min(a + size, length)) for a in range(0, length, max(size, 1)))


def _pick(chosen_C: Tensor, logits_CW: Tensor, column_C: Tensor) -> None:
    width = logits_CW.shape[1]
    inside_C = (column_C >= 0) & (column_C < width)
    found_C = logits_CW.gather(1, column_C.clamp(0, width - 1)[:, None])[:, 0]
    chosen_C.copy_(torch.where(inside_C, found_C, chosen_C))


def _accumulate(m_C: Tensor, s_C: Tensor, u_C: Tensor, logits_CW: Tensor) -> None:
    """Take a block into the running sums, in place."""
    new_m_C = torch.maximum(m_C, logits_CW.amax(-1))
    shift_C = m_C - new_m_C
    shrink_C = shift_C.exp()
    u_C.add_(s_C * shift_C).mul_(shrink_C)
    s_C.mul_(shrink_C)
    m_C.copy_(new_m_C)
    centred_CW = logits_CW - m_C[:, None]
    exp_CW = centred_CW.exp()
    s_C.add_(exp_CW.sum(-1))
    u_C.add_(exp_CW.mul_(centred_CW).sum(-1))


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
        slack_CW = logp_CW.add_(entropy_C[:, None]).mul_(grad_entropy_C[:, None])
        grad_CW.mul_(slack_CW.add_(grad_logprob_C[:, None]).neg_())
    width = grad_CW.shape[1]
    inside_C = (column_C >= 0) & (column_C < width)
    at_target_C = torch.where(inside_C, grad_logprob_C, 0)
    grad_CW.scatter_add_(1, column_C.clamp(0, width - 1)[:, None], at_target_C[:, None])
    return grad_CW.mul_(slope)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a matrix product to ``total``, in place and in its precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
