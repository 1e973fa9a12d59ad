"""One GRPO update on the same recorded batch and the same model: agentgym and TRL, side by side.

    make benchmark-peers                   # TRL in an environment of its own, and peers.md written
    python benchmarks/peers.py             # measure and print

The bundled model plays a step of ALFWorld; both sides read its tokens, masks and advantages from a
file. An update is forward and backward passes of micro-batches, gradient clipping and a step of
AdamW, in float32 on one thread. Each side is measured in a process of its own, the two in turn:
processor time, which other work on the machine disturbs least, and the highest resident set during
the updates above what was resident before the first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from learner import processor
from processes import Spent
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from agentgym.envs.registry import make_env
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.hf import HFPolicy
from agentgym.rollout import collect_groups
from agentgym.trainers.batch import Batch, pack
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain, RewardOptions, outcome_rewards
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain
from agentgym.types import EnvSpec
from agentgym.voices import SamplingOptions
from agentgym.workers import WorkerPool

HERE = Path(__file__).resolve().parent
PEER = HERE.parent / ".venv-peers" / "bin" / "python"
SUITE = "alfworld/gen-train"
TEMPERATURE = 1.0
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
# Of loss and gradient in float32, in units of the loss and of the gradient's norm. What was seen:
# gradients of 16 rows differ by 1.2e-6, those of 64 rows by 3.7e-5.
TOLERANCE = 1e-4
MIB = 2**20
LARGER = {
    "vocab_size": 16384,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
# Groups of eight trajectories of a step, and rows of a micro-batch; ours has as many tokens.
SIZES = {"bundled": (2, 4), "larger": (1, 4)}
KEPT = (
    "ids_BT", "length_B", "mask_BT", "turn_BT", "trajectory_B", "group_N", "turns_N",
    "advantage_BT", "old_logprob_BT",
)  # fmt: skip


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=3, help="updates of a side in a round")
    parser.add_argument("--write", action="store_true", help="write peers.md")
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--gradient", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(ours(options.case, options.repetitions, options.gradient)))
        return
    report = [*head(options.rounds, options.repetitions)]
    with tempfile.TemporaryDirectory() as folder:
        for name in SIZES:
            record(Path(folder) / name, name)
            report += compared(Path(folder) / name, name, options.rounds, options.repetitions)
    print("\n".join(report))
    if options.write:
        Path(__file__).with_suffix(".md").write_text("\n".join(report) + "\n")


# What both sides read -----------------------------------------------------------------------------


def record(folder: Path, name: str) -> None:
    """Write a model, a batch that the bundled model played, and how to cut it."""
    groups, rows = SIZES[name]
    policy = HFPolicy.from_pretrained(resolve_model("alfworld-tiny"), device="cpu")
    batch, chain = played(policy, groups), chain_of()
    if name == "bundled":
        policy.save(folder)
        model: Any = policy.model
    else:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**LARGER))
        model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
    batch = chain.advantages(Learner(model, OptimOptions(), 1).score(batch, TEMPERATURE), 1)
    assert batch.old_logprob_BT is not None
    # As after some updates, so that ratios leave 1 and the clip acts.
    moved_BT = 0.3 * torch.randn(batch.mask_BT.shape, generator=torch.Generator().manual_seed(0))
    batch = batch.with_(old_logprob_BT=batch.old_logprob_BT + moved_BT * batch.mask_BT)
    torch.save({field: getattr(batch, field) for field in KEPT}, folder / "batch.pt")
    settings = {
        "rows": rows,
        "tokens": rows * int(batch.length_B.max()),
        "clip": [CLIP_LOW, CLIP_HIGH],
        "parameters": sum(p.numel() for p in model.parameters()),
        "optim": {"lr": 1e-5, "betas": [0.9, 0.999], "weight_decay": 0.0, "clip": 1.0},
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def played(policy: HFPolicy, groups: int) -> Batch:
    """Let the bundled model play groups of eight, of tasks spread over the suite."""
    assert policy.prompt is not None
    script = Script(policy.prompt, policy.tokenizer)
    spec = EnvSpec("alfworld", {"suite": SUITE, "max_turns": 30})
    with closing(make_env(spec)) as env:
        tasks = env.suite.tasks[:: len(env.suite.tasks) // groups][:groups]
    sampling = SamplingOptions(temperature=TEMPERATURE, max_tokens=16, max_context=2048)
    with closing(WorkerPool(spec, 0)) as pool:
        found, _ = collect_groups(pool, tasks, 8, policy, script.begin, sampling, "0")
    return pack(found, outcome_rewards(found, RewardOptions()))


def chain_of() -> Chain:
    """Return GRPO with what both sides have: one clip, no divergence, a mean over tokens."""
    return build_chain(
        {"name": "grpo", "clip_low": CLIP_LOW, "clip_high": CLIP_HIGH, "dual_clip": math.inf}, 1
    )


# One side -----------------------------------------------------------------------------------------


def ours(folder: Path, repetitions: int, gradient: bool) -> dict[str, float]:
    """Update in this process; with ``gradient`` once, and keep its gradient."""
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tensors = torch.load(folder / "batch.pt", weights_only=True)
    batch = Batch(
        **tensors,
        behaviour_logprob_BT=tensors["old_logprob_BT"],
        trajectories=(),
        reward_NK={},
        reward_mask_NK=torch.zeros(0),
    )
    optim = settings["optim"] | {"warmup": 0.0, "floor": 1.0}
    options = OptimOptions.model_validate(optim | {"micro_batch_tokens": settings["tokens"]})
    chain = chain_of()
    learner = Learner(model, options, repetitions, chain.needs)
    found = dict(kept_gradient(model)) if gradient else {}
    spent = Spent()
    for step in range(1, 2 if gradient else repetitions + 1):
        with spent:
            _, metrics = learner.update(batch, chain, step)
        if step == 1:
            loss = metrics["loss/total"]
            clipped = metrics["actor/clip_frac"]
    if gradient:
        torch.save(found, folder / "ours.pt")
    return {**spent.least(), "loss": loss, "clipped": clipped}


def kept_gradient(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors that will hold the gradient as it was before it was clipped."""
    for name, parameter in model.named_parameters():
        kept = torch.zeros_like(parameter, requires_grad=False)

        def keep(p: Tensor, kept: Tensor = kept) -> None:
            assert p.grad is not None
            kept.copy_(p.grad)  # after the last micro-batch: the sum of all

        parameter.register_post_accumulate_grad_hook(keep)
        yield name, kept


# Side by side -------------------------------------------------------------------------------------


def run(side: str, folder: Path, repetitions: int, *more: str) -> dict[str, float]:
    """Measure one side in a process of its own."""
    python, script = {
        "agentgym": (sys.executable, "peers.py"),
        "TRL": (str(PEER), "peers_trl.py"),
    }[side]
    asked = ["--case", str(folder), "--repetitions", str(repetitions), *more]
    done = subprocess.run(
        [python, str(HERE / script), *asked],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def compared(folder: Path, name: str, rounds: int, repetitions: int) -> list[str]:
    """Hold loss and gradient to be equal, measure both sides in turn, and return a table."""
    sides = ("agentgym", "TRL")
    checked = {side: run(side, folder, 1, "--gradient") for side in sides}
    mine, other = (torch.load(folder / f, weights_only=True) for f in ("ours.pt", "theirs.pt"))
    assert mine.keys() == other.keys()
    norm = torch.stack([g.norm() for g in other.values()]).norm()
    apart = torch.stack([(mine[key] - other[key]).norm() for key in mine]).norm()
    gap = abs(checked["agentgym"]["loss"] - checked["TRL"]["loss"])
    gap /= abs(checked["TRL"]["loss"])
    assert norm > 0
    assert float(apart / norm) < TOLERANCE, f"gradients differ by {apart / norm:.1e} of their norm"
    assert gap < TOLERANCE, f"losses differ by {gap:.1e}"
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            found[side].append(run(side, folder, repetitions))
    best = {s: {k: min(one[k] for one in all_) for k in all_[0]} for s, all_ in found.items()}
    tensors = torch.load(folder / "batch.pt", weights_only=True)
    settings = json.loads((folder / "settings.json").read_text())
    tokens, said = int(tensors["length_B"].sum()), int(tensors["mask_BT"].sum())
    lines = [
        "",
        f"## {name}: {settings['parameters'] / 1e6:.1f}M parameters",
        "",
        f"{len(tensors['length_B'])} rows of {int(tensors['length_B'].min())} to"
        f" {int(tensors['length_B'].max())} tokens, {tokens} in all, of which the policy said"
        f" {said}; micro-batches of {settings['rows']} rows at TRL, of at most"
        f" {settings['tokens']} tokens, padding included, at agentgym. Loss"
        f" {checked['agentgym']['loss']:.6f} and {checked['TRL']['loss']:.6f}; the gradients differ"
        f" by {float(apart / norm):.1e} of their norm {float(norm):.4f};"
        f" {checked['agentgym']['clipped']:.1%} of the tokens are clipped.",
        "",
        "| | processor s | tokens/s of processor time | wall s | MiB above |",
        "|---|---|---|---|---|",
    ]
    for side, one in best.items():
        lines.append(
            f"| {side} | {one['cpu']:.2f} | {tokens / one['cpu']:.0f} | {one['wall']:.2f} |"
            f" {one['above'] / MIB:.0f} |"
        )
    mine_, other_ = best["agentgym"], best["TRL"]
    lines.append(
        f"| **agentgym / TRL** | **{mine_['cpu'] / other_['cpu']:.2f}** |"
        f" **{other_['cpu'] / mine_['cpu']:.2f}** | {mine_['wall'] / other_['wall']:.2f} |"
        f" **{mine_['above'] / other_['above']:.2f}** |"
    )
    return lines


def head(rounds: int, repetitions: int) -> list[str]:
    """Return what the report begins with: the settings, and where they mean the same."""
    asked = "import trl, transformers; print(trl.__version__, transformers.__version__)"
    done = subprocess.run([PEER, "-c", asked], check=True, capture_output=True, text=True)
    trl, transformers = done.stdout.split()[-2:]
    return [
        "# One GRPO update, beside TRL's",
        "",
        "`make benchmark-peers`: agentgym's `Learner.update` against the training step of TRL's"
        " `GRPOTrainer`, on a batch that the bundled model played (ALFWorld, whole conversations).",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d}, TRL {trl} with transformers {transformers}, ours"
        f" {version('transformers')}, torch {torch.__version__}, float32, one thread, the least of"
        f" {rounds * repetitions} updates, {processor()}. Processor time is what"
        " compares; wall time is that of a shared machine.",
        "",
        f"Settings that mean the same: the clip of {CLIP_LOW} below and {CLIP_HIGH} above, no"
        " second bound (`dual_clip = inf`; TRL's `delta` is none), no divergence (`beta = 0`), the"
        " mean over all tokens of the step (`token-mean`; `loss_type = dapo`), what environments"
        " said masked (`mask_BT`; `tool_mask`), advantages given to both, old log-probabilities"
        " given to both and moved from the current ones by 0.3 nats, one standard deviation;"
        " gradients clipped at 1, AdamW without decay, no gradient checkpointing. Both also compute"
        f" entropies, without a gradient. Loss and gradient may differ by {TOLERANCE:g}, relative.",
    ]


if __name__ == "__main__":
    main()
