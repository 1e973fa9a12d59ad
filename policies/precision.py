"""What a model computes in, whatever its weights are: the same for who samples and who learns."""

from __future__ import annotations

from typing import Literal

import torch

Compute = Literal["float32", "bfloat16"]
"""What products are computed in; float32 leaves each model's own precision as it is."""


def computing(device: torch.device, compute: Compute) -> torch.autocast:
    """Return the context in which products are computed in a precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=compute == "bfloat16")
