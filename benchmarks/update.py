"""One step's scoring and update of the bundled model, with what the learner may have, side by side.

    python benchmarks/update.py            # measure and print
    python benchmarks/update.py --write    # and write update.md beside this file

The batch has the shape of a step of the laptop recipe: 64 rows of 200 to 950 tokens, of which the
policy said about every sixth in turns of 4. Each way is measured in a process of its own, the ways
in turn. Processor time on one thread is what other work on the machine disturbs least; memory is
the highest resident set during scoring and update above what was resident before.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from learner import processor, status

from agentgym.policies.bundled import resolve_model
from agentgym.policies.hf import HFPolicy
from agentgym.trainers.batch import Batch, pack
from agentgym.trainers.learner import Learner
from agentgym.trainers.lora import LoraOptions, add_adapter
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain
from agentgym.types import Group, Key, Row, Stop, Trajectory, Turn

WAYS: dict[str, dict[str, Any]] = {
    "scored by a pass before": {"early": True},
    "scored by the update's own pass": {},
    "layers computed again": {"optim": {"gradient_checkpointing": True}},
    "in bfloat16": {"compute": "bfloat16"},
    "an adapter of rank 16": {"lora": True},
    "ppo, with a critic": {"method": "ppo"},
}
MIB = 2**20


def trajectory(task: int, member: int, vocabulary: int) -> Trajectory:
    """Return a trajectory of random tokens: a prompt, then turns of 4 tokens and 20 of answers."""
    rng = random.Random(f"{task}:{member}")
    turns = rng.randrange(3, 31)
    of_turn = [-1] * 200 + [k if t < 4 else -1 for k in range(turns) for t in range(24)]
    row = Row(
        tuple(rng.randrange(vocabulary) for _ in of_turn),
        tuple(of_turn),
        tuple(0.0 for _ in of_turn),
        tuple(min(k, 0) for k in of_turn),
    )
    said = (Turn("", "", "", None, True, 0.0, ""),) * turns
    won = rng.random() < 0.5
    return Trajectory(
        Key(str(task), member), "", "", "", said, (row,), Stop.TERMINATED, won, float(won)
    )


def step_batch(vocabulary: int) -> Batch:
    """Return 8 groups of 8."""
    groups = [
        Group(str(g), tuple(trajectory(g, m, vocabulary) for m in range(8))) for g in range(8)
    ]
    outcome = [
        [0.0] * (len(t.turns) - 1) + [float(t.won)] for group in groups for t in group.trajectories
    ]
    return pack(groups, {"outcome": outcome})


def one_way(name: str, repetitions: int) -> dict[str, float]:
    """Measure in this process: best times of some repetitions, peak memory of the first."""
    torch.set_num_threads(1)
    way = WAYS[name]
    model: Any = HFPolicy.from_pretrained(resolve_model("alfworld-tiny"), device="cpu").model
    if "lora" in way:
        add_adapter(model, LoraOptions(rank=16), seed=0)
    chain = build_chain({"name": way.get("method", "grpo")}, repetitions)
    options = OptimOptions.model_validate({"lr": 1e-5, **way.get("optim", {})})
    compute = way.get("compute", "float32")
    learner = Learner(model, options, repetitions, chain.needs, compute=compute)
    batch = step_batch(model.config.vocab_size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, peak = status("VmRSS"), 0
    cpu, wall = [], []
    for step in range(1, repetitions + 1):
        begun = time.process_time(), time.perf_counter()
        scored = (learner.score if "early" in way else learner.prepare)(batch, 1.0)
        learner.update(chain.advantages(scored, step), chain, step)
        cpu.append(time.process_time() - begun[0])
        wall.append(time.perf_counter() - begun[1])
        peak = peak or status("VmHWM")
    tokens = float(batch.length_B.sum())
    return {"cpu": min(cpu), "wall": min(wall), "above": peak - before, "tokens": tokens}


def measure(name: str, repetitions: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--way", name, "--repetitions", str(repetitions)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(rounds: int, repetitions: int) -> list[str]:
    """Measure all ways, in turn, and return the lines of a table."""
    found = {name: [measure(name, repetitions)] for name in WAYS}
    for _ in range(rounds - 1):
        for name in WAYS:
            found[name].append(measure(name, repetitions))
    best = {n: {k: min(one[k] for one in all_) for k in all_[0]} for n, all_ in found.items()}
    first = best[next(iter(WAYS))]
    lines = [
        "| way | processor s | to the first | wall s | tokens/s of processor time | MiB above |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in best.items():
        lines.append(
            f"| {name} | {one['cpu']:.2f} | {one['cpu'] / first['cpu']:.2f} | {one['wall']:.2f} |"
            f" {one['tokens'] / one['cpu']:.0f} | {one['above'] / MIB:.0f} |"
        )
    return lines


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=2, help="of each way in a round")
    parser.add_argument("--write", action="store_true", help="write update.md")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(one_way(options.way, options.repetitions)))
        return
    batch = step_batch(100)
    report = [
        "# One step's scoring and update, side by side",
        "",
        "`python benchmarks/update.py --write`: the bundled model of 1M parameters, a batch of"
        f" {len(batch.length_B)} rows, {int(batch.length_B.sum())} tokens, of which the policy said"
        f" {int(batch.mask_BT.sum())}; one optimiser step.",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, one thread, the best of"
        f" {options.rounds} rounds of {options.repetitions}, {processor()}.",
        "",
        *table(options.rounds, options.repetitions),
    ]
    print("\n".join(report))
    if options.write:
        Path(__file__).with_suffix(".md").write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
