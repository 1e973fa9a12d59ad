"""Cells of a training benchmark: one arm with one seed, trained and then measured once.

A cell is trained from a recipe with what the arm adds to it. Then its last checkpoint plays a whole
suite of held-out tasks, at the recipe's temperature of evaluations and with its limits.
A cell that is done is not done again; one that was cut off goes on from its last checkpoint. No
checkpoint is chosen by anything: the last one counts. What another version of the bundled model
began is never counted: it is refused by name.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from agentgym.config import Config, load, read_recipe
from agentgym.curves import curve
from agentgym.models import folder_digest
from agentgym.plot import COLOURS
from agentgym.policies.bundled import resolve_model
from agentgym.run_files import open_run

STAGES = ("time/step", "time/eval")
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # Student's t by degrees of freedom


@dataclass(frozen=True)
class Cell:
    """One arm with one seed.

    Attributes:
        name: What people call it.
        folder: Where it keeps what it did.
        env: The environment, whose recipe ``laptop`` is taken.
        arm: What ``agentgym train`` is told beside the recipe; None: it is not trained.
        suite: The held-out tasks that its last checkpoint plays once each.
        seed: Of training and of the measurement.
    """

    name: str
    folder: Path
    env: str
    arm: Sequence[str] | None
    suite: str
    seed: int

    @property
    def run(self) -> Path:
        """The folder of its training run."""
        return self.folder / "run"

    @property
    def results(self) -> Path:
        """What it measured."""
        return self.folder / "panel" / "results.json"

    @property
    def told_weights(self) -> Path:
        """The file that says which weights its training began with."""
        return self.folder / "began-with.txt"

    @property
    def weights(self) -> str | None:
        """SHA-256 of the model that it began with, as it was; None where nothing says so."""
        if self.arm is None and self.results.exists():
            told = json.loads(self.results.read_text())["protocol"].get("weights")
            return None if told is None else str(told)
        return self.told_weights.read_text().strip() if self.told_weights.exists() else None

    @property
    def is_done(self) -> bool:
        """Whether it was trained and measured to its end, from the present model."""
        return self.results.exists() and self.weights == present_weights(self.env)

    @property
    def success(self) -> float:
        """Success on the held-out suite, of a cell that is done."""
        rate = json.loads(self.results.read_text())["summary"]["success"]
        return float(rate["won"] / rate["episodes"])

    @property
    def minutes(self) -> float:
        """What the steps of its training and the evaluations between them took; 0 without any."""
        steps = open_run(self.run).steps if self.run.exists() else ()
        return sum(step.get(stage, 0.0) for step in steps for stage in STAGES) / 60


@cache
def recipe_of(env: str) -> Config:
    """Return the recipe that every cell of an environment has."""
    return load([read_recipe(env, "laptop")])


def env_words(recipe: Config) -> list[str]:
    """Return the options and the limit on turns of a recipe, as ``agentgym eval`` is told them."""
    env = recipe.env
    options = [x for key, value in env.options.items() for x in ("--option", f"{key}={value}")]
    return [*options, "--max-turns", str(env.max_turns)]


@cache
def present_weights(env: str) -> str | None:
    """Return SHA-256 of the model that cells of an environment begin with, as it is now."""
    return folder_digest(resolve_model(recipe_of(env).policy.model))


def do_all(cells: Sequence[Cell], jobs: int) -> None:
    """Do what is not done, so many cells at a time, and print a line about each."""
    with ThreadPoolExecutor(jobs) as pool:
        for line in pool.map(do, cells):
            print(line, flush=True)


def do(cell: Cell) -> str:
    """Train and measure one cell, unless that is done; return a line about it."""
    if not cell.is_done:
        _refuse_another_model(cell)
        recipe = recipe_of(cell.env)
        model = recipe.policy.model if cell.arm is None else _train(cell)
        _measure(cell, recipe, model)
    return f"{cell.env}, {cell.name}, seed {cell.seed}: {cell.success:.3f}"


def _refuse_another_model(cell: Cell) -> None:
    begun, present = cell.run.exists() or cell.results.exists(), present_weights(cell.env)
    if begun and cell.weights != present:
        raise SystemExit(
            f"{cell.folder} began with weights {cell.weights or 'that nothing tells'}, and"
            f" {recipe_of(cell.env).policy.model} has {present} now; take another --folder, or"
            f" remove this one. If they were these, write that number into {cell.told_weights}"
        )


def _train(cell: Cell) -> str:
    """Train to the end, from the last checkpoint if there is one; return the model's folder."""
    if not cell.run.exists():
        cell.folder.mkdir(parents=True, exist_ok=True)
        cell.told_weights.write_text(f"{present_weights(cell.env)}\n")
        begin = ["--env", cell.env, *(cell.arm or []), "--seed", str(cell.seed)]
        _agentgym("train", *begin, "--output", str(cell.run))
    elif not _is_trained(cell.run):
        _agentgym("train", "--resume", str(cell.run))
    return str(cell.run / "checkpoints" / _latest(cell.run) / "hf")


def _is_trained(run: Path) -> bool:
    """Return whether the last checkpoint is that of the last step."""
    steps = tomllib.loads((run / "config.toml").read_text())["steps"]
    return _latest(run) == f"step_{steps:06d}"


def _latest(run: Path) -> str:
    """Return the name of the last checkpoint; nothing if there is none."""
    path = run / "checkpoints" / "latest"
    return path.read_text().strip() if path.exists() else ""


def _measure(cell: Cell, recipe: Config, model: str) -> None:
    """Play every held-out task once."""
    _agentgym(
        *("eval", "--suite", cell.suite, "--model", model, *env_words(recipe)),
        *("--max-tokens", str(recipe.policy.sampling.max_tokens)),
        *("--temperature", str(recipe.eval.temperature), "--seed", str(cell.seed)),
        *("--output", str(cell.folder / "panel")),
    )


def _agentgym(*arguments: str) -> None:
    """Run the command on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "agentgym", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}:\n{done.stderr}")


# What is told of cells --------------------------------------------------------------------------


def rises(cells: Iterable[Cell], base: Iterable[Cell]) -> list[float]:
    """Return how much higher success is than that of the base's cell with the same seed."""
    before = {cell.seed: cell.success for cell in base if cell.is_done}
    done = [cell for cell in cells if cell.is_done and cell.seed in before]
    return [cell.success - before[cell.seed] for cell in done]


def interval(differences: Sequence[float]) -> str:
    """Return Student's 95 % interval of a mean, as text."""
    if len(differences) < 2:
        return "too few seeds"
    half = T_975[len(differences) - 1] * stdev(differences) / math.sqrt(len(differences))
    return f"{fmean(differences) - half:+.3f} to {fmean(differences) + half:+.3f}"


def missing(cells: Iterable[Cell]) -> str:
    """Return a sentence about the cells that are not done; nothing if all are."""
    seeds: dict[str, list[str]] = {}
    for cell in cells:
        if not cell.is_done:
            seeds.setdefault(cell.name, []).append(str(cell.seed))
    names = [f"{name}, seed {' and '.join(numbers)}" for name, numbers in seeds.items()]
    return f"Not done yet: {'; '.join(names)}." if names else ""


def draw_curves(axes: Any, label: str, cells: Iterable[Cell], metric: str) -> None:
    """Draw a metric of trained cells by step: its mean over seeds and their range.

    Each value is the mean of itself and the four before it.

    Args:
        axes: Of matplotlib.
        label: Of the line; the number of seeds is added.
        cells: The same arm with several seeds; those not done are left out.
        metric: Its name in ``metrics.jsonl``.
    """
    runs = [open_run(cell.run) for cell in cells if cell.is_done and cell.run.exists()]
    if not runs:
        return
    found = curve(runs, metric, band="range", smooth=5)
    colour = COLOURS[len(axes.lines)]
    axes.plot(found.step, found.mean, label=f"{label} ({len(runs)})", color=colour)
    axes.fill_between(found.step, found.low, found.high, alpha=0.15, color=colour, lw=0)
