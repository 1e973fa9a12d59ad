"""The hidden states that predict chosen tokens of right-padded rows.

Axes: **B** rows, **T** tokens of a row, **M** chosen tokens, **D** hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from agentgym.errors import UsageError
from agentgym.policies.precision import Compute, computing


class Decoder:
    """A decoder of transformers, without its output projection.

    Args:
        module: Takes ids, gives ``last_hidden_state``.
        compute: What products are computed in, whatever the weights are.
        recompute: Keep only what goes into each layer for the backward pass, which computes the
            rest again: less memory, about a third more time, the same numbers.

    Raises:
        UsageError: The module's layers cannot be recomputed.
    """

    def __init__(
        self, module: nn.Module, compute: Compute = "float32", recompute: bool = False
    ) -> None:
        self.module = module
        self.compute = compute
        self._recomputed: list[nn.Module] = []
        if recompute:
            layers = (m for m in module.modules() if isinstance(m, GradientCheckpointingLayer))
            self._recomputed = list(layers)
            if not self._recomputed:
                raise UsageError(
                    f"{type(module).__name__} has no layers that can be computed again; set"
                    " optim.gradient_checkpointing = false"
                )

    def before(self, ids_BT: Tensor, wanted_BT: Tensor) -> Tensor:
        """Return the hidden state before each wanted token, in the order of the rows.

        Args:
            ids_BT: Right-padded rows.
            wanted_BT: Boolean; not True at a row's first token, which nothing predicts.

        Returns:
            ``hidden_MD``, in bfloat16 where that is computed in.
        """
        return self._lowered(self._states(ids_BT)[:, :-1][wanted_BT[:, 1:]])

    def at(
        self,
        ids_BT: Tensor,
        row_M: Tensor,
        index_M: Tensor,
        position_BT: Tensor | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        """Return ``hidden_MD``, the hidden states of some tokens.

        Args:
            ids_BT: Right-padded rows.
            row_M: The row of each.
            index_M: Where in its row it stands.
            position_BT: What the model takes for each token's position; None takes its index.
            mask_B1TT: Which token (third axis) sees which, in the form that the model's attention
                takes; None lets each see all before it.
        """
        return self._lowered(self._states(ids_BT, position_BT, mask_B1TT)[row_M, index_M])

    def _states(
        self, ids_BT: Tensor, position_BT: Tensor | None = None, mask_B1TT: Tensor | None = None
    ) -> Tensor:
        # A causal model never looks to the right, so right padding needs no attention mask, and
        # attention without one takes its fastest kernel.
        with computing(ids_BT.device, self.compute), _recomputing(self._recomputed):
            states_BTD: Tensor = self.module(
                input_ids=ids_BT,
                position_ids=position_BT,
                attention_mask=mask_B1TT,
                use_cache=False,
            ).last_hidden_state
        return states_BTD

    def _lowered(self, hidden_MD: Tensor) -> Tensor:
        return hidden_MD.bfloat16() if self.compute == "bfloat16" else hidden_MD


def spread(value_M: Tensor, wanted_BT: Tensor) -> Tensor:
    """Return ``value_BT``: the values of the wanted tokens at their places, 0 elsewhere."""
    return value_M.new_zeros(wanted_BT.shape).masked_scatter(wanted_BT, value_M)


@contextmanager
def _recomputing(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let layers forget what they computed.

    transformers has a switch for this that works in training mode only, where dropout is on.
    """
    if not torch.is_grad_enabled():
        layers = ()
    for layer in layers:
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
        )
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
