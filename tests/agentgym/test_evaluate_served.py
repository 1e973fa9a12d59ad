"""``agentgym eval`` of a model that a server answers for, with another program in vLLM's place."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentgym.policies import vllm_replica


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_replica, "_FIRST_WAIT_S", 0.02)


@pytest.fixture
def server(serve_fake: Any, corridor_model: Path) -> Any:
    return serve_fake(corridor_model, name="random", max_model_len=256)


def eval_of(model: Path, *more: object) -> tuple[object, ...]:
    suite = ("--suite", "corridor/test", "-n", 4, "--max-turns", 3)
    return ("eval", *suite, "--model", model, "--max-tokens", 3, *more)


def results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def test_greedy_a_served_model_plays_as_it_does_in_this_process(
    agentgym: Any, server: Any, corridor_model: Path, tmp_path: Path
) -> None:
    greedy = eval_of(corridor_model, "--temperature", 0, "-o")
    assert agentgym(*greedy, tmp_path / "here").code == 0
    ran = agentgym(*greedy, tmp_path / "there", "--server", server.url)
    assert ran.code == 0, ran.err
    here, there = results(tmp_path / "here"), results(tmp_path / "there")
    assert there["episodes"] == here["episodes"]
    assert len(server.completions()) == sum(e["turns"] for e in there["episodes"]) > 0
    # Nobody here knows which weights the server has; it has been given none.
    assert there["protocol"]["endpoint"] == server.url
    assert there["protocol"]["weights"] is None
    assert there["protocol"]["tokenizer"] == here["protocol"]["tokenizer"] is not None
    assert there["protocol"]["sampling"]["max_context"] == 256
    assert not [body for path, body in server.requests if path == "/collective_rpc"]


def test_episodes_are_shared_out_among_several_servers(
    agentgym: Any, server: Any, serve_fake: Any, corridor_model: Path
) -> None:
    other = serve_fake(corridor_model, name="random", max_model_len=256)
    ran = agentgym(*eval_of(corridor_model, "--server", server.url, "--server", other.url))
    assert ran.code == 0, ran.err
    assert server.completions()
    assert other.completions()


def test_a_server_that_was_started_without_any_flag_will_do(
    agentgym: Any, serve_fake: Any, corridor_model: Path
) -> None:
    """It takes no weights, and its log-probabilities are those of temperature 1."""
    plain = serve_fake(
        corridor_model, name="random", max_model_len=256, processed=False, dev=False, lora=False
    )
    ran = agentgym(*eval_of(corridor_model, "--server", plain.url, "--temperature", 0.4))
    assert ran.code == 0, ran.err
    assert {body["temperature"] for body in plain.completions()} == {0.4}


def test_no_more_episodes_than_wanted_are_played_at_the_same_time(
    agentgym: Any, server: Any, corridor_model: Path
) -> None:
    server.latency = 0.02
    asked = eval_of(corridor_model, "--server", server.url, "--at-once")
    assert agentgym(*asked, 1).code == 0
    assert server.most_in_flight == 1
    assert agentgym(*asked, 3).code == 0
    assert 1 < server.most_in_flight <= 3


def test_an_evaluation_with_a_server_of_its_own_tells_the_weights_and_no_address(
    agentgym: Any, vllm: Path, corridor_model: Path, tmp_path: Path
) -> None:
    greedy = eval_of(corridor_model, "--temperature", 0, "-o")
    ran = agentgym(*greedy, tmp_path / "there", "--vllm", vllm)
    assert ran.code == 0, ran.err
    assert "starting vLLM at" in ran.err
    assert "vLLM" not in ran.out  # a pipe gets the result alone
    assert agentgym(*greedy, tmp_path / "here").code == 0
    here, there = results(tmp_path / "here"), results(tmp_path / "there")
    assert there["episodes"] == here["episodes"]
    assert there["protocol"]["weights"] == here["protocol"]["weights"] is not None
    assert there["protocol"]["endpoint"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--server", "http://127.0.0.1:1", "--serve"), "choose one"),
        (("--server", "http://127.0.0.1:1"), "nothing answers at http://127.0.0.1:1"),
        (("--server", "127.0.0.1:1"), "a server is given as http://HOST:PORT"),
        (("--vllm", "/nowhere/vllm"), "--vllm is '/nowhere/vllm', no program"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    agentgym: Any, corridor_model: Path, words: tuple[str, ...], message: str
) -> None:
    ran = agentgym(*eval_of(corridor_model, *words))
    assert ran.code != 0
    assert message in ran.err


def test_a_server_is_for_a_model_and_no_scripted_policy(agentgym: Any) -> None:
    ran = agentgym("eval", "--env", "corridor", "--policy", "random", "--serve")
    assert ran.code == 2
    assert "are for --model NAME without --policy" in ran.err


def test_a_server_of_a_smaller_model_is_refused(agentgym: Any, server: Any) -> None:
    """Its tokens are not those that the tokenizer makes."""
    suite = ("--suite", "alfworld/gen-unseen", "-n", 1, "--model", "alfworld-tiny")
    ran = agentgym("eval", *suite, "--server", server.url)
    assert ran.code != 0
    assert "out of vocabulary" in ran.err
