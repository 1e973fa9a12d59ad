"""Training on one GPU that server and learner have in turns; another program stands for vLLM."""

import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentgym import sharing
from agentgym.config import Config, load, read_recipe
from agentgym.errors import ServerError, UsageError
from agentgym.memory_plan import GIB
from agentgym.model_shape import shape_of
from agentgym.policies import vllm_replica
from agentgym.train import Reporter, dry_run, run_training
from agentgym.trainers.learner import Learner
from agentgym.trainers.run_folder import RunFolder

QUIET = Reporter(lambda _: None, lambda _: None)
BOTH = {"weights", "kv_cache"}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_replica, "_FIRST_WAIT_S", 0.02)


@pytest.fixture
def model(corridor_model: Path) -> Path:
    return corridor_model


@pytest.fixture
def server(serve_fake: Any, model: Path) -> Any:
    return serve_fake(model, name="random", max_model_len=256)


def config_of(model: Path, policy: Mapping[str, Any], **changes: Any) -> Config:
    sampling = {"max_tokens": 3, "max_context": 128}
    settings = {
        "steps": 2,
        "env": {"suite": "corridor/train", "max_turns": 3},
        "policy": {"model": str(model), "template": "plain", "sampling": sampling, **policy},
        "rollout": {"tasks_per_step": 2, "group_size": 3},
        "reward": {"format_penalty": 0.5},
        "method": {"name": "epo"},
        "optim": {"lr": 1e-3},
        "eval": {"suite": "corridor/test", "tasks": 3},
        "save": {"every": 1},
    }
    return load([settings | changes])


def asleep(server: Any, **policy: Any) -> dict[str, Any]:
    return {"server": {"urls": [server.url], "sleep": True}, **policy}


def steps(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def orders(server: Any) -> list[str]:
    """Return what the server was told of weights and sleep, in order."""
    asked = [
        p
        for p, body in server.requests
        if not p.startswith("/v1/completions") and (body or "?" in p)
    ]
    return [re.sub(r"/v1/|_lora_adapter|\?level=1|\?tags=", " ", p).strip() for p in asked]


# A run -------------------------------------------------------------------------------------------


def test_the_server_sleeps_in_each_update_and_is_awake_in_each_rollout(
    server: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, frozenset[str]]] = []
    real = Learner.update

    def update(self: Learner, *arguments: Any) -> Any:
        seen.append(("optimiser", server.sleeping))
        done = real(self, *arguments)
        seen.append(("optimised", server.sleeping))
        return done

    monkeypatch.setattr(Learner, "update", update)
    looks = Reporter(
        lambda _: None, lambda _: None, lambda stage: seen.append((stage, server.sleeping))
    )
    run_training(config_of(model, asleep(server)), tmp_path / "run", looks, resume=False)
    assert {stage for stage, _ in seen} >= {"rollout", "score", "update", "optimised", "eval"}
    for stage, sleeping in seen:
        if stage in ("score", "update", "optimiser", "optimised"):
            assert sleeping == BOTH, stage
        if stage in ("rollout", "eval"):
            assert not sleeping, stage
    assert server.asked_asleep == 0
    in_turns = ["/sleep", "/wake_up weights", "/collective_rpc", "/wake_up kv_cache"]
    assert orders(server) == ["/collective_rpc", *in_turns, *in_turns]
    for step in steps(tmp_path / "run"):
        assert step["rollout/logprob_abs_diff_max"] < 1e-4
        assert step["optim/grad_norm"] > 0
    assert not server.sleeping


def test_an_adapter_is_loaded_before_there_is_room_for_keys_and_values(
    server: Any, model: Path, tmp_path: Path
) -> None:
    config = config_of(model, asleep(server, lora={"rank": 4}), steps=1)
    run_training(config, tmp_path / "run", QUIET, resume=False)
    told = [order for order in orders(server) if order != "unload"]
    assert told == ["load", "/sleep", "/wake_up weights", "load", "/wake_up kv_cache"]
    assert server.adapters == {}
    assert server.asked_asleep == 0


def test_a_run_that_is_interrupted_in_an_update_leaves_the_server_awake_and_is_resumed(
    server: Any, model: Path, tmp_path: Path
) -> None:
    def interrupt(stage: str) -> None:
        if stage == "update" and not (tmp_path / "run" / "checkpoints").exists():
            assert server.sleeping == BOTH
            signal.raise_signal(signal.SIGINT)

    config = config_of(model, asleep(server))
    told = Reporter(lambda _: None, lambda _: None, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_training(config, tmp_path / "run", told, resume=False)
    assert [step["step"] for step in steps(tmp_path / "run")] == [1]
    assert not server.sleeping
    run_training(config, tmp_path / "run", QUIET, resume=True)
    assert [step["step"] for step in steps(tmp_path / "run")] == [1, 2]


def test_what_breaks_an_update_is_what_is_told_and_the_server_is_left_awake(
    server: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def update(*_anything: Any) -> Any:
        assert server.sleeping == BOTH
        raise RuntimeError("no room for an update")

    monkeypatch.setattr(Learner, "update", update)
    with pytest.raises(RuntimeError, match="no room for an update"):
        run_training(config_of(model, asleep(server)), tmp_path / "run", QUIET, resume=False)
    assert not server.sleeping


def test_a_server_that_was_started_again_in_its_sleep_plays_by_the_weights_of_the_day(
    server: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Learner.update

    def update(self: Learner, *arguments: Any) -> Any:
        server.restart()
        return real(self, *arguments)

    monkeypatch.setattr(Learner, "update", update)
    run_training(config_of(model, asleep(server)), tmp_path / "run", QUIET, resume=False)
    for step in steps(tmp_path / "run"):
        assert step["rollout/logprob_abs_diff_max"] < 1e-4


# What does not go together -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "changes", "said"),
    [
        ({}, {}, "the model samples in this process: let a server sample"),
        ({"serve": {}}, {"rollout": {"staleness": 1}}, "staleness is 1, for which the server must"),
        ({"serve": {}, "server": {"sync": "nccl"}}, {}, "set policy.server.sync = auto"),
        ({"serve": {"replicas": 2}}, {}, "servers on 2 GPUs are asked for: ask for one"),
        ({"serve": {"tensor_parallel": 2}}, {}, "servers on 2 GPUs are asked for: ask for one"),
        ({"server": {"urls": ["http://a:1", "http://b:1"]}}, {}, "servers on 2 GPUs are asked for"),
        ({"serve": {"devices": ["1"]}}, {}, "names GPU 1: leave that out"),
        ({"serve": {}}, {}, "there is no GPU here, and on a CPU vLLM refuses --enable-sleep-mode"),
    ],
)
def test_what_does_not_go_with_a_server_that_sleeps_is_refused_before_anything_is_made(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: dict[str, Any],
    changes: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    server = policy.get("server", {}) | {"sleep": True}
    config = config_of(model, policy | {"server": server}, **changes)
    for begin in (dry_run, lambda *given, **how: run_training(*given, QUIET, **how)):
        with pytest.raises(UsageError, match=re.escape(said)):
            begin(config, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_several_processes_and_a_server_that_sleeps_for_one_are_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    config = config_of(model, asleep(server))
    sharing.refuse_unshareable(config)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(UsageError, match="there are 2 processes, and it would sleep for one of"):
        sharing.refuse_unshareable(config)


def test_nothing_is_made_where_the_server_cannot_sleep(
    server: Any, model: Path, tmp_path: Path
) -> None:
    server.sleep_mode = False
    with pytest.raises(ServerError, match="--enable-sleep-mode"):
        run_training(config_of(model, asleep(server)), tmp_path / "run", QUIET, resume=False)
    assert not (tmp_path / "run").exists()


def test_a_flag_lets_the_server_sleep(agentgym: Any, tmp_path: Path) -> None:
    train = ("train", "--env", "alfworld", "--sleep")
    ran = agentgym(*train, "--server", "http://a:1", "--dry-run")
    assert "sleep = true" in ran.out
    assert "the vLLM servers at http://a:1, asleep in each update" in ran.out
    ran = agentgym(*train, "--dry-run")
    assert (ran.code, "let a server sample (--serve or --server)" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        (("--server", "http://a:1", "--server", "http://b:1"), "at http://a:1, http://b:1"),
        (("--serve", "--replicas", "2", "--vllm", "/bin/true"), "2 vLLM servers"),
    ],
)
def test_a_run_that_was_begun_with_a_server_that_sleeps_is_resumed_with_several_awake(
    agentgym: Any, model: Path, tmp_path: Path, flags: tuple[str, ...], where: str
) -> None:
    begun = config_of(model, {"server": {"urls": ["http://a:1"], "sleep": True}})
    RunFolder.create(tmp_path / "run", begun.to_toml(), {})
    resume = ("train", "--resume", tmp_path / "run", "--dry-run", *flags)
    refused = agentgym(*resume)
    assert (refused.code, "--no-sleep" in refused.err) == (2, True)
    ran = agentgym(*resume, "--no-sleep")
    assert (ran.code, ran.err) == (0, "")
    assert "sleep = false" in ran.out
    assert where in ran.out
    assert "asleep" not in ran.out


# Whose GPU it is ---------------------------------------------------------------------------------


def planned(config: Config) -> tuple[str, ...]:
    options = sharing.served_beside(config)
    assert options is not None
    return options.arguments


def test_the_server_may_take_what_a_plan_says_and_no_more(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("--env", "alfworld", "--recipe", "spear-1.5b")
    ran = agentgym("doctor", "--plan", *run, "--share", "--set", "policy.server.sleep=true")
    share = re.search(r"--gpu-memory-utilization ([\d.]+) gives", ran.out)
    assert share is not None
    layers = [read_recipe("alfworld", "spear-1.5b")]
    config = load([*layers, {"policy": {"serve": {}, "server": {"sleep": True}}}])
    own = sharing.share_of_server(config, shape_of(config.policy.model), 80 * GIB)
    assert f"{own:.2f}" == share[1]
    with pytest.raises(UsageError, match="do not fit on one GPU of 16 GiB in turns"):
        sharing.share_of_server(config, shape_of(config.policy.model), 16 * GIB)


def test_what_the_server_was_told_to_take_stands(model: Path) -> None:
    for said in (["--gpu-memory-utilization", "0.4"], ["--gpu_memory_utilization=0.4"]):
        serve = {"arguments": said}
        config = config_of(model, {"serve": serve, "server": {"sleep": True}})
        assert planned(config) == tuple(said)
    assert planned(config_of(model, {"serve": {}})) == ()


def test_a_learner_on_the_cpu_needs_no_turns(model: Path) -> None:
    with pytest.raises(UsageError, match="the learner is on the CPU; leave it out"):
        sharing.served_beside(config_of(model, {"serve": {}, "server": {"sleep": True}}))
