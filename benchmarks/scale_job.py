"""What one process of a run on many does: updates that are compared with those of a process alone.

Started with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in the environment, as `torchrun` does:
by benchmarks/scale.py, and by the tests of training on many processes. Each process knows the same
step of random trajectories, trains a small model on it alone and then with the others, and the
first one writes how far both are apart:

    python benchmarks/scale_job.py compare OUT.json    every method
    python benchmarks/scale_job.py save OUT.json       two steps, and a checkpoint beside OUT.json
    python benchmarks/scale_job.py resume OUT.json     two more after it, against four unbroken
    python benchmarks/scale_job.py speed OUT.json      tokens a second of a larger model
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from agentgym.launch import launched
from agentgym.policies.gold_answer import WrittenAnswer
from agentgym.policies.precision import Compute
from agentgym.trainers.batch import Batch, pack
from agentgym.trainers.learner import Learner
from agentgym.trainers.lora import LoraOptions, add_adapter
from agentgym.trainers.method import Chain
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.prefix_copies import PrefixCopies
from agentgym.trainers.ranks import ALONE, Ranks
from agentgym.trainers.registry import build_chain
from agentgym.trainers.rendezvous import joined
from agentgym.trainers.rows import passes
from agentgym.trainers.sharding import ParallelOptions
from agentgym.trajectory_line import read_lines, trajectory_of
from agentgym.types import Group, Key, Row, Stop, Trajectory, Turn

VOCAB = 23
RECORDED = Path(__file__).with_name("scale_recorded.jsonl.gz")
"""Two groups of a step of alfworld-tiny in ALFWorld as its run wrote them, some won and some lost:

    agentgym train --env alfworld --steps 1 --seed 1 --set rollout.tasks_per_step=10
      --set rollout.group_size=5 --set env.max_turns=14 --set policy.sampling.temperature=1.2
      --set save.token_fields=100 --set save.trajectories_every=1
"""
RECORDED_VOCAB = 1024
STEPS = 10
TEMPERATURE = 0.9
SHAPES = ((2, 3), (4,), (1, 2, 3), (3, 1, 1, 2), (5,), (2, 2), (1, 1, 4), (3, 3), (2,), (1, 5))

EPO = {"name": "epo", "entropy_coef": 0.1, "alpha": 2.0, "kappa_high": 0.5, "log_every": 1}
SPEAR = {
    "name": "spear",
    "warmup_steps": 1,
    "buffer_size": 3,
    "clip_cov_ratio": 0.2,
    "clip_cov_low": -1.0,
    "replay_clip_cov_ratio": 0.2,
    "replay_clip_cov_low": -9.0,
}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {"name": "grpo", "kl_coef": 0.1},
    "drgrpo": {"name": "drgrpo", "sum_norm": 20},
    "dapo": {"name": "dapo"},
    "rloo": {"name": "rloo", "kl_coef": 0.1, "kl_in": "reward"},
    "reinforce++": {"name": "reinforce++", "gamma": 0.9},
    "gigpo": {"name": "gigpo", "normalise": True},
    "ppo": {"name": "ppo", "gamma": 0.9, "lam": 0.8},
    "drbot": {"name": "drbot", "sum_norm": 20},
    "arpo": {"name": "arpo"},
    "epo": EPO,
    "epo on ppo": {"base": "ppo", **EPO},
    "epo:released": {"name": "epo:released", "entropy_coef": 0.1, "log_every": 1},
    "empg": {"name": "empg"},
    "empg on dapo": {"base": "dapo", "name": "empg"},
    "spear": SPEAR,
    "spear with kl_cov": {**SPEAR, "selector": "kl_cov", "kl_cov_ratio": 0.2},
    "spear on gigpo": {"base": "gigpo", **SPEAR},
    "igpo": {"name": "igpo"},
    "aepo": {"name": "aepo"},
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained, and how."""

    name: str
    method: str
    weights: str
    dtype: str = "float64"
    layout: str = "full"
    optim: Mapping[str, Any] | None = None
    parallel: Mapping[str, Any] | None = None
    lora: bool = False
    compute: Compute = "float32"


def cases(dtypes: Sequence[str], weights: Sequence[str]) -> Iterator[Case]:
    """Yield every method, and what else is to change nothing."""
    for kind in weights:
        for dtype in dtypes:
            for n, method in enumerate(METHODS):
                layout = ("full", "window")[n % 2]
                yield Case(method, method, kind, dtype, layout)
        muon = {"optimizer": "muon", "lr": 1e-3}
        yield Case("muon", "grpo", kind, "float32", optim=muon)
        yield Case("one optimiser step", "epo", kind, optim={"epochs": 1, "mini_batch": None})
        yield Case("recomputed layers", "grpo", kind, optim={"gradient_checkpointing": True})
        yield Case("correction", "grpo", kind, optim={"correction": {"level": "sequence"}})
        yield Case("an adapter", "grpo", kind, lora=True)
        yield Case("recorded in ALFWorld", "epo on ppo", kind, layout="recorded")
        yield Case("an adapter, with a critic", "ppo", kind, lora=True)
    if "sharded" in weights:
        yield Case("reduced after each", "epo on ppo", "sharded", parallel={"reduce": "each"})
        yield Case("offloaded", "epo on ppo", "sharded", parallel={"offload": True})
        once = {"epochs": 1, "mini_batch": None}
        yield Case("bfloat16", "grpo", "sharded", "float32", optim=once, compute="bfloat16")


# What is learnt from ------------------------------------------------------------------------------


def trajectories(layout: str) -> list[Group]:
    """Return two groups of five trajectories: recorded ones, or random ones, half of them won.

    Turns meet few states, every other one leaves the action format, and an answer is the likelier
    the more was said, so that every method finds what it works on.
    """
    if layout == "recorded":
        played = map(_recorded, read_lines(RECORDED))
        return [Group(task, tuple(g)) for task, g in groupby(played, key=lambda t: t.key.task)]
    groups = []
    for g in range(2):
        shapes = SHAPES[5 * g : 5 * g + 5]
        members = [_trajectory(g, m, shape, layout) for m, shape in enumerate(shapes)]
        groups.append(Group(f"t{g}", tuple(members)))
    return groups


def _recorded(line: Mapping[str, Any]) -> Trajectory:
    rows = tuple(
        Row(
            tuple(row["ids"]),
            tuple(row["turn"]),
            tuple(row["behaviour_logprob"]),
            tuple(-1 if turn < 0 else 0 for turn in row["turn"]),
        )
        for row in line["rows"]
    )
    return replace(trajectory_of(line), rows=rows)


def _trajectory(g: int, m: int, shape: Sequence[int], layout: str) -> Trajectory:
    rng = random.Random(f"{g}:{m}")
    pieces = [
        ([rng.randrange(VOCAB) for _ in range(3 + length)], [-1, -1, -1] + [k] * length)
        for k, length in enumerate(shape)
    ]
    if layout == "full":
        pieces = [([i for ids, _ in pieces for i in ids], [t for _, ts in pieces for t in ts])]
    rows = tuple(
        Row(
            tuple(ids),
            tuple(of_turn),
            tuple(0.0 if t < 0 else -3.0 for t in of_turn),
            tuple(-1 if t < 0 else 0 for t in of_turn),
        )
        for ids, of_turn in pieces
    )
    turns = tuple(
        Turn("seen", "said", "done", "no tag" if k % 2 else None, True, 0.0, f"s{k * m % 3}")
        for k in range(len(shape))
    )
    won = (g + m) % 2 == 0
    played = Trajectory(
        Key(f"t{g}", m), "e/train", "kind", "goal", turns, rows, Stop.TERMINATED, won, 0.0
    )
    scores = tuple(-2.0 + 0.3 * k * (1 + m) for k in range(len(shape)))
    return replace(played, answer="a", answer_logprobs=scores)


def model_of(case: Case) -> LlamaForCausalLM:
    """Return a Llama of a few thousand random weights, its embeddings tied."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=RECORDED_VOCAB if case.layout == "recorded" else VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, case.dtype))
    if case.lora:
        add_adapter(model, LoraOptions(rank=2), seed=0)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(getattr(torch, case.dtype))
    return model


def batch_of(chain: Chain, case: Case) -> Batch:
    """Return the step that is learnt from, with the chain's rewards."""
    groups = trajectories(case.layout)
    batch = pack(groups, chain.turn_rewards(groups, 2))
    if case.dtype == "float32":
        return batch
    rewards = {name: part.double() for name, part in batch.reward_NK.items()}
    return replace(batch, reward_NK=rewards, mask_BT=batch.mask_BT.double())


# Training -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Trained:
    """A model and what trained it."""

    model: LlamaForCausalLM
    chain: Chain
    learner: Learner
    batch: Batch
    metrics: list[dict[str, float]]
    seconds: float = 0.0

    def learn(self, steps: Sequence[int]) -> None:
        """Take some steps."""
        begun = time.perf_counter()
        for step in steps:
            batch = self.learner.prepare(self.batch, TEMPERATURE)
            batch = self.chain.advantages(batch, step)
            batch, metrics = self.learner.update(batch, self.chain, step)
            self.chain.observe(batch, step)
            self.metrics.append(metrics)
        self.learner.publish()
        self.seconds += time.perf_counter() - begun

    def weights(self) -> list[torch.Tensor]:
        """Return all weights as they are."""
        return [p.detach().clone() for p in self.model.parameters()]


def begin(case: Case, ranks: Ranks, weights: Mapping[str, torch.Tensor] | None = None) -> Trained:
    """Return a model that is yet to be trained, from its first weights or from others."""
    model, chain = model_of(case), build_chain(dict(METHODS[case.method]), STEPS)
    if weights is not None:
        model.load_state_dict(weights)
    settings = {"lr": 1e-2, "warmup": 0, "epochs": 2, "mini_batch": 4, "clip": 0.5}
    options = OptimOptions.model_validate(
        {**settings, "micro_batch_tokens": 40, **(case.optim or {})}
    )
    parallel = ParallelOptions()
    if ranks is not ALONE:
        parallel = ParallelOptions.model_validate(
            {"weights": case.weights, **(case.parallel or {})}
        )
    learner = Learner(
        model, options, STEPS, chain.needs, compute=case.compute, ranks=ranks, parallel=parallel
    )
    return Trained(model, chain, learner, batch_of(chain, case), [])


def apart(left: Trained, right: Trained) -> float:
    """Return the largest difference between two models' weights."""
    return _apart(left.weights(), right.weights()).max().item()


def _apart(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([(a - b).abs().flatten() for a, b in zip(left, right, strict=True)])


def metrics_apart(left: Trained, right: Trained) -> float:
    """Return the largest difference between what was logged, as a share of what is above 1.

    Infinite where one logged what the other did not.
    """
    worst = 0.0
    for ours, theirs in zip(left.metrics, right.metrics, strict=True):
        if ours.keys() != theirs.keys():
            return math.inf
        shares = (abs(ours[n] - theirs[n]) / max(1.0, abs(ours[n])) for n in ours)
        worst = max(worst, *shares)
    return worst


def compared(case: Case, ranks: Ranks) -> dict[str, Any]:
    """Train together, and alone in the first process, and return how far both are apart."""
    together = begin(case, ranks)
    together.learn((1, 2))
    trained = together.learner.parameters
    sharded = [p for p in trained if isinstance(p, DTensor)]
    return {
        "case": case.name,
        "weights": case.weights,
        "dtype": case.dtype,
        "layout": case.layout,
        "ranks": ranks.size,
        "parameters": len(trained),
        "dtensors": len(sharded),
        "share": sum(p.to_local().numel() for p in sharded) / sum(p.numel() for p in trained),
        "split_groups": split_groups(together.batch, ranks),
        "seconds": together.seconds,
        **ranks.by_first(partial(against_alone, case, together)),
    }


def against_alone(case: Case, together: Trained) -> dict[str, float]:
    """Train alone, and return how far that is from what was trained together."""
    alone = begin(case, ALONE)
    before = alone.weights()
    alone.learn((1, 2))
    moved = _apart(alone.weights(), before)
    difference = _apart(alone.weights(), together.weights())
    return {
        "difference": difference.max().item(),
        "mean_difference": (difference.mean() / moved.mean()).item(),  # a share of the movement
        "metrics_difference": metrics_apart(alone, together),
        "moved": moved.max().item(),
        "seconds_alone": alone.seconds,
    }


def split_groups(batch: Batch, ranks: Ranks) -> int:
    """Return how many groups have rows on several processes."""
    mine = torch.cat([part.rows for part in passes(batch, 40, ranks) if part.counts])
    groups = ranks.gather(sorted(set(batch.group_N[batch.trajectory_B[mine]].tolist())))
    return sum(sum(g in there for there in groups) > 1 for g in set(batch.group_N.tolist()))


def answers_apart(weights: str, ranks: Ranks) -> dict[str, Any]:
    """Score answers alone and together, and return how far both are apart."""
    case = Case("igpo", "igpo", weights)
    rng = random.Random(0)
    asked = [
        PrefixCopies(
            tuple(rng.randrange(VOCAB) for _ in range(length)),
            tuple(range(2, length + 1, 3)),
            tuple(WrittenAnswer((1, 2, 3), 1) for _ in range(2, length + 1, 3)),
        )
        for length in (4, 11, 7, 2, 9)
    ]
    ours, theirs = (begin(case, who).learner.score_answers(asked) for who in (ALONE, ranks))
    pairs = [pair for x, y in zip(ours, theirs, strict=True) for pair in zip(x, y, strict=True)]
    worst = max(abs(a - b) for a, b in pairs)
    return {"case": "answer scores", "weights": weights, "difference": worst}


# Checkpoints --------------------------------------------------------------------------------------

CHECKPOINT = Case("a checkpoint", "epo on ppo", "sharded")


def save(ranks: Ranks, folder: Path) -> list[dict[str, Any]]:
    """Take two steps and write what a checkpoint has."""
    trained = begin(CHECKPOINT, ranks)
    trained.learn((1, 2))
    state = trained.learner.state_dict()
    if ranks.is_first:
        weights = trained.model.state_dict()
        torch.save({"weights": weights, "learner": state}, folder / "checkpoint.pt")
        (folder / "method.json").write_text(json.dumps(trained.chain.state()))
    return []


def resume(ranks: Ranks, folder: Path) -> list[dict[str, Any]]:
    """Go on from the checkpoint for two steps, and compare with four unbroken ones alone."""
    found = []
    for weights in ("whole", "sharded") if ranks.size > 1 else ("whole",):
        case = replace(CHECKPOINT, weights=weights)
        saved = torch.load(folder / "checkpoint.pt", weights_only=True)
        resumed = begin(case, ranks, saved["weights"])
        resumed.learner.load_state_dict(saved["learner"])
        resumed.chain.load_state(json.loads((folder / "method.json").read_text()))
        resumed.learn((3, 4))
        unbroken = begin(case, ALONE)
        unbroken.learn((1, 2, 3, 4))
        found.append(
            {"case": case.name, "weights": weights, "difference": apart(unbroken, resumed)}
        )
    return found


# Speed --------------------------------------------------------------------------------------------


def speed(ranks: Ranks, folder: Path) -> list[dict[str, Any]]:
    """Return how many tokens a second are learnt, with a model large enough to be busy with it."""
    found = []
    for weights in ("whole", "sharded") if ranks.size > 1 else ("whole",):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=2048,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=8,
            max_position_embeddings=256,
            tie_word_embeddings=True,
        )
        chain = build_chain({"name": "grpo"}, STEPS)
        played = [_trajectory(g, m, (60, 60), "full") for g in range(4) for m in range(8)]
        groups = [Group(f"t{g}", tuple(played[8 * g : 8 * g + 8])) for g in range(4)]
        parallel = ParallelOptions.model_validate({"weights": weights})
        options = OptimOptions(warmup=0, micro_batch_tokens=1024)
        learner = Learner(
            LlamaForCausalLM(config), options, STEPS, chain.needs, ranks=ranks, parallel=parallel
        )
        batch = pack(groups, chain.turn_rewards(groups, 1))
        seconds = []
        for step in (1, 2, 3):
            begun = time.perf_counter()
            scored = chain.advantages(learner.prepare(batch, TEMPERATURE), step)
            learner.update(scored, chain, step)
            seconds.append(time.perf_counter() - begun)
        tokens = batch.length_B.sum().item()
        found.append({"weights": weights, "tokens": tokens, "seconds": min(seconds)})
    return found


# Starting -----------------------------------------------------------------------------------------


def run(
    size: int, job: str, out: Path, *options: str, timeout: float = 1800
) -> list[dict[str, Any]]:
    """Run a job on so many processes of this machine, and return what the first one wrote.

    Raises:
        RuntimeError: A process failed; the message has what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    begun = [
        subprocess.Popen(
            [sys.executable, __file__, job, str(out), *options],
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=timeout)[0] for process in begun]
    finally:
        for process in begun:
            process.kill()
    for rank, process in enumerate(begun):
        if process.returncode:
            raise RuntimeError(
                f"rank {rank} of {size} ended with {process.returncode}: {said[rank]}"
            )
    found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
    return found


JOBS = {"save": save, "resume": resume, "speed": speed}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("compare", *JOBS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtypes", default="float64,float32")
    parser.add_argument("--weights", default="whole,sharded")
    parser.add_argument("--methods", default="", help="of these names alone, without other cases")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    launch = launched()
    # Where there is one process, it meets nobody.
    with joined(launch, ParallelOptions(timeout=120, join_timeout=120), {}) as ranks:
        folder = asked.out.parent
        if asked.job == "compare":
            kinds = asked.weights.split(",")
            only = [name for name in asked.methods.split(",") if name]
            wanted = cases(asked.dtypes.split(","), kinds)
            found = [compared(case, ranks) for case in wanted if not only or case.name in only]
            found += [answers_apart(kind, ranks) for kind in kinds]
        else:
            found = JOBS[asked.job](ranks, folder)
        if ranks.is_first:
            asked.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
