"""Training whose turns a server samples: the whole way, with another program in vLLM's place."""

import gzip
import json
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import Config, load
from agentgym.errors import ServerError, StaleWeightsError, UsageError
from agentgym.policies import vllm_replica
from agentgym.policies.serve import ModelServer
from agentgym.train import Reporter, dry_run, run_training

QUIET = Reporter(lambda _: None, lambda _: None)


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
        "save": {"every": 1, "trajectories_every": 1},
    }
    return load([settings | changes])


def steps(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def lines_of(run: Path) -> list[list[Any]]:
    """Return the trajectories of each step, without their tokens."""
    read = (gzip.decompress(path.read_bytes()) for path in sorted((run / "trajectories").iterdir()))
    return [[json.loads(line) for line in lines.splitlines()] for lines in read]


def tasks_of(run: Path) -> list[list[str]]:
    """Return the task of each trajectory of each step."""
    return [[line["task"] for line in lines] for lines in lines_of(run)]


AHEAD = {"tasks_per_step": 2, "group_size": 3, "staleness": 1}


def let_it_begin(stage: str) -> None:
    """Be so slow to learn that the next step has begun to be played."""
    if stage == "score":
        time.sleep(0.2)


def test_a_served_run_trains_on_what_the_server_sampled_with_the_trainers_weights(
    server: Any, model: Path, tmp_path: Path, trained_turns: Callable[[], int]
) -> None:
    run = tmp_path / "run"
    config = config_of(model, {"server": {"urls": [server.url]}})
    run_training(config, run, QUIET, resume=False)
    turns = [len(line["turns"]) for lines in lines_of(run) for line in lines]
    assert trained_turns() == sum(turns) > 0
    for step in steps(run):
        assert step["rollout/logprob_abs_diff_max"] < 1e-4
        assert step["optim/grad_norm"] > 0
        assert 0 < step["time/generate"] <= step["time/rollout"]
    # At the start, before the second step, after the last; a version goes once.
    loads = [
        b["kwargs"]["weights_path"] for p, b in server.requests if p == "/collective_rpc" and b
    ]
    assert [Path(path).name for path in loads] == ["v000000", "v000001", "v000002"]
    salts = {body["cache_salt"] for body in server.completions() if body["max_tokens"] == 3}
    assert salts == {"v0", "v1", "v2"}
    assert not (run / "sync").exists()


def test_a_key_is_nowhere_in_a_run(
    server: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {name: f"secret of {name}" for name in ("VLLM_API_KEY", "OPENAI_API_KEY")}
    for name, secret in (secrets | {"AGENTGYM_TOKEN": "secret of AGENTGYM_TOKEN"}).items():
        monkeypatch.setenv(name, secret)
    server.api_key = secrets["VLLM_API_KEY"]
    config = config_of(model, {"server": {"urls": [server.url]}}, steps=1)
    said: list[str] = []
    run_training(config, tmp_path / "run", Reporter(said.append, lambda _: None), resume=False)
    assert {seen.get("Authorization") for seen in server.headers_seen} == {
        f"Bearer {server.api_key}"
    }
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not any("secret of" in line for line in said)
    for path in files:
        content = path.read_bytes()
        assert b"secret of" not in (
            gzip.decompress(content) if path.suffix == ".gz" else content
        ), path


def test_a_served_run_with_an_adapter(server: Any, model: Path, tmp_path: Path) -> None:
    policy = {"server": {"urls": [server.url]}, "lora": {"rank": 4}}
    run_training(config_of(model, policy), tmp_path / "run", QUIET, resume=False)
    assert all(step["rollout/logprob_abs_diff_max"] < 1e-4 for step in steps(tmp_path / "run"))
    assert server.adapters == {}
    names = {body["model"] for body in server.completions() if body["max_tokens"] == 3}
    assert len(names) == 3


def test_a_served_run_that_was_interrupted_goes_on_with_another_server(
    server: Any, serve_fake: Any, model: Path, tmp_path: Path
) -> None:
    first = config_of(model, {"server": {"urls": [server.url]}}, steps=1)
    run_training(first, tmp_path / "run", QUIET, resume=False)
    other = serve_fake(model, name="random", max_model_len=256)
    longer = config_of(model, {"server": {"urls": [other.url]}})
    run_training(longer, tmp_path / "run", QUIET, resume=True)
    assert [step["step"] for step in steps(tmp_path / "run")] == [1, 2]
    assert steps(tmp_path / "run")[1]["rollout/logprob_abs_diff_max"] < 1e-4


def test_a_server_that_tells_too_few_likely_tokens_to_branch_is_refused_before_the_run(
    server: Any, serve_fake: Any, model: Path, tmp_path: Path
) -> None:
    server.max_logprobs = 25
    poor = serve_fake(model, name="random", max_model_len=256)
    method = {"name": "arpo", "top_k": 25}
    config = config_of(model, {"server": {"urls": [server.url, poor.url]}}, method=method)
    with pytest.raises(UsageError, match=r"hook collect of arpo needs TOP_K.*--max-logprobs 25"):
        run_training(config, tmp_path / "run", QUIET, resume=False)
    assert not (tmp_path / "run").exists()
    poor.max_logprobs = 25
    run_training(config, tmp_path / "run", QUIET, resume=False)


def test_a_server_that_keeps_its_old_weights_ends_the_run_and_is_named(
    server: Any, model: Path, tmp_path: Path
) -> None:
    config = config_of(model, {"server": {"urls": [server.url]}})

    def deafen(_metrics: Mapping[str, float]) -> None:
        server.deaf = True

    with pytest.raises(StaleWeightsError, match="the server is stale"):
        run_training(config, tmp_path / "run", Reporter(lambda _: None, deafen), resume=False)


def test_nothing_is_made_where_the_server_cannot_be_used(
    server: Any, model: Path, tmp_path: Path
) -> None:
    server.dev = False
    config = config_of(model, {"server": {"urls": [server.url]}})
    with pytest.raises(ServerError, match="VLLM_SERVER_DEV_MODE=1"):
        run_training(config, tmp_path / "run", QUIET, resume=False)
    server.dev, server.max_model_len = True, 64
    with pytest.raises(UsageError, match="max_context is 128 tokens"):
        run_training(config, tmp_path / "run", QUIET, resume=False)
    assert not (tmp_path / "run").exists()


def test_a_context_that_only_the_server_finds_too_long_ends_one_episode(
    server: Any, model: Path, tmp_path: Path
) -> None:
    config = config_of(model, {"server": {"urls": [server.url]}}, steps=1)

    def shrink(_line: str) -> None:  # said when everything was checked
        server.max_model_len = 30

    run_training(config, tmp_path / "run", Reporter(shrink, lambda _: None), resume=False)
    (step,) = steps(tmp_path / "run")
    assert step["stop/tokens"] > 0
    assert step["stop/error"] == 0


# Ahead -------------------------------------------------------------------------------------------


def test_a_step_that_is_played_ahead_is_learnt_from_with_weights_of_the_version_before(
    server: Any, model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = config_of(model, {"server": {"urls": [server.url]}}, steps=4, rollout=AHEAD)
    assert config.optim.correction.level == "token"
    slow = Reporter(lambda _: None, lambda _: None, let_it_begin)
    run_training(config, run, slow, resume=False)
    first, *later = steps(run)
    assert first["rollout/age_max"] == 0
    assert first["rollout/logprob_abs_diff_max"] < 1e-4
    for step in later:
        assert step["rollout/age_max"] == 1
        assert step["rollout/stale_share"] > 0
        assert step["rollout/logprob_abs_diff_max"] > 1e-4  # the weights moved in between
        assert step["correction/token_max"] != 1
        assert step["optim/grad_norm"] > 0
        assert step["time/wait"] >= 0
        assert 0 < step["time/generate"] <= step["time/rollout"]
    # What each token says of its age is what the server was asked for.
    asked = [body for body in server.completions() if body["max_tokens"] == 3]
    salts = {body["cache_salt"] for body in asked if body["temperature"] == 1}
    assert {"v0", "v1", "v2"} <= salts <= {"v0", "v1", "v2", "v3"}


def test_a_run_that_plays_ahead_is_resumed_and_plays_each_step_once(
    server: Any, model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    policy = {"server": {"urls": [server.url]}}
    config = config_of(model, policy, steps=4, rollout=AHEAD)

    def interrupt(metrics: Mapping[str, float]) -> None:
        if metrics["step"] == 2:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run_training(config, run, Reporter(lambda _: None, interrupt, let_it_begin), resume=False)
    assert not any(one.name.startswith("agentgym-rollout") for one in threading.enumerate())
    slow = Reporter(lambda _: None, lambda _: None, let_it_begin)
    run_training(config, run, slow, resume=True)
    four = steps(run)
    assert [step["step"] for step in four] == [1, 2, 3, 4]
    # The step after the resumption is played anew, by weights that are not behind.
    assert [step["rollout/age_max"] for step in four] == [0, 1, 0, 1]
    assert four[2]["rollout/logprob_abs_diff_max"] < 1e-4
    straight = tmp_path / "straight"
    run_training(config_of(model, policy, steps=4), straight, QUIET, resume=False)
    assert tasks_of(run) == tasks_of(straight)


def test_what_goes_wrong_in_a_step_that_is_played_ahead_ends_the_run(
    server: Any, model: Path, tmp_path: Path
) -> None:
    config = config_of(model, {"server": {"urls": [server.url]}}, steps=4, rollout=AHEAD)

    def break_it(metrics: Mapping[str, float]) -> None:
        if metrics["step"] == 2:
            server.faults = [400] * 100

    with pytest.raises(ServerError, match="answered 400"):
        run_training(config, tmp_path / "run", Reporter(lambda _: None, break_it), resume=False)
    assert steps(tmp_path / "run")[-1]["step"] in (2, 3)


def test_a_policy_in_this_process_plays_nothing_ahead(model: Path, tmp_path: Path) -> None:
    config = config_of(model, {}, rollout={"staleness": 1})
    with pytest.raises(UsageError, match=r"rollout.staleness is 1, and the model samples in this"):
        run_training(config, tmp_path / "run", QUIET, resume=False)
    assert not (tmp_path / "run").exists()


def test_a_server_that_is_killed_while_it_samples_costs_a_run_nothing_but_time(
    model: Path, vllm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By its own hand, with -9: three held-out episodes of three turns, then six a step.
    monkeypatch.setenv("FAKE_VLLM_DIES", str(9 + 18 + 4))
    monkeypatch.setenv("FAKE_VLLM_MARK", str(tmp_path / "mark"))
    said: list[str] = []
    config = config_of(model, {"serve": {"vllm": str(vllm)}})
    run_training(config, tmp_path / "run", Reporter(said.append, lambda _: None), resume=False)
    assert (tmp_path / "mark").exists()
    both = steps(tmp_path / "run")
    assert sum(step["episode/faults"] for step in both) > 0
    for step in both:
        assert step["rollout/logprob_abs_diff_max"] < 1e-4
        assert step["stop/error"] == 0
    assert any("died and is started again" in line for line in said)


def test_of_two_servers_one_is_killed_and_the_other_takes_its_episodes(
    model: Path, vllm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both would, at their twelfth turn; whoever comes first leaves a mark for the other.
    monkeypatch.setenv("FAKE_VLLM_DIES", "12")
    monkeypatch.setenv("FAKE_VLLM_MARK", str(tmp_path / "mark"))
    said: list[str] = []
    # Nobody has the patience to wait until the dead one is back.
    policy = {"serve": {"vllm": str(vllm), "replicas": 2}, "server": {"patience": 0.5}}
    config = config_of(model, policy, steps=3)
    run_training(config, tmp_path / "run", Reporter(said.append, lambda _: None), resume=False)
    assert (tmp_path / "mark").exists()
    three = steps(tmp_path / "run")
    assert [step["step"] for step in three] == [1, 2, 3]
    assert sum(step["episode/faults"] for step in three) > 0
    for step in three:
        assert step["rollout/logprob_abs_diff_max"] < 1e-4
        assert step["stop/error"] == 0
    assert sum("died and is started again" in line for line in said) == 1
    assert sorted(path.name for path in (tmp_path / "run" / "logs").iterdir()) == [
        "vllm-0.log",
        "vllm-1.log",
    ]


# Choosing ----------------------------------------------------------------------------------------


def test_a_dry_run_says_where_turns_would_be_sampled(
    model: Path, vllm: Path, tmp_path: Path
) -> None:
    def said(policy: Mapping[str, Any]) -> str:
        return dry_run(config_of(model, policy), tmp_path / "run", resume=False)[-1]

    assert said({}) == "would sample in this process"
    named = said({"server": {"urls": ["http://host:8000"]}})
    assert named == "would sample with the vLLM servers at http://host:8000"
    own = said({"serve": {"vllm": str(vllm)}})
    assert own == f"would sample with a vLLM server of its own: {vllm} serve"


def test_a_named_server_and_one_of_its_own_are_not_both_taken(model: Path, tmp_path: Path) -> None:
    policy = {"server": {"urls": ["http://host:8000"]}, "serve": {}}
    with pytest.raises(UsageError, match="choose one"):
        dry_run(config_of(model, policy), tmp_path / "run", resume=False)


def test_flags_choose_where_turns_are_sampled(agentgym: Any, vllm: Path) -> None:
    train = ("train", "--env", "alfworld", "--dry-run")
    two = ("--server", "http://a:1", "--server", "http://b:2")
    ran = agentgym(*train, *two)
    assert "would sample with the vLLM servers at http://a:1, http://b:2" in ran.out
    ran = agentgym(*train, "--serve", "--vllm", vllm)
    assert f"would sample with a vLLM server of its own: {vllm} serve" in ran.out
    ran = agentgym(*train, "--vllm", vllm, "--replicas", 2)
    assert f"would sample with 2 vLLM servers of its own: {vllm} serve" in ran.out
    ran = agentgym(*train, *two, "--replicas", 2)
    assert (ran.code, "choose one" in ran.err) == (2, True)
    ran = agentgym(*train, *two, "--serve")
    assert (ran.code, "choose one" in ran.err) == (2, True)
    ran = agentgym(*train, "--serve", "--vllm", "/nowhere/vllm")
    assert (ran.code, "--vllm is '/nowhere/vllm', no program" in ran.err) == (2, True)


def test_a_flag_lets_steps_be_played_ahead(agentgym: Any) -> None:
    train = ("train", "--env", "alfworld", "--dry-run", "--staleness", 1)
    ran = agentgym(*train, "--server", "http://a:1")
    assert "would sample with the vLLM servers at http://a:1, a step ahead of the update" in ran.out
    assert 'level = "token"' in ran.out
    ran = agentgym(*train)
    assert (ran.code, "let a server sample (--serve or --server)" in ran.err) == (2, True)
    ran = agentgym("train", "--resume", "somewhere", "--staleness", 1)
    assert (ran.code, "leave out --staleness" in ran.err) == (2, True)


HEALTHY = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""


def test_a_model_is_served_until_it_is_interrupted(
    agentgym: Any, model: Path, vllm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "healthy.py").write_text(HEALTHY)
    vllm.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "healthy.py"} "$@"\n')

    def interrupt(self: ModelServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelServer, "wait", interrupt)
    ran = agentgym("serve", model, "--vllm", vllm, "--log", tmp_path / "log", "--replicas", 2)
    assert ran.code == 130
    url = r"http://127\.0\.0\.1:\d+"
    assert re.search(f"random is served at {url}, {url}, for this machine only", ran.out)
    assert re.search(f"--model {model} --server {url} --server {url}\n", ran.out)
