"""The weights of a model in this process, as a server takes them from a broadcast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers.core_model_loading import revert_weight_conversion

from agentgym.policies.hf import HFPolicy
from agentgym.policies.vllm_http import Gone
from agentgym.policies.vllm_transfer import Group, Manifest
from agentgym.trainers.lora import has_adapter, merged


class Collectives(Protocol):
    """What connects ranks."""

    def new_id(self) -> bytes:
        """Return the name of a new group."""

    def join(self, name: bytes, ranks: int) -> Group:
        """Be rank 0 of a group; returns when all ranks are there."""


@dataclass(frozen=True, slots=True)
class NamedWeights:
    """Weights by the names that they have in a model folder."""

    tensors: dict[str, torch.Tensor]
    refuse_change: Callable[[], None]

    @property
    def manifest(self) -> Manifest:
        """Names, dtypes and shapes."""
        tensors = self.tensors.values()
        return Manifest(
            names=list(self.tensors),
            dtype_names=[str(tensor.dtype).removeprefix("torch.") for tensor in tensors],
            shapes=[list(tensor.shape) for tensor in tensors],
        )

    def broadcast(self, group: Group) -> None:
        """Send them one by one, and wait until they are sent.

        Raises:
            Gone: They changed meanwhile.
        """
        sent = [tensor.contiguous() for tensor in self.tensors.values()]  # kept until then
        for tensor in sent:
            group.broadcast(tensor)
        group.wait()
        self.refuse_change()


class WeightSource:
    """Gives away the weights of a model.

    Args:
        trained: The model.
        collectives: What connects it to the servers.
    """

    def __init__(self, trained: HFPolicy, collectives: Collectives) -> None:
        self._trained, self._collectives = trained, collectives
        self._settled = self._edits()

    def settle(self) -> None:
        """Say that the weights are now those of a version, to be given away until they change."""
        self._settled = self._edits()

    def weights(self) -> NamedWeights:
        """Return the weights: an adapter is added to its matrices.

        An output matrix that is the embedding's goes too, under its own name: a server may have
        one of its own.

        Raises:
            Gone: They changed since they were those of a version. A server that is back from a
                restart waits for the next one.
        """
        self._refuse_change()
        model = self._trained.model
        plain = merged(model) if has_adapter(model) else model
        with torch.no_grad():
            tensors = revert_weight_conversion(plain, plain.state_dict())
        return NamedWeights(dict(tensors), self._refuse_change)

    def new_id(self) -> bytes:
        """Return the name of a new group."""
        return self._collectives.new_id()

    def join(self, name: bytes, ranks: int) -> Group:
        """Be rank 0 of a group; returns when all ranks are there."""
        return self._collectives.join(name, ranks)

    def _edits(self) -> int:
        """Return how often the parameters were written to; torch counts that."""
        return sum(parameter._version for parameter in self._trained.model.parameters())

    def _refuse_change(self) -> None:
        if self._edits() != self._settled:
            raise Gone("the weights are being trained, and are of no version")
