"""A chat endpoint as a policy, against a small server of this machine."""

import asyncio
import json
import ssl
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agentgym.cli import main
from agentgym.errors import ServerError, UsageError
from agentgym.evaluate import EvalOptions, evaluate_endpoint
from agentgym.policies.openai import Endpoint, EndpointOptions
from agentgym.policies.prompt import load_prompt
from agentgym.results import read_results
from agentgym.types import EnvSpec, Stop, Usage, View

SECRET = "sk-do-not-tell-0123456789"
CORRIDOR = EnvSpec("corridor", {"suite": "corridor/test"})
TAGS = load_prompt("corridor", "tags", "full")
COUNTED = {
    "prompt_tokens": 100,
    "completion_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 4},
}

Reply = tuple[int, dict[str, str], Any] | None  # status, headers, body; None hangs up


def said(content: str | None, **more: Any) -> Reply:
    message = {"role": "assistant", "content": content, **more}
    return 200, {}, {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m", "usage": COUNTED,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }  # fmt: skip


def refused(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    return status, headers, {"error": {"message": message, "code": code, "type": "t"}}


class ChatServer(ThreadingHTTPServer):
    """Answers requests from a list, then with a function of the request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.replies: list[Reply] = []
        self.then: Callable[[dict[str, Any]], Reply] = lambda _: said(
            "<think>hm</think><action>red</action>"
        )
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_anything: object) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append(body)
        server.keys.append(self.headers["Authorization"])
        assert self.path == "/v1/chat/completions"
        reply = server.replies.pop(0) if server.replies else server.then(body)
        if reply is None:
            self.close_connection = True
            return
        status, headers, content = reply
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)


@pytest.fixture(scope="session")
def certificates() -> ssl.SSLContext:
    """What a client knows of certificates; reading them takes a fifth of a second."""
    return ssl.create_default_context()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, certificates: ssl.SSLContext) -> Iterator[ChatServer]:
    monkeypatch.setattr("httpcore2.default_ssl_context", lambda **_options: certificates)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with ChatServer() as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def view(turn: int = 0, observation: str = "doors red blue") -> View:
    return View(observation, "follow red", turn, ("red", "blue"), None)


def talk(
    server: ChatServer, turns: int = 1, context: str = "full", style: str = "tags", **options: Any
) -> Any:
    """Let an episode answer some views; return it, its answers, and the pauses that were made."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> Any:
        endpoint = Endpoint(EndpointOptions(model="m", url=server.url, **options), sleep)
        async with endpoint:
            episode = endpoint.begin(load_prompt("corridor", style, context), "s")
            return episode, [await episode.answer(view(n, f"see {n}")) for n in range(turns)]

    return (*asyncio.run(run()), pauses)


# What is sent -------------------------------------------------------------------------------------


def test_a_conversation_that_grows_is_sent_whole_and_a_window_is_retold(server: ChatServer) -> None:
    talk(server, turns=3)
    roles = [[one["role"] for one in request["messages"]] for request in server.requests]
    start = len(roles[0])
    assert [len(one) for one in roles] == [start, start + 2, start + 4]
    assert server.requests[2]["messages"][-2]["content"] == "<think>hm</think><action>red</action>"
    assert "see 2" in server.requests[2]["messages"][-1]["content"]
    server.requests.clear()
    talk(server, turns=3, context="window(1)")
    assert [len(request["messages"]) for request in server.requests] == [start] * 3
    last = server.requests[2]["messages"][-1]["content"]
    assert "see 1" in last
    assert "see 0" not in last


def test_fields_are_sent_replaced_or_left_out(server: ChatServer) -> None:
    talk(server, temperature=0.7, max_tokens=9)
    talk(server, request={"seed": None, "max_tokens": None, "reasoning_effort": "low"})
    first, second = server.requests
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0.7, 9)
    assert {"seed", "max_tokens"}.isdisjoint(second)
    assert second["reasoning_effort"] == "low"


def test_seeds_are_a_function_of_episode_and_turn(server: ChatServer) -> None:
    talk(server, turns=2)
    talk(server, turns=2)
    seeds = [request["seed"] for request in server.requests]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    assert all(0 <= seed < 2**31 for seed in seeds)


# What is answered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_that_is_told_apart_is_kept_and_not_sent_back(
    server: ChatServer, field: str
) -> None:
    thought = "either </think> <action>blue</action>?"
    server.replies = [said("<action>red</action>", **{field: thought})]
    _, (first, _), _ = talk(server, turns=2)
    assert first.text == f"<think>{thought}</think><action>red</action>"
    assert (first.action, first.error) == ("red", None)
    assert server.requests[1]["messages"][-2]["content"] == "<action>red</action>"


@pytest.mark.parametrize(
    "reasoning", [5, True, {"effort": "low"}, {"text": "why"}, [5], []], ids=str
)
def test_reasoning_of_another_shape_is_none(server: ChatServer, reasoning: Any) -> None:
    text = "<think>hm</think><action>red</action>"
    server.then = lambda _: said(text, reasoning=reasoning)
    episode, (answer,), _ = talk(server)
    assert (answer.text, answer.action, episode.faults) == (text, "red", 0)


def test_reasoning_of_another_shape_hides_none_under_the_other_name(server: ChatServer) -> None:
    server.replies = [said("<action>red</action>", reasoning={"a": 1}, reasoning_content="why")]
    _, (answer,), _ = talk(server)
    assert answer.text == "<think>why</think><action>red</action>"


@pytest.mark.parametrize("content", ["red", "", None])
def test_an_answer_without_the_format_is_a_parse_error(
    server: ChatServer, content: str | None
) -> None:
    server.replies = [said(content)]
    _, (answer,), _ = talk(server)
    assert (answer.action, answer.error) == ("", "there is no <think>")


def test_usage_is_counted_and_costs_come_from_prices_or_the_endpoint(server: ChatServer) -> None:
    episode, _, _ = talk(server, turns=2)
    assert episode.usage == Usage(2, 200, 120, 20, 8, None)
    # 2 x (100 x 1.5 + 10 x 6) / 1,000,000 = 2 x 210 / 1,000,000
    episode, _, _ = talk(server, turns=2, prices=(1.5, 6.0))
    assert episode.usage.cost == pytest.approx(4.2e-4)
    reply = said("x")
    assert reply is not None
    server.replies = [(200, {}, reply[2] | {"usage": {"cost": 0.25}})]
    episode, _, _ = talk(server)
    assert episode.usage == Usage(1, 0, 0, 0, 0, 0.25)


# Tools --------------------------------------------------------------------------------------------


def called(*calls: Any, content: str | None = None, **more: Any) -> Reply:
    listed = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return said(content, tool_calls=listed, **more)


RED = ("act", '{"action": "red"}')


def test_a_call_is_an_action_and_what_it_brought_is_the_tools_answer(server: ChatServer) -> None:
    server.then = lambda _: called(RED, reasoning="red it is")
    _, answers, _ = talk(server, turns=2, style="tools")
    assert [(one.action, one.error) for one in answers] == [("red", None)] * 2
    text = '<think>red it is</think><tool_call>{"name": "act", "arguments": {"action": "red"}}'
    assert answers[0].text == f"{text}</tool_call>"
    first, second = server.requests
    (tool,) = first["tools"]
    assert tool["function"]["name"] == "act"
    assert first["parallel_tool_calls"] is False
    assert "<action>" not in first["messages"][-1]["content"]
    call, reply = second["messages"][-2:]
    assert (call["role"], call["content"]) == ("assistant", None)
    assert call["tool_calls"][0]["function"] == {"name": "act", "arguments": '{"action": "red"}'}
    assert (reply["role"], reply["tool_call_id"]) == ("tool", "call_0")
    assert "see 1" in reply["content"]


def test_a_context_that_is_rebuilt_tells_what_was_called_as_an_action(server: ChatServer) -> None:
    server.then = lambda _: called(RED)
    talk(server, turns=3, style="tools", context="window(1)")
    messages = server.requests[2]["messages"]
    assert [one["role"] for one in messages] == ["user"]
    assert "Action 2: 'red'" in messages[0]["content"]
    assert server.requests[2]["tools"]


def test_an_answer_without_a_call_is_followed_by_a_message(server: ChatServer) -> None:
    server.replies = [said("red")]
    server.then = lambda _: called(RED)
    _, (first, second), _ = talk(server, turns=2, style="tools")
    assert (first.action, first.error) == ("", "there is no tool call")
    assert second.action == "red"
    assert [one["role"] for one in server.requests[1]["messages"]] == ["user", "assistant", "user"]


def test_each_of_several_calls_is_answered_and_none_is_taken(server: ChatServer) -> None:
    server.replies = [called(RED, ("act", '{"action": "blue"}'), content="both!")]
    server.then = lambda _: called(RED)
    _, (first, _), _ = talk(server, turns=2, style="tools")
    assert (first.action, first.error) == ("", "there are 2 tool calls, expected one")
    sent = server.requests[1]["messages"][-3:]
    assert sent[0]["content"] == "both!"
    assert [one["tool_call_id"] for one in sent[1:]] == ["call_0", "call_1"]


@pytest.mark.parametrize(
    "calls", [[{"id": "1"}], ["act"], "act", {"a": 1}, [{"function": {"name": 1}}], [[]], [None]]
)
def test_calls_of_any_shape_are_a_parse_error_and_go_back_as_text(
    server: ChatServer, calls: Any
) -> None:
    server.replies = [said(None, tool_calls=calls)]
    server.then = lambda _: called(RED)
    _, (first, second), _ = talk(server, turns=2, style="tools")
    assert first.action == ""
    assert first.error == "the tool call has no function with a name and arguments"
    assert second.action == "red"
    assert "<tool_call>" in server.requests[1]["messages"][1]["content"]


def test_halves_of_characters_in_a_call_are_sent_as_question_marks(server: ChatServer) -> None:
    server.then = lambda _: called(("act", '{"action": "red\ud83d"}'))
    talk(server, turns=2, style="tools")
    (call,) = server.requests[1]["messages"][1]["tool_calls"]
    assert call["function"]["arguments"] == '{"action": "red?"}'


def test_calls_that_were_not_asked_for_are_not_read(server: ChatServer) -> None:
    server.replies = [called(RED, content="<think>hm</think><action>blue</action>")]
    _, (answer, _), _ = talk(server, turns=2)
    assert answer.action == "blue"
    assert "tools" not in server.requests[0]
    assert "tool_calls" not in server.requests[1]["messages"][1]


# What goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        refused(429, "slow down"),
        refused(500, "oops"),
        refused(503, "busy"),
        None,
        (200, {"Content_Type": "text/html"}, b"<html>"),
        (200, {}, b"{no json"),
        (200, {}, {"choices": []}),
        refused(200, "upstream is gone"),
    ],
    ids=["429", "500", "503", "hung up", "a page", "no json", "no choices", "error in a 200"],
)
def test_what_may_pass_is_tried_again_and_counted_as_a_healed_fault(
    server: ChatServer, reply: Reply
) -> None:
    server.replies = [reply, reply]
    episode, (answer,), pauses = talk(server)
    assert answer.action == "red"
    assert episode.faults == 2
    assert 0.5 <= pauses[0] <= 1.0
    assert 1.0 <= pauses[1] <= 2.0
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": {"0": 1}},
        {"choices": ["x"]},
        {"choices": 5},
        {"choices": [{"message": "go"}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": {"text": "go"}}}]},
        b"[" * 100_000,
        [],
        5,
    ],
    ids=lambda answer: str(answer)[:50],
)
def test_an_answer_of_another_shape_is_tried_again(server: ChatServer, answer: Any) -> None:
    server.replies = [(200, {}, answer)]
    episode, (parsed,), _ = talk(server)
    assert (parsed.action, episode.faults) == ("red", 1)


def test_the_parts_of_an_answer_are_one_text(server: ChatServer) -> None:
    parts = [
        {"type": "text", "text": "<think>why</think>"},
        {"type": "image", "image": 5},
        "x",
        {"type": "text", "text": "<action>blue</action>"},
    ]
    server.replies = [(200, {}, {"choices": [{"message": {"content": parts}}]})]
    assert talk(server)[1][0].action == "blue"


@pytest.mark.parametrize(
    "usage",
    [5, "x", [1], {"prompt_tokens": "x"}, {"prompt_tokens": -1}, {"completion_tokens": []},
     {"prompt_tokens_details": 5}, {"prompt_tokens_details": {"cached_tokens": {}}},
     {"cost": "much"}, {"cost": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_usage_that_is_none_counts_as_nothing(server: ChatServer, usage: Any) -> None:
    reply = said("<think>x</think><action>red</action>")
    assert reply is not None
    server.replies = [(200, {}, reply[2] | {"usage": usage})]
    episode, _, _ = talk(server)
    assert episode.usage == Usage(requests=1)


def test_a_pause_that_the_endpoint_asks_for_is_kept(server: ChatServer) -> None:
    server.replies = [refused(429, "slow down", Retry_After="17")]
    assert talk(server)[2] == [17.0]


def test_what_does_not_pass_ends_after_some_attempts(server: ChatServer) -> None:
    server.then = lambda _: refused(500, "oops")
    with pytest.raises(ServerError, match=r"no answer in 8 attempts: status 500: .*oops"):
        talk(server)
    assert len(server.requests) == 8


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_another_refusal_is_final_and_never_tells_the_key(server: ChatServer, status: int) -> None:
    server.then = lambda _: refused(status, f"wrong key {SECRET}\nor so")
    with pytest.raises(ServerError, match=rf"refused, with status {status}: .*wrong key \*\*\*"):
        talk(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        refused(400, "too long", "context_length_exceeded"),
        refused(400, "This model's maximum context length is 10 tokens."),
    ],
)
def test_a_conversation_that_is_too_long_ends_the_episode(server: ChatServer, reply: Reply) -> None:
    server.replies = [reply]
    assert talk(server)[1] == [None]


@pytest.mark.parametrize(
    "url",
    [
        "http://user:word@host/v1",
        "http://host/v1?key=word",
        "host/v1",
        "ftp://host",
        "http://h:abc",
        "http://[::1",
    ],
)
def test_a_url_that_is_none_or_carries_a_secret_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        Endpoint(EndpointOptions(model="m", url=url))
    assert "word" not in str(raised.value).replace("password", "")


def test_openai_itself_is_not_asked_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UsageError, match="set the environment variable OPENAI_API_KEY"):
        Endpoint(EndpointOptions(model="m"))


# Evaluation ---------------------------------------------------------------------------------------


def follow(request: dict[str, Any]) -> Reply:
    """Answer as who reads the goal does; go back out of a dead end."""
    told = [one["content"] for one in request["messages"]]
    colour = next(text for text in told if "follow " in text).partition("follow ")[2].split()[0]
    action = "back" if "dead end" in told[-1] else colour.strip(".")
    return said(f"<action>{action}</action>", reasoning="I follow it")


def test_a_suite_is_evaluated_with_usage_and_without_the_key(
    server: ChatServer, tmp_path: Path
) -> None:
    server.then = follow
    endpoint = Endpoint(EndpointOptions(model="m", url=server.url, prices=(1.0, 1.0)))
    whole = evaluate_endpoint(CORRIDOR, endpoint, TAGS, EvalOptions(tasks=8), folder=tmp_path)
    assert whole.summary.success.value == 1.0
    assert whole.summary.usage is not None
    assert whole.summary.usage.requests == len(server.requests)
    assert set(server.keys) == {f"Bearer {SECRET}"}
    assert (whole.protocol.policy, whole.protocol.endpoint) == ("m", server.url)
    assert whole.protocol.prompt == TAGS.digest
    assert read_results(tmp_path) == whole
    for path in tmp_path.iterdir():
        assert SECRET.encode() not in path.read_bytes()


def test_a_refusal_ends_the_evaluation_keeps_what_is_finished_and_goes_on(
    server: ChatServer, tmp_path: Path
) -> None:
    def some(request: dict[str, Any]) -> Reply:
        return follow(request) if len(server.requests) < 12 else refused(402, "no credit")

    server.then = some
    options = EvalOptions(tasks=8, at_once=2)

    def run() -> Any:
        endpoint = Endpoint(EndpointOptions(model="m", url=server.url))
        return evaluate_endpoint(CORRIDOR, endpoint, TAGS, options, folder=tmp_path)

    with pytest.raises(ServerError, match="no credit"):
        run()
    kept = (tmp_path / "episodes.jsonl").read_text().count("\n")
    assert 1 <= kept < 8
    server.requests.clear()
    server.then = follow
    whole = run()
    assert whole.summary.success.won == 8
    assert len(server.requests) == sum(episode.turns for episode in whole.episodes[kept:])


def test_an_episode_that_is_too_long_is_told_as_such(server: ChatServer) -> None:
    server.then = lambda _: refused(400, "too long", "context_length_exceeded")
    endpoint = Endpoint(EndpointOptions(model="m", url=server.url))
    whole = evaluate_endpoint(CORRIDOR, endpoint, TAGS, EvalOptions(tasks=2))
    assert [episode.stop for episode in whole.episodes] == [Stop.TOKENS] * 2


def test_the_command_evaluates_an_endpoint(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    server.then = follow

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentgym", "eval", "--suite", "corridor/test", *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        return (exit_.value.code or 0, *capsys.readouterr())

    remote = ("--policy", "openai", "--base-url", server.url)
    code, out, err = run(
        *remote, "--model", "m", "-n", "4", "--request", "seed=none", "--request", "top_p=0.9",
        "--prices", "1,2", "-o", str(tmp_path),
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "4/4" in out
    assert "endpoint: requests " in out
    assert "cost 0.00" in out
    assert server.requests[0]["top_p"] == 0.9
    assert "seed" not in server.requests[0]
    for words, says in (
        (remote, "which model of the endpoint"),
        (("--policy", "random", "--base-url", "x"), "belong to --policy openai"),
        ((*remote, "--model", "m", "--prices", "1"), "--prices takes two numbers"),
    ):
        code, _, err = run(*words)
        assert (code, says in err) == (2, True)
    server.then = lambda _: refused(401, "who are you")
    code, _, err = run(*remote, "--model", "m", "-n", "1")
    assert (code, err.count("\n")) == (1, 1)
    assert "the key is read from OPENAI_API_KEY" in err


def test_the_command_evaluates_an_endpoint_that_calls_tools(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def follow_by_call(request: dict[str, Any]) -> Reply:
        reply = follow(request)
        assert reply is not None
        content = reply[2]["choices"][0]["message"]["content"]
        action = content.removeprefix("<action>").removesuffix("</action>")
        return called(("act", json.dumps({"action": action})))

    server.then = follow_by_call
    words = ["--policy", "openai", "--base-url", server.url, "--model", "m", "--template", "tools"]
    command = ["agentgym", "eval", "--suite", "corridor/test", "-n", "4", *words]
    monkeypatch.setattr(sys, "argv", [*command, "-o", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code in (0, None)
    out, err = capsys.readouterr()
    assert err == ""
    assert "4/4" in out
    prompt = load_prompt("corridor", "tools", "full")
    assert read_results(tmp_path).protocol.prompt == prompt.digest
    assert {one["role"] for one in server.requests[-1]["messages"]} >= {"assistant", "tool"}


def test_halves_of_characters_are_sent_as_question_marks(server: ChatServer) -> None:
    async def run() -> None:
        async with Endpoint(EndpointOptions(model="m", url=server.url)) as endpoint:
            episode = endpoint.begin(load_prompt("corridor", "tags", "full"), "s")
            await episode.answer(view(0, "a cup\ud83d 1"))

    asyncio.run(run())
    (request,) = server.requests
    assert "a cup? 1" in request["messages"][-1]["content"]
