"""Everything a run needs to go on as if it had never stopped.

``hf/`` is a plain Hugging Face folder in the precision that is trained, so that other programs
open it; ``trainer/`` holds the optimiser's tensors, the critic where there is one and the method's
state, as JSON with its tensors in a file beside it. Under LoRA ``adapter/`` is the adapter as peft
writes it, from which the run goes on, and ``hf/`` has it merged. Random draws need no state: each
is seeded by what it is for.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from agentgym.errors import DataError, UsageError
from agentgym.files import write_atomic
from agentgym.policies.hf import HFPolicy
from agentgym.trainers.learner import Learner
from agentgym.trainers.lora import has_adapter, merged, save_adapter
from agentgym.trainers.method import Chain
from agentgym.trainers.method_state import join, split
from agentgym.trainers.run_folder import RunFolder

MODEL = "hf"
ADAPTER = "adapter"
OPTIMIZER = "trainer/optimizer.pt"
PROGRESS = "trainer/progress.json"
TENSORS = "trainer/method.safetensors"
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    UnpicklingError,
    struct.error,
    SafetensorError,
)
"""What readers of JSON and tensors raise on files that are missing, cut off, or something else."""


@contextmanager
def as_data_errors() -> Iterator[None]:
    """Make one error of what the writers of tensors raise on a disk that is full or broken."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise DataError(f"tensors cannot be written: {error}") from error


def save_checkpoint(
    run: RunFolder, learner: Learner, method: Chain, policy: HFPolicy, step: int, keep: int
) -> None:
    """Save the run as it is after ``step``; keep the last ``keep`` checkpoints.

    Of a run on many processes each one calls this, and one writes: nothing in a checkpoint is
    sharded, so that it can be gone on from with any number of them.

    Raises:
        DataError: It cannot be written; the one before stands.
    """
    learner.publish()
    trained = learner.state_dict()

    def write(folder: Path) -> None:
        with as_data_errors():
            write_all(folder)

    def write_all(folder: Path) -> None:
        if has_adapter(policy.model):
            save_adapter(policy.model, folder / ADAPTER)
            policy.save(folder / MODEL, merged(policy.model))
        else:
            policy.save(folder / MODEL)
        (folder / "trainer").mkdir()
        torch.save(trained, folder / OPTIMIZER)
        state, tensors = split(method.state())
        if tensors:
            save_file(tensors, folder / TENSORS)
        progress = {"step": step, "method": method.name, "state": state}
        write_atomic(folder / PROGRESS, json.dumps(progress))

    run.save_checkpoint(step, write, keep)


def load_trainer_state(folder: Path, learner: Learner, method: Chain) -> int:
    """Bring learner and method back from a checkpoint and return the step it was saved after.

    The policy's weights are not loaded here: a run builds its model from ``folder / MODEL``, or
    from what it began with and ``folder / ADAPTER``.

    Raises:
        UsageError: The checkpoint is of another method.
        DataError: The checkpoint is broken.
    """
    try:
        progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        optimizer = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
        saved_with, step = progress["method"], int(progress["step"])
        tensors = load((folder / TENSORS).read_bytes()) if (folder / TENSORS).exists() else {}
        state = join(progress["state"], tensors)
        if saved_with != method.name:
            raise UsageError(
                f"the checkpoint {folder} is of method {saved_with}, this run is {method.name};"
                f" set method.name to {saved_with} in the run's config.toml, or start a new run"
            )
        learner.load_state_dict(optimizer)
        method.load_state(state)
    except torch.OutOfMemoryError:
        raise  # of which the checkpoint is not the cause
    except UNREADABLE as error:
        raise DataError(f"cannot read the checkpoint {folder}: {error!r}") from error
    return step
