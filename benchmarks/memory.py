"""The highest memory of real updates beside what `agentgym doctor --plan` reckons, on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/memory.py            # measure and print
    OMP_NUM_THREADS=1 python benchmarks/memory.py --write    # and write memory.md beside this file

Each case runs in a process of its own: a small model of Qwen2's kind takes two optimiser steps of
two micro-batches each. Memory is the highest resident set that the kernel saw after the first step
had begun, above what was resident before the model was made; so the allowance of the plan, which is
for what CUDA takes, is left out. A step on a tiny model comes first, for what libraries load late.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentgym.memory_plan import GIB, Trainers, Training, total, training_items
from agentgym.model_shape import ModelShape
from agentgym.policies.precision import Compute
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.lora import LoraOptions, add_adapter
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.updater import Updater

SHAPE = ModelShape(6, 256, 704, 4, 2, 64, 8000, tied=False, qkv_bias=True)
SMALL = ModelShape(1, 64, 64, 2, 2, 32, 500, tied=False, qkv_bias=True)
TOKENS, ROW = 1024, 256
RANK = 8
MIB = 2**20
CASES = tuple(product(("float32", "bfloat16"), (False, True), (None, RANK)))


def network(shape: ModelShape) -> Qwen2ForCausalLM:
    """Return a model of such sizes, with random weights."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            vocab_size=shape.vocabulary,
            tie_word_embeddings=shape.tied,
        )
    )


def update(model: Qwen2ForCausalLM, compute: Compute, recompute: bool) -> None:
    """Take two optimiser steps."""
    lm, updater = CausalLM(model, compute, recompute), Updater(model, OptimOptions(), steps=10)
    updater.begin(1)
    ids_BT = torch.randint(100, (TOKENS // ROW, ROW))
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[:, 0] = 0
    for step in (1, 2):
        for _ in range(2):
            logprob_BT, entropy_BT = lm.score(ids_BT, mask_BT, 1.0)
            (logprob_BT.mean() + entropy_BT.mean()).backward()
            del logprob_BT, entropy_BT
        updater.apply(0.0, {}, step)


def status(field: str) -> int:
    """Return a memory field of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def one_case(compute: Compute, recompute: bool, rank: int | None) -> dict[str, float]:
    """Measure in this process, and reckon."""
    update(network(SMALL), compute, recompute)
    gc.collect()
    before = status("VmRSS")
    model = network(SHAPE)
    if rank is not None:
        model = model.to(getattr(torch, compute))
        add_adapter(model, LoraOptions(rank=rank), seed=0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    update(model, compute, recompute)
    measured = status("VmHWM") - before
    half = compute == "bfloat16"
    training = Training(half, ROW, 8, rank, recompute, micro_batch_tokens=TOKENS)
    items = training_items(SHAPE, training, Trainers(1, 80 * GIB))
    planned = total([item for item in items if item.name != "allowance"])
    return {"measured": measured, "planned": planned}


def table() -> list[str]:
    """Measure all cases and return the lines of a table."""
    lines = [
        "| computed in | checkpointing | trained | measured, MiB | planned, MiB | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        command = [sys.executable, __file__, "--case", json.dumps(case)]
        # Large blocks go back to the kernel at once, so that what is free is not counted.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found = json.loads(done.stdout)
        compute, recompute, rank = case
        what = "all weights" if rank is None else f"adapter of {rank}"
        sizes = f"{found['measured'] / MIB:.0f} | {found['planned'] / MIB:.0f}"
        share = found["planned"] / found["measured"]
        lines.append(
            f"| {compute} | {'yes' if recompute else 'no'} | {what} | {sizes} | {share:.2f} |"
        )
    return lines


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="write memory.md")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one_case(*json.loads(options.case))))
        return
    page = [
        "# Memory of an update, measured and planned",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/memory.py --write`,"
        f" {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, on a CPU: a model of"
        f" {SHAPE.parameters:,} parameters, {TOKENS} tokens a micro-batch. Planned is what"
        " `agentgym doctor --plan` reckons, without its allowance for CUDA. Nothing was measured on"
        " a GPU, where other kernels may need other memory beside.",
        "",
        *table(),
    ]
    print("\n".join(page))
    if options.write:
        Path(__file__).with_suffix(".md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
