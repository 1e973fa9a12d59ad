"""The training runs of the chaos job: how they are started, and what must be the same of two."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import tomli_w

from agentgym.config import merge
from agentgym.envs.corridor import WORDS
from agentgym.policies.prompt import load_prompt
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer

FAKE_SERVER = Path(__file__).parents[1] / "tests" / "fake_vllm.py"

_CORRIDOR: dict[str, Any] = {
    "steps": 8,
    "env": {"suite": "corridor/train", "max_turns": 6},
    "policy": {"template": "plain", "sampling": {"max_tokens": 3, "max_context": 160}},
    "rollout": {"tasks_per_step": 4, "group_size": 4},
    "reward": {"format_penalty": 0.5},
    "method": {"name": "epo"},
    "optim": {"lr": 1e-3},
    "eval": {"suite": "corridor/test", "tasks": 4},
    "save": {"every": 2, "trajectories_every": 1},
}
_SCIENCEWORLD: dict[str, Any] = {
    "steps": 4,
    "env": {
        "suite": "scienceworld/short-train",
        "options": {"actions": "none"},
        "max_turns": 4,
        "workers": 1,
    },
    "policy": {
        "model": "scienceworld-tiny",
        "template": "plain",
        "context": "full",
        "sampling": {"max_tokens": 8, "max_context": 1024},
    },
    "rollout": {"tasks_per_step": 2, "group_size": 2},
    "reward": {"outcome": "score", "format_penalty": 0.5},
    "method": {"name": "epo"},
    "optim": {"lr": 1e-4},
    "eval": {"suite": "scienceworld/short-test", "tasks": 2},
    "save": {"every": 1, "trajectories_every": 1},
}
SCENARIOS: Mapping[str, dict[str, Any]] = {
    "corridor": _CORRIDOR,
    "corridor, 2 workers": merge(_CORRIDOR, {"env": {"workers": 2}}),
    "corridor, served": merge(_CORRIDOR, {"steps": 4, "policy": {"serve": {"patience": 300.0}}}),
    "ScienceWorld": _SCIENCEWORLD,
}
"""What is trained, by name."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A training run that can be started again and again.

    Attributes:
        name: Of it.
        recipe: Its TOML file.
        steps: How many it takes.
        served: Whether a server samples; then the trainer's own sums may differ in their last bits.
    """

    name: str
    recipe: Path
    steps: int
    served: bool

    def start(
        self, folder: Path, log: Path, more: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start it, or go on with it if it has begun.

        Args:
            folder: The run's.
            log: What it says is appended there.
            more: Environment variables.
        """
        begun = (folder / "config.toml").exists()
        words = ["--resume", str(folder)] if begun else ["--recipe", str(self.recipe)]
        words += [] if begun else ["--output", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(more or {})}
        with log.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "agentgym", "train", *words],
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
            )


def prepare(work: Path) -> dict[str, Scenario]:
    """Write the recipes, the model and the server's command below a folder.

    Returns:
        The scenarios by name.
    """
    model, vllm = _model(work / "model"), work / "vllm"
    vllm.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} {FAKE_SERVER} --model "$@"\n')
    vllm.chmod(0o755)
    found = {}
    for name, settings in SCENARIOS.items():
        served = "serve" in settings["policy"]
        there: dict[str, Any] = {"policy": {"serve": {"vllm": str(vllm)}}} if served else {}
        low: dict[str, Any] = {"policy": {"model": str(model)}}
        recipe = work / f"{name.replace(', ', '-').replace(' ', '-')}.toml"
        recipe.write_text(tomli_w.dumps(merge(merge(low, settings), there)))
        found[name] = Scenario(name, recipe, settings["steps"], served)
    return found


def _model(folder: Path) -> Path:
    """Make a model for the corridor, with random weights."""
    tokenizer = train_tokenizer([" ".join(WORDS)] * 10, 300)
    shape = Shape(hidden=32, layers=1, intermediate=64, context=256)
    fresh_model(tokenizer, shape, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    load_prompt("corridor", "plain", "full").save(folder)
    return folder


# What must be the same ---------------------------------------------------------------------------


def differences(whole: Path, other: Path, *, exactly: bool) -> list[str]:
    """Return where a run ended otherwise than the undisturbed one.

    Args:
        whole: The undisturbed run's folder.
        other: The other's.
        exactly: Whether metrics (apart from times), weights and texts must be the same bits, and
            not only the tasks and members that were played.
    """
    found = [*_episodes_of(whole, other, exactly=exactly)]
    ours, theirs = _metrics(whole), _metrics(other)
    if [line["step"] for line in ours] != [line["step"] for line in theirs]:
        found.append(f"metrics of the steps {[line['step'] for line in theirs]}")
    elif exactly and ours != theirs:
        step = next(a["step"] for a, b in zip(ours, theirs, strict=True) if a != b)
        found.append(f"metrics from step {step} on")
    last = f"checkpoints/step_{ours[-1]['step']:06d}"
    if not (other / last).is_dir():
        found.append(f"no {last}")
    elif exactly:
        found += _files(whole / last, other / last)
    return found


def _metrics(folder: Path) -> list[dict[str, float]]:
    """Return the metrics without times, and without the faults that were healed."""
    apart = ("time/", "perf/", "episode/faults")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith(apart)} for line in lines]


def _files(ours: Path, theirs: Path) -> Iterator[str]:
    """Name the files of a checkpoint that differ; metrics have times, the manifest their hash."""
    names = {path.relative_to(one) for one in (ours, theirs) for path in one.rglob("*.*")}
    for name in sorted(names):
        if name.name in ("metrics.jsonl", "manifest.json"):
            continue
        pair = [one / name for one in (ours, theirs)]
        if not all(map(Path.is_file, pair)) or pair[0].read_bytes() != pair[1].read_bytes():
            yield f"checkpoint file {name}"


def _episodes_of(whole: Path, other: Path, *, exactly: bool) -> Iterator[str]:
    names = {
        str(path.relative_to(one))
        for one in (whole, other)
        for path in (*one.glob("trajectories/*"), *one.glob("eval/*/trajectories.jsonl.gz"))
    }
    for name in sorted(names):
        if not (whole / name).is_file() or not (other / name).is_file():
            yield f"{name} is there in one run only"
            continue
        ours, theirs = (_lines(one / name) for one in (whole, other))
        counted = Counter((line["task"], line["member"], line["branch"]) for line in theirs)
        if any(count > 1 for count in counted.values()):
            yield f"{name}: an episode is counted twice"
        if lost := {(line["task"], line["member"], line["branch"]) for line in ours} - {*counted}:
            yield f"{name}: {len(lost)} episodes are lost"
        if any(line["stop"] == "error" and not line["error"] for line in theirs):
            yield f"{name}: an episode failed without a reason"
        if exactly and ours != theirs:
            yield f"{name}: what was said differs"


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    return [{k: v for k, v in line.items() if k != "faults"} for line in lines]


def faults(folder: Path) -> int:
    """Return how many faults a run healed, in training and in evaluations."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    trained = sum(line["episode/faults"] for line in lines)
    evaluated = [
        json.loads(line)["faults"]
        for path in folder.glob("eval/*/trajectories.jsonl.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    return round(trained) + sum(evaluated)


def seconds_a_step(folder: Path) -> float:
    """Return how long a step of a run took, on average."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return fmean(line["time/step"] for line in lines)
