"""Whole jobs whose environments are on a local cluster of Ray; some of their actors are killed.

What one worker must do is tested beside the workers in processes, in ``test_workers.py``.
"""

import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import load
from agentgym.errors import WorkerError
from agentgym.evaluate import EvalOptions, evaluate
from agentgym.policies.scripted import RandomPolicy
from agentgym.ray_worker import RayWorker, connect, cpus
from agentgym.train import Reporter, run_training
from agentgym.types import EnvSpec
from agentgym.workers import WorkerPool

pytestmark = pytest.mark.ray

QUIET = Reporter(lambda _: None, lambda _: None)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    """A cluster of Ray on this host."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'agentgym[ray]'")
    ray = connect()
    yield ray
    ray.shutdown()


@pytest.fixture
def settings(corridor_model: Path) -> Mapping[str, Any]:
    return {
        "steps": 3,
        "env": {"suite": "corridor/train", "max_turns": 3},
        "policy": {
            "model": str(corridor_model),
            "template": "plain",
            "sampling": {"max_tokens": 3, "max_context": 128},
        },
        "rollout": {"tasks_per_step": 2, "group_size": 3},
        "reward": {"format_penalty": 0.5},
        "method": {"name": "grpo"},
        "optim": {"lr": 1e-3},
        "eval": {"suite": "corridor/test", "tasks": 3},
    }


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kill the actor that is asked for the 8th, 20th and 33rd time, whichever that is."""
    pids: list[int] = []
    asked = 0
    ask = RayWorker.ask

    def ask_or_kill(self: RayWorker, number: int, act: Any, timeout_s: float) -> Any:
        nonlocal asked
        asked += 1
        if asked in (8, 20, 33):
            pids.append(ask(self, number, lambda _: os.getpid(), timeout_s))
            os.kill(pids[-1], signal.SIGKILL)
        return ask(self, number, act, timeout_s)

    monkeypatch.setattr(RayWorker, "ask", ask_or_kill)
    return pids


def measured(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    beside = ("time/", "perf/", "episode/faults")
    return [{k: v for k, v in one.items() if not k.startswith(beside)} for one in lines]


def faults(folder: Path) -> float:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return sum(json.loads(line)["episode/faults"] for line in lines)


def test_a_run_whose_actors_are_killed_is_the_run_inside_one_process(
    settings: Mapping[str, Any], killed: list[int], tmp_path: Path
) -> None:
    run_training(load([settings]), tmp_path / "inline", QUIET, resume=False)
    far = load([settings, {"env": {"workers": "ray:2"}}])
    run_training(far, tmp_path / "ray", QUIET, resume=False)
    assert len(set(killed)) == 3
    assert faults(tmp_path / "ray") >= 3  # of each episode that its actor held
    assert faults(tmp_path / "inline") == 0
    assert measured(tmp_path / "ray") == measured(tmp_path / "inline")


@pytest.mark.parametrize("workers", ["ray", "ray:1"])
def test_an_evaluation_on_ray_is_the_one_inside_one_process(workers: str) -> None:
    spec = EnvSpec("alfworld", {"suite": "alfworld/gen-unseen", "max_turns": 10})
    here, there = (
        evaluate(spec, RandomPolicy, EvalOptions(tasks=6, workers=where)) for where in (0, workers)
    )
    assert there.episodes == here.episodes


def test_nothing_is_left_of_a_pool_that_is_closed(cluster: Any) -> None:
    pool = WorkerPool(EnvSpec("corridor"), f"ray:{cpus()}")
    for home in pool._homes:
        home.process.start()
    pool.close()
    again = WorkerPool(EnvSpec("corridor"), f"ray:{cpus()}", start_timeout_s=30)
    for home in again._homes:  # each takes a processor, which those before have given back
        home.process.start()
    again.close()


def test_more_workers_than_the_cluster_has_processors_are_an_error_with_advice() -> None:
    pool = WorkerPool(EnvSpec("corridor"), f"ray:{cpus() + 1}", start_timeout_s=15)
    *fitting, last = pool._homes
    for home in fitting:
        home.process.start()
    with pytest.raises(WorkerError, match=r"within 15 s; .* 0 are free: take fewer workers"):
        last.process.start()
    pool.close()


def test_a_host_with_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.ray_worker.__version__", "0.0.0")
    pool = WorkerPool(EnvSpec("corridor"), "ray:1")
    with pytest.raises(WorkerError, match=r"has agentgym \d\S+, and this one 0\.0\.0; install"):
        pool._homes[0].process.start()
    pool.close()


def test_a_cluster_that_is_not_there_is_said_at_once(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(cluster, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(WorkerError, match=rf"cannot use Ray at 127\.0\.0\.1:{port}: .*refused"):
        WorkerPool(EnvSpec("corridor"), "ray:1")
