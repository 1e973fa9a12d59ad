"""What trackers that are installed keep of a run, read back without a network."""

import json
import sqlite3
import time
from pathlib import Path

import pytest

from agentgym.tracking import TrackerName, tracking

STEPS = [{"step": 1, "reward/mean": 0.25}, {"step": 2, "reward/mean": 0.5}]
CONFIG = {"seed": 3, "optim": {"lr": 0.5}}

# The packages warn of their own dependencies.
pytestmark = pytest.mark.filterwarnings("default")


def tell(name: TrackerName, folder: Path) -> None:
    folder.mkdir()
    with tracking((name,), folder, CONFIG) as told:
        for step in STEPS:
            told(step)


def wanted(name: str) -> None:
    pytest.importorskip(name, reason="not installed: pip install 'agentgym[trackers]'")


def test_tensorboard_has_every_step(tmp_path: Path) -> None:
    wanted("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell("tensorboard", tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "logs" / "tensorboard")).Reload()
    told = [(event.step, event.value) for event in events.Scalars("reward/mean")]
    assert told == [(1, 0.25), (2, 0.5)]


def test_trackio_has_every_step_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted("trackio")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    tell("trackio", tmp_path / "run")
    (path,) = (tmp_path / "trackio").glob("*.db")
    rows = sqlite3.connect(path).execute("select run_name, step, metrics from metrics").fetchall()
    told = [(run, step, json.loads(metrics)["reward/mean"]) for run, step, metrics in rows]
    assert told == [("run", 1, 0.25), ("run", 2, 0.5)]


def test_wandb_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tell("wandb", tmp_path / "run")
    (path,) = (tmp_path / "run" / "logs").glob("wandb/offline-run-*/*.wandb")
    late = time.monotonic() + 30
    while b"reward/mean" not in path.read_bytes():  # a process of its own writes it
        assert time.monotonic() < late
        time.sleep(0.1)
    assert b"optim.lr" in path.read_bytes()
