"""The trained weights on their way to vLLM servers, and the proof that they arrived.

After each hand-over trainer and servers are asked for the log-probabilities of the same fixed
tokens. Where they differ the run stops, and the message says which side answers as before.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from agentgym.errors import DataError, StaleWeightsError, UsageError
from agentgym.policies.hf import HFPolicy
from agentgym.policies.served_folder import untie
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_replica import farthest
from agentgym.trainers.lora import has_adapter, merged, save_adapter
from agentgym.trainers.shared_gpu import SharedGpu
from agentgym.trainers.weight_source import WeightSource

Way = Literal["disk", "lora", "nccl"]
Scores = Sequence[Sequence[float]]


def way_of(sync: Literal["auto", "disk", "lora", "nccl"], *, adapter: bool) -> Way:
    """Return how weights get to the servers.

    Args:
        sync: What was asked for.
        adapter: Whether an adapter is trained, and not the weights.

    Raises:
        UsageError: An adapter was asked for, and none is trained.
    """
    if sync == "lora" and not adapter:
        raise UsageError(
            "policy.server.sync is lora, and no adapter is trained; set policy.lora.rank, or take"
            " disk"
        )
    if sync == "auto":
        return "lora" if adapter else "disk"
    return sync


def write_weights(trained: HFPolicy, folder: Path, way: Way) -> None:
    """Write the weights as servers take them.

    Args:
        trained: The model.
        folder: Is made.
        way: The whole model with what it was trained to add, or what was added alone (``lora``).

    Raises:
        DataError: They cannot be written.
    """
    model = trained.model
    try:
        folder.mkdir(parents=True)
        if way == "lora":
            save_adapter(model, folder)
        else:
            trained.save(folder, merged(model) if has_adapter(model) else model)
            untie(folder)
    except (OSError, SafetensorError, DataError) as error:
        shutil.rmtree(folder, ignore_errors=True)  # half a model is room that is needed
        raise DataError(
            f"cannot write the weights for the servers into {folder}: {error}; make room there,"
            " and go on from the last checkpoint with --resume"
        ) from error


class HandOver:
    """Hands the weights of a model in this process to servers, a version at a time.

    Args:
        trained: The model.
        servers: Who samples with it.
        folder: Where weights are written; the servers must see it under the same path. Only the
            last version stays, for servers that are restarted.
        tolerance: By how much the log-probability of a token may differ, in nats.
        way: Whole weights through the ``disk``, or the adapter (``lora``), or whole weights from
            GPU to GPU (``nccl``).
        source: Sends them, where the way is ``nccl``: the one that the servers were told of.
        gpu: The GPU that servers and model have in turns, where they do.
    """

    def __init__(
        self,
        trained: HFPolicy,
        servers: VLLMPolicy,
        folder: Path,
        tolerance: float,
        way: Way,
        source: WeightSource | None = None,
        gpu: SharedGpu | None = None,
    ) -> None:
        self._trained, self._servers, self._source, self._gpu = trained, servers, source, gpu
        self._folder, self._tolerance, self._way = folder.absolute(), tolerance, way
        self._handed: int | None = None
        self._ours: Scores | None = None  # at the last hand-over

    def __call__(self, version: int) -> None:
        """Hand the weights over as they are now; those of a version go once.

        Raises:
            DataError: They cannot be written.
            ServerError: A server did not take them.
            StaleWeightsError: Afterwards a server does not agree with the trainer.
        """
        if version == self._handed:
            return
        before = self._servers.fingerprints()
        path = self._lay_out(version)
        if self._gpu is not None:
            self._gpu.to_servers()
        self._servers.load(None if path is None else str(path), version)
        ours = self._own_scores()
        for url, theirs in self._servers.fingerprints().items():
            self._prove(url, version, ours, theirs, before[url])
        for old in self._folder.glob("v*"):
            if old != path:
                shutil.rmtree(old)
        self._handed, self._ours = version, ours

    def rest(self) -> None:
        """Say that nothing is sampled until weights are handed over again.

        Raises:
            ServerError: A server that has the model's GPU in turns with it does not go to sleep.
        """
        if self._gpu is not None:
            self._gpu.to_learner()
            self._handed = None  # whatever is handed over next wakes them

    def close(self) -> None:
        """Remove what was written; the run's checkpoints have it."""
        if self._gpu is not None:
            self._gpu.to_servers()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _lay_out(self, version: int) -> Path | None:
        """Make the weights ready to be taken; return their folder, if they are in one."""
        if self._source is not None:
            self._source.settle()
            return None
        path = self._folder / f"v{version:06d}"
        shutil.rmtree(path, ignore_errors=True)  # of a run that ended here
        write_weights(self._trained, path, self._way)
        return path

    def _own_scores(self) -> Scores:
        rows = self._servers.probe
        return asyncio.run(self._trained.score(rows, [1] * len(rows)))

    def _prove(self, url: str, version: int, ours: Scores, theirs: Scores, before: Scores) -> None:
        gap = farthest(ours, theirs)
        if gap <= self._tolerance:
            return
        they_changed = farthest(theirs, before) > self._tolerance
        we_changed = self._ours is None or farthest(ours, self._ours) > self._tolerance
        if not they_changed:
            why = "the server is stale: it answers as before"
        elif not we_changed:
            why = "the trainer is stale: the server took new weights, and its own answer as before"
        else:
            why = (
                "both changed: is the server's model, tokenizer or precision (--dtype) another? On"
                " a CPU, vLLM takes no new embedding into an output that shares it: serve it with"
                " agentgym serve"
            )
        raise StaleWeightsError(
            f"the weights of version {version} were handed to {url}, and a token's log-probability"
            f" differs from the trainer's by {gap:.2g}, more than policy.server.tolerance ="
            f" {self._tolerance:g}; {why}"
        )
