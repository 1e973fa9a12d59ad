"""A plugin of vLLM: workers that join a group of gloo where they would join one of NCCL.

Runs inside vLLM, whose NCCL engine it is but for what wants a GPU: the group, its broadcasts and
CUDA's streams. Routes, fields, the order of calls and how a model takes weights are vLLM's own.
"""

import importlib.util
from pathlib import Path

import torch
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine


def _peer():
    path = Path(__file__).parents[2] / "fake_transfer.py"
    spec = importlib.util.spec_from_file_location("fake_transfer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class GlooEngine(NCCLWeightTransferEngine):
    """Takes weights over gloo."""

    def init_transfer_engine(self, init_info):
        assert not init_info.packed
        rank = self.parallel_config.rank + init_info.rank_offset
        self._group = _peer().join(init_info.nccl_unique_id_bytes, rank, init_info.world_size)

    def update_weights(self, update_info):
        info = self.parse_update_info(update_info)
        for name, dtype, shape in zip(info.names, info.dtype_names, info.shapes, strict=True):
            weight = torch.empty(shape, dtype=getattr(torch, dtype))
            self._group.broadcast(weight)
            self._group.wait()
            self.model.load_weights([(name, weight)])

    def shutdown(self):
        self._group = None


def register():
    """Let the engine be chosen by its name; vLLM calls this in each of its processes."""
    if "gloo" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("gloo", GlooEngine)
