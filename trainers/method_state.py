"""A method's state on disk: what JSON holds as JSON, tensors beside it, each under its path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

TENSOR = "tensor of"
"""The one key of what stands in JSON for a tensor; its value is the tensor's path."""


def split(state: Mapping[str, Any], path: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Divide a state into what JSON holds and tensors.

    Args:
        state: Nested mappings; tensors are values of theirs.
        path: Of the state in the whole, with a dot behind it.

    Returns:
        The state with references in the place of tensors, and the tensors by path.
    """
    plain: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            plain[key] = {TENSOR: path + key}
            tensors[path + key] = value.contiguous()
        elif isinstance(value, Mapping):
            plain[key], below = split(value, f"{path}{key}.")
            tensors |= below
        else:
            plain[key] = value
    return plain, tensors


def join(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Put the two parts together again.

    Raises:
        KeyError: A tensor is not there.
    """
    return {key: _joined(value, tensors) for key, value in plain.items()}


def _joined(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, Mapping):
        return value
    return tensors[value[TENSOR]] if value.keys() == {TENSOR} else join(value, tensors)
