"""What playing a step ahead saves, with a server that is as slow as a real one.

    python benchmarks/overlap.py --write

The learner is real: a Llama of random weights with the bundled ALFWorld model's tokenizer, large
enough that updating it is arithmetic, which leaves the interpreter to the episodes; with a model as
small as the bundled one both want the interpreter all the time. The server computes nothing and
takes as long as it is told (``latency_server.py``), so what it says has no meaning and is learnt
from all the same; what is measured is time. How long an update takes is found out first, then the
server is made so slow that playing takes as long, twice as long, or half as long.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentgym.config import load, read_recipe
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.hf import load_tokenizer
from agentgym.policies.prompt import saved_prompt
from agentgym.train import Reporter, run_training

PAGE = Path(__file__).with_name("overlap.md")
ACTIONS = ("look", "inventory", "go to cabinet 1", "go to shelf 1", "open drawer 1")
TASKS, GROUP, TURNS, SLOTS, STEPS = 2, 8, 24, 8, 6
SHAPE = {"hidden_size": 256, "head_dim": 32, "intermediate_size": 768, "num_attention_heads": 8}
SHAPE |= {"num_key_value_heads": 8, "num_hidden_layers": 8}
MEAN_OVER_MEDIAN = 1.65  # of a lognormal with sigma 1
SHARES = (1.0, 2.0, 0.5)  # what playing takes, of what learning takes


@dataclass(frozen=True)
class Took:
    """Mean seconds of a step, from the second to the last but one: those that overlap whole."""

    step: float
    rollout: float
    learn: float  # score, update and hand over
    age: float  # of tokens, in versions
    stale: float  # share of tokens

    @property
    def longer(self) -> float:
        """The longer of playing and learning."""
        return max(self.rollout, self.learn)


def random_model(folder: Path) -> Path:
    """Write the model that is trained."""
    shutil.copytree(resolve_model("alfworld-tiny"), folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig.from_pretrained(folder, **SHAPE)).save_pretrained(folder)
    return folder


def measure(staleness: int, median: float, steps: int = STEPS) -> Took:
    """Train some steps with a server of a latency, and return what they took."""
    with _server(median) as url, tempfile.TemporaryDirectory() as folder:
        run, model = Path(folder) / "run", random_model(Path(folder) / "model")
        given = {
            "steps": steps,
            "env": {"max_turns": TURNS},
            "rollout": {"tasks_per_step": TASKS, "group_size": GROUP, "staleness": staleness},
            # What the server says was sampled by nobody; no token of it is near the learner's.
            "policy": {"model": str(model), "server": {"urls": [url], "tolerance": 1e6}},
            "method": {"name": "grpo"},
            # What is stale is corrected, for which it is scored before the update: so here too.
            "optim": {"lr": 1e-6, "correction": {"level": "token"}},
            "guard": {"drift": 0.0},
            "eval": {"tasks": 1},
            "save": {"every": steps, "trajectories_every": 0},
        }
        config = load([read_recipe("alfworld", "laptop"), given])
        run_training(config, run, Reporter(lambda _: None, lambda _: None), resume=False)
        lines = (run / "metrics.jsonl").read_text().splitlines()
    return _took([json.loads(line) for line in lines][1:-1])


def _took(steps: list[dict[str, float]]) -> Took:
    def mean(*names: str) -> float:
        return fmean(sum(step[f"time/{name}"] for name in names) for step in steps)

    return Took(
        step=mean("step"),
        rollout=mean("rollout"),
        learn=mean("score", "update", "sync"),
        age=fmean(step["rollout/age_mean"] for step in steps),
        stale=fmean(step["rollout/stale_share"] for step in steps),
    )


@contextmanager
def _server(median: float) -> Iterator[str]:
    model = Path(resolve_model("alfworld-tiny"))
    prompt = saved_prompt(model)
    assert prompt is not None
    chat = Script(prompt, load_tokenizer(model)).chat
    answers = json.dumps([chat.said_ids(action) for action in ACTIONS])
    command = [sys.executable, str(Path(__file__).with_name("latency_server.py"))]
    command += ["--slots", str(SLOTS), "--median", f"{median}", "--answers", answers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _weights() -> int:
    with tempfile.TemporaryDirectory() as folder:
        model = LlamaForCausalLM.from_pretrained(random_model(Path(folder) / "model"))
        return int(model.num_parameters())


def report() -> str:
    """Measure everything and return it as Markdown."""
    before, size = os.getloadavg()[0], _weights()
    learn = measure(0, 0.01, 4).learn
    rows = []
    for share in SHARES:
        median = share * learn * SLOTS / (TASKS * GROUP * TURNS) / MEAN_OVER_MEDIAN
        found = {staleness: measure(staleness, median) for staleness in (0, 1)}
        for staleness, took in found.items():
            saved = "" if not staleness else f"{found[0].step / took.step:.2f}"
            goal = "≤ 1.10" if staleness else ""
            rows.append(
                f"| {median:.3f} | {staleness} | {took.rollout:.2f} | {took.learn:.2f} |"
                f" {took.step:.2f} | {took.step / found[0].longer:.2f} | {goal} | {saved} |"
                f" {took.age:.2f} | {took.stale:.2f} |"
            )
    table = "\n".join(rows)
    return f"""# Playing a step ahead of the update

Measured {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/overlap.py --write`, \
{os.cpu_count()} cores, load {before:.1f} before: a Llama of {size / 1e6:.1f} million random \
weights, GRPO with correction, {TASKS * GROUP} episodes of {TURNS} turns a step, a server of \
{SLOTS} slots whose times for a turn are lognormal (sigma 1). Means of steps 2 to {STEPS - 1} of \
{STEPS}, in seconds; *learn* is scoring, update and hand-over, which waits for turns under way \
where there are some. The bound is the longer of *rollout* and *learn* in the row with \
staleness 0.

| median of a turn, s | staleness | rollout | learn | step | step / bound | goal \
| times as fast | age of tokens | share older |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{table}

The server computes nothing: what is learnt here has no meaning, only the times have.
"""


def main() -> None:
    """Measure, and show or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write overlap.md")
    asked = parser.parse_args()
    page = report()
    if asked.write:
        PAGE.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
