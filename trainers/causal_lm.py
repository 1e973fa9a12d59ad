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
from agentgym.policies.precision import Compute
from agentgym.trainers.decoder import Decoder, spread
from agentgym.trainers.logprobs import Projection, token_logprobs


class CausalLM(nn.Module):
    """Log-probabilities and entropies of chosen tokens of right-padded rows.

    Runs the decoder, then the output projection on the scored positions only. How the model turns
    the product into logits (a scale, a soft cap) is read from its configuration and tried out
    once against the model's own logits, so that a model that does something else is refused.

    Args:
        model: A causal language model: an input of ids, decoder, output embeddings. It is put
            into evaluation mode: dropout would make the probabilities of sampler and learner
            differ.
        compute: What products are computed in; see :class:`Decoder`.
        recompute: Whether layers are computed again in the backward pass; see :class:`Decoder`.

    Attributes:
        ENTRIES: The methods that run the model; all else only asks about it.

    Raises:
        UsageError: The logits are not what its configuration says, or layers cannot be recomputed.
    """

    ENTRIES = ("score", "logprobs_at")

    def __init__(
        self, model: nn.Module, compute: Compute = "float32", recompute: bool = False
    ) -> None:
        super().__init__()
        lm: Any = model.eval()  # transformers types none of the following
        self.model = model
        self._config = lm.config
        self._head: nn.Linear = lm.get_output_embeddings()
        self._decoder = Decoder(lm.get_decoder(), compute, recompute)
        self._projection = self._find_projection()

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self._head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What log-probabilities and entropies are computed in."""
        return torch.promote_types(self._head.weight.dtype, torch.float32)

    @property
    def config(self) -> Any:
        """The configuration of the language model, without that of other modalities."""
        return self._config.get_text_config()

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return self._head.weight.shape[0]

    @property
    def exact(self) -> bool:
        """Whether everything is computed in float32 or better."""
        return self._decoder.compute == "float32" and self.dtype == self._head.weight.dtype

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
        hidden_MD = self._decoder.before(ids_BT, wanted_BT)
        target_M = ids_BT[:, 1:][wanted_BT[:, 1:]]
        cooled = replace(self._projection, temperature=temperature)
        logprob_M, entropy_M = self._logprobs(hidden_MD, target_M, cooled)
        return spread(logprob_M, wanted_BT), spread(entropy_M, wanted_BT)

    def logprobs_at(
        self,
        ids_BT: Tensor,
        row_M: Tensor,
        before_M: Tensor,
        target_M: Tensor,
        position_BT: Tensor | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        """Return ``logprob_M``, of tokens that need not stand behind what predicts them.

        At temperature 1, in nats. Positions and mask are as in :meth:`Decoder.at`.

        Args:
            ids_BT: Right-padded rows.
            row_M: In which row each token is predicted.
            before_M: Where in it the token stands that predicts it.
            target_M: The tokens whose log-probabilities these are.
            position_BT: The position of each token of the rows.
            mask_B1TT: Which of them sees which.
        """
        places = (t if t is None else t.to(self.device) for t in (position_BT, mask_B1TT))
        row_M, before_M = row_M.to(self.device), before_M.to(self.device)
        hidden_MD = self._decoder.at(ids_BT.to(self.device), row_M, before_M, *places)
        logprob_M, _ = self._logprobs(hidden_MD, target_M.to(self.device), self._projection)
        return logprob_M

    def _logprobs(
        self, hidden_MD: Tensor, target_M: Tensor, projection: Projection
    ) -> tuple[Tensor, Tensor]:
        bias_V: Tensor | None = self._head.bias
        return token_logprobs(
            hidden_MD,
            self._head.weight.to(hidden_MD.dtype),
            None if bias_V is None else bias_V.to(hidden_MD.dtype),
            target_M,
            projection,
        )

    def _find_projection(self) -> Projection:
        ids_BT = torch.arange(4, device=self.device)[None] % self._head.weight.shape[0]
        with torch.no_grad():
            expected = self.model(input_ids=ids_BT, use_cache=False).logits.float()
            hidden = self._decoder.module(input_ids=ids_BT, use_cache=False).last_hidden_state
            product = self._head(hidden).float()
        tolerance = 1e-4 if hidden.dtype in (torch.float32, torch.float64) else 3e-2
        for candidate in _candidates(self.config):
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
