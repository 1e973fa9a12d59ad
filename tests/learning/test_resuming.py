"""A run that goes on from a checkpoint is, bit for bit, the one that was never interrupted."""

import json
import shutil
from pathlib import Path

import pytest

from agentgym.train import Reporter, resumed_config, run_training
from agentgym.trainers.registry import method_names

QUIET = Reporter(lambda _: None, lambda _: None)

# What makes a method's memory, or what else is its own, act within three small steps.
SETTINGS = {
    "aepo": {"alpha": 1.0},
    "arpo": {"alpha": 1.0},
    "dapo": {"max_rounds": 2},
    "epo": {"kappa_high": 1.0, "kl_coef": 0.1},
    "igpo": {"gain_weight": (1.0, 0.5)},
    "spear": {"warmup_steps": 1, "buffer_size": 4, "filters": [], "keep": True},
}
ACTED = {
    "aepo": "tree/branches",
    "arpo": "tree/branches",
    "dapo": "rollout/left_out",
    "empg": "empg/bonus",
    "epo": "epo/outside",
    "gigpo": "gigpo/compared",
    "igpo": "igpo/gain_abs",
    "ppo": "critic/grad_norm",
    "spear": "replay/optim/grad_norm",
}


def metrics_of(run: Path) -> list[dict[str, float]]:
    """Return a run's metrics by step, without what it took."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "perf/"))} for line in lines
    ]


def last_checkpoint(run: Path) -> dict[str, bytes]:
    """Return the files of the third step's checkpoint: weights, optimisers, what was remembered.

    Without the metrics, which have times, and the manifest, which has their digest.
    """
    folder = run / "checkpoints" / "step_000003"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("metrics.jsonl", "manifest.json")
    }


@pytest.mark.parametrize("name", method_names())
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(name, make_config, tmp_path) -> None:
    config = make_config(
        {"name": name, **SETTINGS.get(name, {})},
        {"steps": 3, "rollout": {"tasks_per_step": 6}, "optim": {"lr": 1e-4, "mini_batch": 12}},
        {"eval": {"tasks": 1}, "save": {"every": 1}},
    )
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run_training(config, whole, QUIET, resume=False)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_000003")
    (resumed / "checkpoints" / "latest").write_text("step_000002")
    run_training(resumed_config(resumed), resumed, QUIET, resume=True)

    assert metrics_of(resumed) == metrics_of(whole)
    assert last_checkpoint(resumed) == last_checkpoint(whole)
    again = metrics_of(resumed)[-1]
    assert again["optim/grad_norm"] > 0
    assert name not in ACTED or again[ACTED[name]] > 0
