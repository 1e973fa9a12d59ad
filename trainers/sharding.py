"""Weights, gradients and optimiser states in shards, one on each process (FSDP2 of torch).

:func:`shard` is the one place where it is applied. What is sharded is a ``DTensor``; everything
that is written to disk or handed to a sampler is whole again (:func:`whole`), so that a checkpoint
knows nothing of how many processes wrote it, and :func:`cut_like` divides it among others. A save
gathers one tensor at a time on the GPU, and has all of it in the memory of the first process's CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from agentgym.policies.precision import Compute
from agentgym.trainers.ranks import Ranks

LEAST_WAIT_S = 3600.0
"""Seconds that a process waits for the others where nothing else is said."""


class ParallelOptions(BaseModel):
    """How several processes train one model.

    Attributes:
        weights: ``whole``: each process has all weights, and gradients are added up; ``sharded``:
            each has a part of weights, gradients and optimiser state, and layers are put together
            as they are needed (FSDP2).
        offload: Keep the shards in the memory of the CPU while they are not needed. On a CPU they
            are there anyway.
        reduce: When gradients of shards are added up: after ``each`` micro-batch, or after the
            ``last`` one of an optimiser step, which communicates less and holds the whole gradient
            until then.
        timeout: Seconds that a process waits for the others at most. One process may play, measure
            or save while they wait, so that it must be longer than any of that takes; None takes
            what the run's own time-outs come to, and an hour at least.
        join_timeout: Seconds until all processes must be there at the start.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["whole", "sharded"] = "whole"
    offload: bool = False
    reduce: Literal["each", "last"] = "last"
    timeout: float | None = Field(default=None, gt=0)
    join_timeout: float = Field(default=300.0, gt=0)

    @model_validator(mode="after")
    def _only_of_shards(self) -> Self:
        if self.weights == "whole" and (self.offload or self.reduce == "each"):
            what = "offload = true" if self.offload else "reduce = each"
            raise ValueError(f"{what} is for weights in shards; set weights = sharded, or leave it")
        return self


def shard(
    root: nn.Module,
    entries: Sequence[str],
    ranks: Ranks,
    options: ParallelOptions,
    compute: Compute = "float32",
) -> None:
    """Divide the weights of a module among the processes, each of its layers as a unit.

    Gradients are added up, not averaged: weights of the loss are those of the whole mini-batch.

    Args:
        root: Changed in place. Its parameters become ``DTensor``.
        entries: Its methods that run layers; whole weights are there inside of them.
        ranks: Among whom.
        options: Where shards are kept.
        compute: ``bfloat16`` also moves weights in it; gradients are added up in float32.
    """
    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    half = compute == "bfloat16"
    precision = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32 if half else None
    )
    pinned = CPUOffloadPolicy(pin_memory=ranks.device.type == "cuda")
    place = pinned if options.offload else OffloadPolicy()
    layers = [m for m in root.modules() if isinstance(m, GradientCheckpointingLayer)]
    for module in (*layers, root):
        fully_shard(
            module,
            mesh=mesh,
            reshard_after_forward=True,  # also the root: a pass without gradients has no backward
            mp_policy=precision,
            offload_policy=place,
        )
        unit = cast(FSDPModule, module)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    for entry in entries:
        register_fsdp_forward_method(root, entry)


def reduce_next(root: nn.Module, now: bool) -> None:
    """Say whether the next backward pass adds gradients of shards up, or only keeps them."""
    if isinstance(root, FSDPModule):
        root.set_requires_gradient_sync(now)


def whole(value: Any, *, keep: bool = True, to_cpu: bool = False) -> Any:
    """Return a tensor, or what mappings and lists hold of them, without shards.

    Args:
        value: Anything; what is no tensor stays as it is. Every process must ask.
        keep: Whether this process wants it; otherwise tensors are put together and forgotten.
        to_cpu: Whether each is moved to the CPU before the next one is put together, for what is
            larger than the GPU.
    """
    if isinstance(value, DTensor):
        put_together = value.full_tensor()
        if not keep:
            return None
        return put_together.cpu() if to_cpu else put_together
    if isinstance(value, Mapping):
        return {key: whole(inner, keep=keep, to_cpu=to_cpu) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner, keep=keep, to_cpu=to_cpu) for inner in value]
    return value


def cut_like(value: Any, parameter: Tensor) -> Any:
    """Return this process's shard of what belongs to each number of a parameter.

    Args:
        value: Whole, and the same on every process; what has another shape stays as it is.
        parameter: Sharded or not.
    """
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value
    return distribute_tensor(
        value.to(parameter.device_mesh.device_type),
        parameter.device_mesh,
        parameter.placements,
        src_data_rank=None,
    )
