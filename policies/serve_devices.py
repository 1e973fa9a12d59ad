"""Which GPUs each of several servers on this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from agentgym.errors import UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_QUERY = ("--query-gpu=index", "--format=csv,noheader")


def visible_devices() -> tuple[str, ...]:
    """Return the GPUs that programs started here may use, by index or name; none on a CPU."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip() not in ("", "-1"))
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = subprocess.run([program, *_QUERY], capture_output=True, text=True, check=False)  # noqa: S603
    return tuple(asked.stdout.split()) if asked.returncode == 0 else ()


def has_gpu() -> bool:
    """Return whether there is a GPU here that vLLM runs on, NVIDIA's or AMD's."""
    return bool(visible_devices()) or Path("/dev/kfd").exists()


def slices(
    named: tuple[str, ...], replicas: int, tensor_parallel: int
) -> tuple[tuple[str, ...], ...]:
    """Return the GPUs of each server, from the front.

    There are none on a CPU, and none are said where one server on one GPU may choose of all.

    Args:
        named: Those that they may have; where none is named, all that are visible.
        replicas: How many servers.
        tensor_parallel: GPUs of each.

    Raises:
        UsageError: There are fewer GPUs than the servers need.
    """
    wanted = replicas * tensor_parallel
    devices = named or (visible_devices() if wanted > 1 else ())
    if not devices or wanted == 1:
        return (devices,) * replicas
    if wanted > len(devices):
        raise UsageError(
            f"{replicas} servers of {tensor_parallel} GPUs each need {wanted} GPUs, and there are"
            f" {len(devices)} ({VISIBLE} or policy.serve.devices: {', '.join(devices)}); ask for"
            " fewer replicas, or fewer GPUs for each (--tensor-parallel)"
        )
    return tuple(devices[n * tensor_parallel : (n + 1) * tensor_parallel] for n in range(replicas))
