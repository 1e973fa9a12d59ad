"""A policy behind vLLM's HTTP: what is sent, what is believed, and what becomes of each fault."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from agentgym.errors import ContextOverflow, DataError, ServerError, StaleWeightsError, UsageError
from agentgym.policies import vllm_replica
from agentgym.policies.hf import HFPolicy
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import Lost, ServerOptions
from agentgym.policies.vllm_wire import read_choices, read_scores, top_logprobs
from agentgym.types import Request

IDS = tuple(range(20, 45))


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(vllm_replica, "_FIRST_WAIT_S", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture
def model(model_of):
    return model_of("llama")


@pytest.fixture
def served(model, tokenizer, folder):
    """The folder of the model."""
    if not (folder / "config.json").exists():
        HFPolicy(model, tokenizer).save(folder)
    return folder


@pytest.fixture
def server(serve_fake, served):
    return serve_fake(served)


@pytest.fixture
def connect(tokenizer):
    """Makes policies for servers; they are closed with the test."""
    made = []

    def make(*servers, way="disk", **options):
        urls = tuple(getattr(server, "url", server) for server in servers)
        settings = {"timeout": 5.0, "patience": 5.0, **options}
        made.append(VLLMPolicy(ServerOptions(urls=urls, **settings), tokenizer, way))
        return made[-1]

    yield make
    for policy in made:
        policy.close()


def turn(session="a", ids=IDS, **changes):
    base = Request(session, tuple(ids), max_tokens=4, temperature=1.0, seed=f"seed of {session}")
    return replace(base, **changes)


def ask(policy, *requests):
    return asyncio.run(policy.sample(requests))


def changed_folder(model, tokenizer, path, by=0.05):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by
    HFPolicy(model, tokenizer).save(path)
    return str(path)


# What is sent -----------------------------------------------------------------------------------


def test_nothing_is_left_to_defaults_of_server_or_model_folder(server, connect):
    ask(connect(server), turn(stop=("</a>",), temperature=0.5, top_k=20))
    (body,) = [body for body in server.completions() if body["prompt"] == list(IDS)]
    assert isinstance(body.pop("seed"), int)
    assert body == {
        "model": "tiny",
        "prompt": list(IDS),
        "max_tokens": 4,
        "temperature": 0.5,
        "n": 1,
        "stop": ["</a>"],
        "logprobs": 20,
        "cache_salt": "v0",
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "add_special_tokens": False,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "include_stop_str_in_output": True,
    }


def test_a_piece_of_a_turn_has_draws_of_its_own(server, connect):
    policy = connect(server)
    ask(policy, turn())
    ask(policy, turn(begun=3))
    first, second = (body["seed"] for body in server.completions())
    assert first != second
    assert 0 <= first < 2**62


def test_samples_of_one_prompt_are_asked_for_at_once(server, connect):
    samples = ask(connect(server), turn("a"), turn("b"), turn("c", [20, 21]))
    assert sorted(body["n"] for body in server.completions()) == [1, 2]
    assert len(samples) == 3


def test_only_so_many_requests_are_in_flight(server, connect):
    server.latency = 0.05
    ask(connect(server, in_flight=3), *(turn(f"{n}", [20 + n]) for n in range(12)))
    assert server.most_in_flight == 3


def test_each_episode_stays_with_one_server_and_new_ones_are_shared_out(
    serve_fake, served, connect
):
    servers = [serve_fake(served) for _ in range(2)]
    policy = connect(*servers)
    for _ in range(3):
        for n in range(6):
            ask(policy, turn(f"{n}", [20 + n]))
    firsts = [{body["prompt"][0] for body in server.completions()} for server in servers]
    assert not firsts[0] & firsts[1]
    assert [len(first) for first in firsts] == [3, 3]
    policy.fork("0", "copy")
    before = [len(server.completions()) for server in servers]
    ask(policy, turn("copy", [99]))
    home = 0 if 20 in firsts[0] else 1
    assert len(servers[home].completions()) == before[home] + 1
    for n in range(6):
        policy.drop(f"{n}")
    ask(policy, turn("another", [98]))  # with nobody, beside the one with the copy
    assert len(servers[1 - home].completions()) == before[1 - home] + 1


def test_a_policy_outlives_the_loops_of_rollouts(server, connect):
    policy = connect(server)
    assert [ask(policy, turn())[0].ids for _ in range(3)] == [ask(policy, turn())[0].ids] * 3


def test_a_cancelled_rollout_cancels_what_the_server_was_asked(server, connect):
    server.faults = ["hang"]
    policy = connect(server)

    async def run():
        asked = asyncio.create_task(policy.sample([turn()]))
        await asyncio.sleep(0.2)
        asked.cancel()
        await asked

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    server.unhang.set()
    assert ask(policy, turn())[0].faults == 0


# Faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["drop", "drop-late", 500, "garbage", "page", "packed", "abort"], ids=str
)
def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_seed(fault, server, connect):
    policy = connect(server)
    (expected,) = ask(policy, turn())
    server.faults = [fault, "ok"] if fault == "drop-late" else [fault]
    (sample,) = ask(policy, turn())
    lost = fault != "drop-late"  # the answer had arrived
    assert sample == replace(expected, faults=int(lost))
    assert len({body["seed"] for body in server.completions()}) == 1


TOP = {"token_id:20": -0.1, "token_id:21": -2.0}
LOGPROBS = {"token_logprobs": [-0.1], "top_logprobs": [TOP]}
CHOICE = {
    "index": 0,
    "token_ids": [20],
    "prompt_token_ids": list(IDS),
    "logprobs": LOGPROBS,
    "finish_reason": "length",
}


@pytest.mark.parametrize(
    "change",
    [
        {"index": float("inf")},
        {"token_ids": 5},
        {"token_ids": ["x"]},
        {"token_ids": [-3]},
        {"token_ids": [20.5]},
        {"token_ids": [True]},
        {"token_ids": [[]]},
        {"token_ids": []},
        {"token_ids": [20] * 5},  # at most 4 were asked for
        {"prompt_token_ids": 5},
        {"prompt_token_ids": {"20": 1}},
        {"finish_reason": {}},
        {"logprobs": [1]},
        {"logprobs": 5},
        {"logprobs": LOGPROBS | {"token_logprobs": 5}},
        {"logprobs": LOGPROBS | {"top_logprobs": 5}},
        {"logprobs": LOGPROBS | {"top_logprobs": [5]}},
        {"logprobs": LOGPROBS | {"top_logprobs": [None]}},
        {"logprobs": LOGPROBS | {"top_logprobs": ["x"]}},
        {"logprobs": LOGPROBS | {"top_logprobs": [TOP | {"token_id:21": "x"}]}},
        {"logprobs": LOGPROBS | {"top_logprobs": [TOP | {"token_id:21": 2.0}]}},
    ],
    ids=str,
)
def test_an_answer_of_another_shape_is_no_answer(change):
    (said,) = read_choices({"choices": [CHOICE]}, turn(top_k=2))
    assert said.ids == (20,)
    with pytest.raises(Lost, match="/v1/completions"):
        read_choices({"choices": [CHOICE | change]}, turn(top_k=2))


@pytest.mark.parametrize("answer", [None, 5, "x", [], {}, {"choices": 5}, {"choices": [5]}])
def test_an_answer_without_choices_is_no_answer(answer):
    for read in (
        lambda: read_choices(answer, turn()),
        lambda: read_scores(answer, IDS, 1),
        lambda: top_logprobs(answer),
    ):
        with pytest.raises(Lost, match="/v1/completions"):
            read()


@pytest.mark.parametrize("fault", [b"[" * 100_000, b"[]", {"token_ids": 5}], ids=["deep", "", "5"])
def test_an_answer_that_means_nothing_is_asked_for_again(fault, server, connect):
    policy = connect(server)
    (expected,) = ask(policy, turn())
    server.faults = [fault]
    assert ask(policy, turn()) == [replace(expected, faults=1)]


@pytest.mark.parametrize("score", [float("nan"), float("-inf"), 0.5, "-1.0", None, True, 10**400])
def test_a_score_that_is_no_log_probability_is_no_answer(score):
    entries = [None, {"21": {"logprob": score}}]
    with pytest.raises(Lost, match="expected"):
        read_scores({"choices": [{"prompt_logprobs": entries}]}, [20, 21], 1)


def test_a_turn_is_sampled_at_most_three_times(server, connect):
    policy = connect(server)
    server.faults = ["drop"] * 3
    with pytest.raises(ServerError, match=r"the connection broke.*asked 3 times"):
        ask(policy, turn())
    assert len(server.completions()) == 3


def test_a_server_that_hangs_loses_the_turn(server, connect):
    policy = connect(server, timeout=0.3)
    server.faults = ["hang"]
    assert ask(policy, turn())[0].faults == 1
    server.faults = ["hang"] * 3
    with pytest.raises(ServerError, match=r"no answer in time \(policy.server.timeout\)"):
        ask(policy, turn())


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_final(status, server, connect):
    policy = connect(server)
    server.faults = [status]
    with pytest.raises(ServerError, match=f"answered {status}: ordered"):
        ask(policy, turn())
    assert len(server.completions()) == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no-logprobs", "0 log-probabilities for 4 sampled tokens"),
        ("no-ids", "returns no token ids"),
        ("other-prompt", "read 26 tokens that are not the 25 that were sent"),
    ],
)
def test_what_training_needs_and_is_missing_ends_the_run(fault, message, server, connect):
    policy = connect(server)
    server.faults = [fault]
    with pytest.raises(ServerError, match=message):
        ask(policy, turn())
    assert len(server.completions()) == 1


def test_a_server_that_is_away_is_waited_for(server, connect):
    policy = connect(server)
    server.faults = [503, 502, 503]
    assert ask(policy, turn())[0].faults == 0
    policy = connect(server, patience=0.05)
    server.faults = [503] * 50
    with pytest.raises(ServerError, match=r"not ready for 0 s; start the server again"):
        ask(policy, turn())


def test_the_first_error_of_several_turns_is_the_one_that_is_told(server, connect):
    policy = connect(server)
    server.faults = [400] * 8
    with pytest.raises(ServerError, match="ordered"):
        ask(policy, *(turn(f"{n}", [20 + n]) for n in range(8)))


def test_a_context_overflow_that_only_the_server_knows_of_is_told_as_such(server, connect):
    policy = connect(server)
    server.max_model_len = 20
    with pytest.raises(ContextOverflow, match=r"maximum context length is 20.*--max-model-len"):
        ask(policy, turn())


def test_a_row_that_leaves_no_room_beside_it_is_not_scored(server, connect):
    policy = connect(server)
    rows = [[20] * 511, [20] * 512]
    assert len(asyncio.run(policy.score(rows[:1], [500]))[0]) == 11
    with pytest.raises(ContextOverflow, match="512 tokens is to be scored"):
        asyncio.run(policy.score(rows, [500, 500]))


# Weights ----------------------------------------------------------------------------------------


def test_a_server_that_was_restarted_is_given_its_weights_again(
    server, connect, model, tokenizer, tmp_path
):
    policy = connect(server)
    policy.load(changed_folder(model, tokenizer, tmp_path / "v1"), 1)
    (expected,) = ask(policy, turn())
    server.restart()
    server.faults = ["drop"]
    (sample,) = ask(policy, turn())
    assert sample == replace(expected, faults=1)
    assert sum(path == "/collective_rpc" and bool(body) for path, body in server.requests) == 2


def test_a_restart_that_nobody_saw_is_noticed_after_a_silence(
    server, connect, model, tokenizer, tmp_path, monkeypatch
):
    policy = connect(server)
    policy.load(changed_folder(model, tokenizer, tmp_path / "v1"), 1)
    (expected,) = ask(policy, turn())
    server.restart()
    monkeypatch.setattr(vllm_replica, "_RESTART_S", 0.0)
    assert ask(policy, turn())[0] == expected


def test_a_turn_that_takes_long_holds_up_no_other_and_no_tokens_are_scored_beside_it(
    server, connect, monkeypatch
):
    policy = connect(server)  # it takes adapters, and scores rows alone
    server.runs.clear()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ask, policy, turn("a"))
        within(5, lambda: server.in_flight == 1)
        monkeypatch.setattr(vllm_replica, "_RESTART_S", 0.0)  # as if it were silent for longer
        asked = len(server.requests)
        second = threads.submit(ask, policy, turn("b"))
        try:
            within(5, lambda: server.in_flight == 2)
        finally:
            server.runs.set()
        assert len(server.requests) == asked + 1
        assert [first.result()[0].faults, second.result()[0].faults] == [0, 0]


def test_a_server_that_scores_beside_turns_is_asked_for_its_fingerprint_beside_them(
    serve_fake, served, connect, monkeypatch
):
    server = serve_fake(served, lora=False)
    policy = connect(server)
    server.runs.clear()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ask, policy, turn("a"))
        within(5, lambda: server.in_flight == 1)
        monkeypatch.setattr(vllm_replica, "_RESTART_S", 0.0)  # as if it were silent for longer
        asked = len(server.requests)
        second = threads.submit(ask, policy, turn("b"))
        try:
            within(5, lambda: server.in_flight == 2)
            ((_, fingerprint),) = server.requests[asked:]
        finally:
            server.runs.set()
        assert fingerprint.get("prompt_logprobs") is not None
        assert [first.result()[0].faults, second.result()[0].faults] == [0, 0]


def test_a_restarted_server_with_another_model_is_not_believed(server, connect, model, tokenizer):
    policy = connect(server)
    with torch.no_grad():
        for parameter in server.model.parameters():
            parameter += 0.05
    server.faults = ["drop"]
    with pytest.raises(StaleWeightsError, match="given none to load again"):
        ask(policy, turn())


def test_a_restarted_server_that_does_not_take_its_weights_is_not_believed(
    server, connect, model, tokenizer, tmp_path
):
    policy = connect(server)
    policy.load(changed_folder(model, tokenizer, tmp_path / "v1"), 1)
    server.restart()
    server.deaf = True
    server.faults = ["drop"]
    with pytest.raises(StaleWeightsError, match=r"version 1 again it does not answer as before"):
        ask(policy, turn())


def test_weights_that_are_not_there_are_never_asked_for(server, connect, tmp_path):
    policy = connect(server)
    with pytest.raises(DataError, match=r"has no config.json"):
        policy.load(str(tmp_path / "nothing"), 1)
    assert not server.broken
    assert policy.version == 0


def test_a_server_that_breaks_while_it_loads_says_so(server, connect, tmp_path):
    policy = connect(server)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')  # and no weights
    with pytest.raises(ServerError, match="answered 500"):
        policy.load(str(tmp_path), 1)


def within(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("way", ["disk", "lora"])
def test_weights_wait_for_turns_under_way_and_the_next_turns_for_the_weights(
    way, server, connect, adapter, model, tokenizer, tmp_path
):
    policy = connect(server, way=way)
    if way == "lora":
        path, _ = adapter(tmp_path / "v1", 0.05)
    else:
        path = changed_folder(model, tokenizer, tmp_path / "v1")
    (expected,) = ask(policy, turn("a"))
    server.latency = 0.3
    before = len(server.requests)
    with ThreadPoolExecutor() as threads:
        under_way = threads.submit(ask, policy, turn("a"))
        within(5, lambda: server.in_flight == 1)
        loading = threads.submit(policy.load, path, 1)
        time.sleep(0.05)
        (second,) = threads.submit(ask, policy, turn("b")).result()
        loading.result()
        assert under_way.result() == [expected]
    assert (expected.version, second.version, policy.version) == (0, 1, 1)
    paths = [path for path, body in server.requests[before:] if "prompt_logprobs" not in body]
    route = "/collective_rpc" if way == "disk" else vllm_replica._LOAD
    turns_before = paths[: paths.index(route)].count("/v1/completions")
    assert turns_before == 1  # that which was under way, and not the next one
    assert server.completions()[-1]["cache_salt"] == "v1"


def test_a_server_that_was_away_when_weights_came_has_them_when_it_is_back(
    serve_fake, served, connect, model, tokenizer, tmp_path
):
    first, second = (serve_fake(served) for _ in range(2))
    policy = connect(first, second, patience=0.0)
    (moved,) = ask(policy, turn("a"))
    assert len(first.completions()) == 1
    first.gone = True
    (again,) = ask(policy, turn("a"))
    assert again == replace(moved, faults=1)
    policy.load(changed_folder(model, tokenizer, tmp_path / "v1"), 1)
    (newer,) = ask(policy, turn("a"))
    first.restart()
    first.gone = False
    replicas = policy._fleet.replicas
    within(20, lambda: not replicas[0].away)
    asked = len(first.completions())
    (there,) = ask(policy, turn("b", seed=turn("a").seed))
    assert len(first.completions()) == asked + 1
    assert there == replace(newer, faults=0)
    assert there.version == 1


@pytest.fixture
def adapter(tokenizer, model_of):
    """Writes an adapter that changes answers."""
    from agentgym.trainers.lora import LoraOptions, add_adapter, save_adapter

    adapted = model_of("llama")
    add_adapter(adapted, LoraOptions(rank=4), seed=0)

    def write(path, by):
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(by)
        save_adapter(adapted, path)
        policy = HFPolicy(adapted, tokenizer)
        return str(path), policy

    return write


def test_each_version_of_an_adapter_has_a_name_of_its_own_and_the_last_one_leaves(
    server, connect, adapter, tmp_path
):
    policy = connect(server, way="lora")
    names = []
    for version, by in ((1, 0.05), (2, -0.05)):
        path, here = adapter(tmp_path / f"v{version}", by)
        policy.load(path, version)
        (name,) = server.adapters
        names.append(name)
        assert name.endswith(f"-v{version}")
        rows = asyncio.run(here.score(policy.probe, [1, 1]))
        assert vllm_replica.farthest(policy.fingerprints()[server.url], rows) < 1e-4
        ask(policy, turn())
        assert server.completions()[-1]["model"] == name
    assert len(set(names)) == 2
    policy.close()
    assert server.adapters == {}


def test_an_adapter_that_cannot_be_loaded_leaves_the_one_before(server, connect, adapter, tmp_path):
    policy = connect(server, way="lora")
    policy.load(adapter(tmp_path / "v1", 0.05)[0], 1)
    (first,) = server.adapters
    path, _ = adapter(tmp_path / "v2", -0.05)
    weights = (tmp_path / "v2" / "adapter_model.safetensors").rename(tmp_path / "weights")
    with pytest.raises(ServerError, match="No adapter found"):
        policy.load(path, 2)
    assert list(server.adapters) == [first]
    weights.rename(tmp_path / "v2" / "adapter_model.safetensors")
    policy.load(path, 2)
    assert [name[-2:] for name in server.adapters] == ["v2"]
    ways = [path for path, body in server.requests if "lora_name" in body]
    assert ways[-2:] == [vllm_replica._LOAD, vllm_replica._UNLOAD]


def test_an_adapter_whose_loading_was_lost_is_loaded_once_more(
    server, connect, adapter, tmp_path, monkeypatch, fake_vllm
):
    policy = connect(server, way="lora")
    load, lost = type(server).load_adapter, ["once"]

    def lose(self, body):
        said = load(self, body)
        if lost:
            lost.clear()
            raise fake_vllm.Refusal(500, "it is loaded, and nobody is told")
        return said

    monkeypatch.setattr(type(server), "load_adapter", lose)
    policy.load(adapter(tmp_path / "v1", 0.05)[0], 1)
    assert len(server.adapters) == 1
    assert policy.version == 1


def test_an_adapter_that_vanished_is_loaded_again(server, connect, adapter, tmp_path):
    policy = connect(server, way="lora")
    policy.load(adapter(tmp_path / "v1", 0.05)[0], 1)
    (expected,) = ask(policy, turn())
    server.restart()  # unseen: the next thing is that nobody knows the adapter
    assert ask(policy, turn())[0] == replace(expected, faults=1)


# What is refused at the door --------------------------------------------------------------------


def refused(connect, *servers, error=ServerError, **options):
    with pytest.raises(error) as caught:
        connect(*servers, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_place_where_nothing_answers(connect):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        message = refused(connect, url)
    assert f"nothing answers at {url}; start a server with agentgym serve" in message


def test_a_server_that_is_no_vllm(connect, server, monkeypatch):
    monkeypatch.setattr(type(server), "get", lambda self, path: {"hello": "world"})
    message = refused(connect, server)
    assert f"{server.url} answers, but is no vLLM server" in message
    assert "agentgym serve, or vllm serve" in message


def test_a_vllm_that_is_too_old(connect, server):
    server.version = "0.15.1"
    message = refused(connect, server)
    assert "is vLLM 0.15.1; 0.16 or later is needed" in message
    for newer in ("0.16.0", "1.0.0rc1", "0.1.dev1+gabcdef"):
        server.version = newer
        connect(server)


def test_a_model_that_the_server_does_not_have(connect, server):
    message = refused(connect, server, model="other")
    assert "has no model 'other'; it has: tiny. Set policy.server.model" in message


def test_of_several_models_one_must_be_named_and_a_model_may_have_several_names(
    connect, server, monkeypatch
):
    cards = [
        {"id": "tiny", "root": "a", "max_model_len": 512},
        {"id": "also-tiny", "root": "a", "max_model_len": 512},
        {"id": "adapter", "root": "b", "parent": "tiny"},
    ]
    get = type(server).get

    def answer(self, path):
        return {"data": cards} if path == "/v1/models" else get(self, path)

    monkeypatch.setattr(type(server), "get", answer)
    assert connect(server).max_context == 512
    cards.append({"id": "large", "root": "c", "max_model_len": 9})
    message = refused(connect, server)
    assert "has several models: tiny, also-tiny, large. Set policy.server.model" in message
    assert connect(server, model="tiny").max_context == 512


@pytest.mark.parametrize(
    "card", [{"id": "x"}, {"max_model_len": 5}, {"id": "x", "max_model_len": None}, 5]
)
def test_a_list_of_models_that_is_none_is_refused(card, connect, server, monkeypatch):
    get = type(server).get

    def answer(self, path):
        return {"data": [card]} if path == "/v1/models" else get(self, path)

    monkeypatch.setattr(type(server), "get", answer)
    assert "answered no list of vLLM's models" in refused(connect, server)


def test_a_server_that_takes_the_call_and_says_nothing_is_not_waited_for(connect, monkeypatch):
    monkeypatch.setattr(vllm_replica, "_HEALTH_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert f"nothing answers at {url}" in refused(connect, url, timeout=60.0)


def test_nothing_is_near_to_what_is_not_finite():
    farthest = vllm_replica.farthest
    assert farthest([[1.0, 2.0]], [[1.5, 2.0]]) == 0.5
    for odd in (float("nan"), float("inf"), float("-inf")):
        assert farthest([[1.0, odd, 3.0]], [[1.0, odd, 3.0]]) == float("inf")
        assert farthest([[odd, 1.0]], [[0.0, 1.0]]) == float("inf")


def test_a_server_without_the_flags_that_let_it_take_weights(connect, server):
    server.dev = server.lora = False
    assert "start it with VLLM_SERVER_DEV_MODE=1 in its environment" in refused(connect, server)
    message = refused(connect, server, way="lora")
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment and --enable-lora" in message
    assert "sync=disk" not in message
    server.dev = True
    assert "which it takes: policy.server.sync=disk" in refused(connect, server, way="lora")


def test_a_server_that_tells_probabilities_of_another_temperature(serve_fake, served, connect):
    policy = connect(serve_fake(served, processed=False))
    ask(policy, turn(temperature=1.0))
    ask(policy, turn(temperature=0.0))
    for refuse in (
        lambda: ask(policy, turn(temperature=0.7)),
        lambda: policy.check_temperature(0.4),
    ):
        with pytest.raises(UsageError, match="--logprobs-mode processed_logprobs"):
            refuse()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "given as http://HOST:PORT"),
        ("ftp://host", "given as http://HOST:PORT"),
        ("http://host:abc", "given as http://HOST:PORT"),
        ("http://host:99999", "given as http://HOST:PORT"),
        ("http://[::1", "given as http://HOST:PORT"),
        ("http://", "given as http://HOST:PORT"),
        ("http://me:hunter2@host", "set the environment variable VLLM_API_KEY"),
        ("me:hunter2@host", "set the environment variable VLLM_API_KEY"),
        ("http://me:hunter2@[::1", "set the environment variable VLLM_API_KEY"),
        ("http://host:1/?api_key=hunter2", "set the environment variable VLLM_API_KEY"),
        ("http://host:1/#hunter2", "set the environment variable VLLM_API_KEY"),
    ],
)
def test_a_url_that_is_none_or_tells_a_secret(url, message, connect):
    said = refused(connect, url, error=UsageError)
    assert message in said
    assert "hunter2" not in said


def test_no_url_at_all(connect):
    assert "no server is named" in refused(connect, error=UsageError)


def test_a_key_is_taken_from_the_environment_sent_and_never_said(
    server, connect, monkeypatch, caplog
):
    server.api_key = "hunter2"
    caplog.set_level(logging.DEBUG)
    missing = refused(connect, server)
    assert "answered 401" in missing
    assert "$VLLM_API_KEY" in missing
    monkeypatch.setenv("VLLM_API_KEY", "hunter2")
    policy = connect(server, patience=0.0)
    ask(policy, turn())
    assert server.headers_seen[-1]["Authorization"] == "Bearer hunter2"
    server.faults = ["drop"] * 3
    with pytest.raises(ServerError) as caught:
        ask(policy, turn())
    assert "hunter2" not in str(caught.value) + caplog.text + repr(vars(policy))
