"""LoRA: a model that is frozen but for low-rank additions to its matrices.

The additions, one adapter, sit inside the model: whoever holds the model, sampler or learner, finds
them there. Switched off, the model is the one that the run began with, which is what divergences
are measured from. E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv
2106.09685; by peft, whose folders vLLM loads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from torch import nn

from agentgym.errors import DataError, UsageError

ADAPTER = "default"  # peft's name for the only one


class LoraOptions(BaseModel):
    """The size and place of the additions.

    Attributes:
        rank: Of each addition.
        alpha: An addition is scaled by ``alpha / rank``.
        targets: Names of the linear layers that have one, by their ends (``q_proj``); empty takes
            all but the output projection.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    targets: tuple[str, ...] = ()


def add_adapter(model: Any, options: LoraOptions, seed: int) -> None:
    """Freeze a model and give it an adapter that changes nothing yet.

    Args:
        model: Of transformers; is changed in place.
        options: The adapter's.
        seed: Where its first weights are drawn from.

    Raises:
        UsageError: The model has no such layers, or the output projection is among them.
    """
    wanted = list(options.targets) or "all-linear"
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type] # any number
        target_modules=wanted,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model.add_adapter(config)
        except ValueError as error:
            raise UsageError(f"no adapter on {', '.join(wanted)}: {error}") from error
    _finish(model)


def load_adapter(model: Any, folder: Path) -> None:
    """Give a model the adapter that :func:`save_adapter` wrote, to be trained on.

    Raises:
        DataError: The folder has none, or it does not fit the model.
    """
    try:
        config = LoraConfig.from_pretrained(str(folder))
        saved = load_peft_weights(str(folder), device="cpu")
        model.add_adapter(config)
        # transformers' own loading would rename every weight that is saved later.
        named = {name.removeprefix("base_model.model."): saved[name] for name in saved}
        wanted = model.get_adapter_state_dict(ADAPTER)
        set_peft_model_state_dict(model, named, ADAPTER)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise DataError(f"cannot load the adapter {folder}: {error}") from error
    if wanted.keys() != named.keys():
        differing = min(wanted.keys() ^ named.keys())
        raise DataError(f"the adapter {folder} does not fit the model at {differing}")
    _finish(model)


def _finish(model: Any) -> None:
    if isinstance(model.get_output_embeddings(), LoraLayer):
        raise UsageError(
            "an adapter on the output projection is not supported; leave it out of"
            " policy.lora.targets"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # small steps are lost in half precision


def has_adapter(model: nn.Module) -> bool:
    """Return whether a model has an adapter."""
    return any(isinstance(layer, LoraLayer) for layer in model.modules())


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Let a model be what it was without its adapter."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as a folder of peft."""
    model.save_pretrained(folder)


def merged(model: Any) -> Any:
    """Return a plain copy of a model, with the adapter added to its matrices.

    What has no addition is shared with the model, not copied.
    """
    shared = {id(p): p for p in model.parameters() if not p.requires_grad}
    plain = copy.deepcopy(model, shared)
    layers: list[tuple[str, Any]] = [
        (name, layer) for name, layer in plain.named_modules() if isinstance(layer, LoraLayer)
    ]
    for name, layer in layers:
        base = layer.get_base_layer()
        change = layer.get_delta_weight(ADAPTER)
        base.weight = nn.Parameter((base.weight + change).to(base.weight.dtype), False)
        plain.set_submodule(name, base)
    plain._hf_peft_config_loaded = False
    del plain.peft_config
    return plain
