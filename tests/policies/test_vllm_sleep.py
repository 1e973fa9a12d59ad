"""A server that sleeps while others have its GPU: what it is told, what becomes of each fault."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from agentgym.errors import ServerError
from agentgym.policies import vllm_replica, vllm_sleep
from agentgym.policies.hf import HFPolicy
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions
from agentgym.types import Request

BOTH = {"weights", "kv_cache"}


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(vllm_replica, "_FIRST_WAIT_S", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture
def served(model_of, tokenizer, folder):
    """The folder of a model, and one of the same with other weights."""
    if not (folder / "new").exists():
        model = model_of("llama")
        HFPolicy(model, tokenizer).save(folder / "old")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05
        HFPolicy(model, tokenizer).save(folder / "new")
    return folder


@pytest.fixture
def server(serve_fake, served):
    return serve_fake(served / "old")


@pytest.fixture
def connect(tokenizer):
    """Makes policies of servers that sleep; they are closed with the test."""
    made = []

    def make(server, **options):
        settings = {"timeout": 5.0, "patience": 5.0, "sleep": True, **options}
        made.append(VLLMPolicy(ServerOptions(urls=(server.url,), **settings), tokenizer))
        return made[-1]

    yield make
    for policy in made:
        policy.close()


def ask(policy):
    request = Request("a", tuple(range(20, 45)), max_tokens=4, temperature=1.0, seed="s")
    (sample,) = asyncio.run(policy.sample([request]))
    return sample


def orders(server):
    """Return what the server was told of weights and sleep, in order."""
    routes = ("/sleep", "/wake_up", "/collective_rpc")
    return [p for p, body in server.requests if p.startswith(routes) and (body or "?" in p)]


def test_it_wakes_with_new_weights_before_there_is_room_for_keys_and_values(
    server, served, connect
):
    policy = connect(server)
    before = policy.fingerprints()
    policy.sleep()
    assert server.sleeping == BOTH
    policy.load(str(served / "new"), 1)
    assert not server.sleeping
    assert orders(server) == [
        "/sleep?level=1",
        "/wake_up?tags=weights",
        "/collective_rpc",
        "/wake_up?tags=kv_cache",
    ]
    assert ask(policy).version == 1
    assert policy.fingerprints() != before
    assert server.asked_asleep == 0


def test_it_is_asked_nothing_while_it_sleeps(server, connect):
    policy = connect(server)
    policy.sleep()
    with pytest.raises(AssertionError, match="asked while it sleeps"):
        ask(policy)
    assert server.asked_asleep == 0


def test_turns_under_way_are_sampled_to_their_end_before_it_sleeps(server, connect):
    policy = connect(server)
    server.latency = 0.2

    with ThreadPoolExecutor(1) as threads:
        sampling = threads.submit(ask, policy)
        while not server.in_flight:
            time.sleep(0.005)
        policy.sleep()
        assert sampling.result().finish in ("stop", "length")
    assert server.sleeping == BOTH
    assert server.asked_asleep == 0


def test_one_that_was_started_again_in_its_sleep_is_given_the_weights(server, served, connect):
    policy = connect(server)
    policy.sleep()
    server.restart()
    policy.load(str(served / "new"), 1)
    assert ask(policy).version == 1
    assert not server.sleeping


def test_one_that_is_gone_when_it_should_sleep_is_waited_for(server, connect):
    policy = connect(server)
    server.gone = True
    threading.Timer(0.1, setattr, (server, "gone", False)).start()
    policy.sleep()
    assert server.sleeping == BOTH


def test_one_that_stays_away_when_it_should_sleep_ends_the_run(server, connect):
    policy = connect(server, patience=0.1)
    server.gone = True
    with pytest.raises(ServerError, match="not ready for 0 s; start the server again"):
        policy.sleep()
    server.gone = False


def test_one_that_does_not_wake_in_time_is_one_clear_error(server, served, connect, monkeypatch):
    monkeypatch.setattr(vllm_sleep, "_LEAST_S", 0.1)
    policy = connect(server, patience=0.2)
    policy.sleep()
    server.slumber.clear()
    with pytest.raises(
        ServerError, match=r"wake_up\?tags=weights was not answered within 0 s \(po"
    ):
        policy.load(str(served / "new"), 1)
    server.slumber.set()


def test_one_that_has_no_room_to_wake_is_told_what_to_do(server, served, connect, fake_vllm):
    policy = connect(server)
    policy.sleep()

    def refuse(_asked):
        raise fake_vllm.Refusal(500, "CUDA Error: out of memory at cumem_allocator.cpp:116")

    server.wake_up = refuse
    with pytest.raises(ServerError, match=r"out of memory.*give it less of it: --gpu-memory-util"):
        policy.load(str(served / "new"), 1)


def test_one_that_says_that_it_woke_and_sleeps_on_is_not_asked(server, served, connect):
    policy = connect(server)
    policy.sleep()
    server.wake_up = lambda _asked: None
    server._refuse_without_memory = lambda: None
    with pytest.raises(ServerError, match="was woken and sleeps on; asked 3 times"):
        policy.load(str(served / "new"), 1)
    assert server.asked_asleep == 0


# Who comes next ----------------------------------------------------------------------------------


def test_it_is_left_awake(server, connect):
    policy = connect(server)
    policy.sleep()
    policy.close()
    assert not server.sleeping


def test_one_that_does_not_wake_is_not_waited_for_at_the_end(server, connect, monkeypatch):
    monkeypatch.setattr(vllm_sleep, "_LEAST_S", 0.1)
    policy = connect(server)
    policy.sleep()
    server.slumber.clear()
    policy.close()
    assert server.sleeping == BOTH
    server.slumber.set()


def test_one_that_was_left_asleep_is_woken_by_a_run_that_lets_it_sleep(server, connect):
    server.sleep({})
    policy = connect(server)
    assert not server.sleeping
    assert ask(policy).version == 0


def test_one_that_was_left_asleep_is_refused_by_others(server, connect):
    server.sleep({})
    with pytest.raises(ServerError, match=r"is asleep or paused.*curl -X POST http.*/wake_up"):
        connect(server, sleep=False)
    assert server.asked_asleep == 0


# Which cannot ------------------------------------------------------------------------------------


def test_a_server_without_the_routes_is_refused_with_what_it_lacks(serve_fake, served, connect):
    server = serve_fake(served / "old", dev=False)
    server.more_posts["/collective_rpc"] = server.rpc  # takes weights all the same
    with pytest.raises(ServerError, match=r"VLLM_SERVER_DEV_MODE=1 .* and --enable-sleep-mode"):
        connect(server)


def test_a_server_that_would_only_say_that_it_sleeps_is_refused(server, connect):
    server.sleep_mode = False
    with pytest.raises(ServerError, match="started without sleep mode: told to sleep it would say"):
        connect(server)
    server.device = "cpu"
    with pytest.raises(ServerError, match="is on a CPU, where vLLM does not sleep"):
        connect(server)


@pytest.mark.parametrize("info", [None, {}, "a page", {"vllm_config": "text"}])
def test_a_server_that_does_not_tell_its_configuration_is_believed(server, connect, info):
    real = server.get
    server.get = lambda path: info if path == "/server_info" else real(path)
    connect(server).sleep()
    assert server.sleeping == BOTH
