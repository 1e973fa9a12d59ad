"""Scoring tokens with any causal language model of transformers.

Axes: **B** rows, **T** tokens of a row, **M** scored tokens, **D** hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from agentgym.errors import UsageError
from agentgym.trainers.logprobs import Projection, token_logprobs


class CausalLM:
    """Log-probabilities and entropies of chosen tokens of right-padded rows.

    Runs the decoder, then the output projection on the scored positions only. How the model turns
    the product into logits (a scale, a soft cap) is read from its configuration and tried out
    once against the model's own logits, so that a model that does something else is refused.

    Args:
        model: A causal language model: an input of ids, decoder, output embeddings. It is put
            into evaluation mode: dropout would make the probabilities of sampler and learner
            differ.

    Raises:
        UsageError: The logits are not what its configuration says.
    """

    def __init__(self, model: nn.Module) -> None:
        lm: Any = model.eval()  # transformers types none of the following
        self.model = model
        self._config = lm.config
        self._head: nn.Linear = lm.get_output_embeddings()
        self._decoder: nn.Module = lm.get_decoder()
        self._projection = self._find_projection()

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self._head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What log-probabilities and entropies are computed in."""
        return torch.promote_types(self._head.weight.dtype, torch.float32)

    def score(self, ids_BT: Tensor, mask_BT: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies at ``temperature``, in nats.

        Args:
            ids_BT: Right-padded rows.
            mask_BT: Not 0 where a token is scored; the first token of a row cannot be.
            temperature: What logits are divided by.

        Returns:
            ``logprob_BT`` and ``entropy_BT``, 0 where the mask is 0.
        """
        ids_BT, wanted_BT = ids_BT.to(self.device), mask_BT.to(self.device) != 0
        # A causal model never looks to the right, so right padding needs no attention mask, and
        # attention without one takes its fastest kernel.
        hidden_BTD = self._decoder(input_ids=ids_BT, use_cache=False).last_hidden_state
        before_BT = wanted_BT[:, 1:]
        logprob_M, entropy_M = token_logprobs(
            hidden_BTD[:, :-1][before_BT],
            self._head.weight,
            self._head.bias,
            ids_BT[:, 1:][before_BT],
            replace(self._projection, temperature=temperature),
        )
        return _spread(logprob_M, wanted_BT), _spread(entropy_M, wanted_BT)

    def _find_projection(self) -> Projection:
        ids_BT = torch.arange(4, device=self.device)[None] % self._head.weight.shape[0]
        with torch.no_grad():
            expected = self.model(input_ids=ids_BT, use_cache=False).logits.float()
            hidden = self._decoder(input_ids=ids_BT, use_cache=False).last_hidden_state
            product = self._head(hidden).float()
        tolerance = 1e-4 if hidden.dtype in (torch.float32, torch.float64) else 3e-2
        for candidate in _candidates(self._config.get_text_config()):
            found = candidate.logits(product.clone())
            if (found - expected).abs().max() <= tolerance * expected.abs().max():
                return candidate
        raise UsageError(
            f"the logits of {type(self.model).__name__} are not its output embeddings' product"
            " with the last hidden states, up to a logit scale and a final soft cap; train a model"
            " whose logits are"
        )


def _candidates(config: Any) -> Iterator[Projection]:
    """Yield what the configuration may mean, the likeliest first.

    ``logits_scaling`` divides in some models and multiplies in others.
    """
    cap = getattr(config, "final_logit_softcapping", None)
    factors = [1.0]
    if getattr(config, "logit_scale", None):
        factors.append(float(config.logit_scale))
    if getattr(config, "logits_scaling", None):
        factors += [1 / config.logits_scaling, float(config.logits_scaling)]
    return (Projection(scale=factor, cap=cap) for factor in factors)


def _spread(value_M: Tensor, wanted_BT: Tensor) -> Tensor:
    spread_BT = value_M.new_zeros(wanted_BT.shape)
    return spread_BT.masked_scatter(wanted_BT, value_M)
