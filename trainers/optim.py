"""Optimisers and the learning rate's schedule."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from agentgym.trainers.correction import CorrectionOptions


class CriticOptions(BaseModel):
    """How the critic is updated, where a method has one.

    Attributes:
        lr: Peak learning rate; None takes the policy's.
        value_clip: How far a value may move in one update; None lets it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float | None = Field(default=None, gt=0)
    value_clip: float | None = Field(default=0.5, gt=0)


class OptimOptions(BaseModel):
    """How weights are updated.

    Attributes:
        optimizer: ``adamw``, or ``muon``: Muon for the matrices between embeddings and output
            projection, AdamW for all else. Muon's updates are scaled to the size of AdamW's, so
            that one learning rate serves both.
        lr: Peak learning rate.
        betas: AdamW's.
        weight_decay: Decoupled; of matrices only.
        warmup: Share of the steps in which the learning rate rises linearly.
        floor: Share of the peak at which the cosine ends; 1 keeps the peak.
        clip: Largest norm of the gradient; 0 does not clip.
        epochs: How often a step goes through its batch.
        mini_batch: How many trajectories (or rows) share an optimiser step; None takes all.
        mini_batch_of: What is counted.
        micro_batch_tokens: Padded tokens of one forward and backward pass; bounds the memory and
            changes nothing else.
        gradient_checkpointing: Keep only what goes into each layer, and compute the rest again in
            the backward pass: less memory, about a third more time, nothing else.
        critic: What is the critic's own; all else it has from here.
        correction: Weights against a sampler whose probabilities are not the learner's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    floor: float = Field(default=0.2, ge=0, le=1)
    clip: float = Field(default=1.0, ge=0)
    epochs: int = Field(default=1, ge=1)
    mini_batch: int | None = Field(default=None, ge=1)
    mini_batch_of: Literal["trajectory", "row"] = "trajectory"
    micro_batch_tokens: int = Field(default=4096, ge=1)
    gradient_checkpointing: bool = False
    critic: CriticOptions = CriticOptions()
    correction: CorrectionOptions = CorrectionOptions()


def learning_rate(options: OptimOptions, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 1: a linear rise, then a cosine."""
    rise = round(options.warmup * steps)
    if step <= rise:
        return options.lr * step / rise
    progress = min(1.0, (step - rise - 1) / max(1, steps - rise - 1))
    height = (1 + math.cos(math.pi * progress)) / 2
    return options.lr * (options.floor + (1 - options.floor) * height)


def build_optimizers(model: Any, options: OptimOptions) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a causal language model's trainable parameters."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]
    optimizers: list[torch.optim.Optimizer] = []
    if options.optimizer == "muon":
        ends = {id(p) for p in _end_parameters(model)}
        hidden = [p for p in matrices if p.ndim == 2 and id(p) not in ends]
        taken = {id(p) for p in hidden}
        matrices = [p for p in matrices if id(p) not in taken]
        optimizers.append(
            torch.optim.Muon(
                hidden,
                lr=options.lr,
                weight_decay=options.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers.append(
        torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=options.lr,
            betas=options.betas,
            fused=True,
        )
    )
    return optimizers


def _end_parameters(model: Any) -> list[nn.Parameter]:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return [p for module in ends for p in module.parameters()]
