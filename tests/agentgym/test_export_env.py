"""An environment is written for OpenEnv and for verifiers, and these play it."""

import asyncio
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agentgym.envs.registry import make_env
from agentgym.types import EnvSpec

SUITE, TASK = "corridor/test", "test-000"
SPEC = EnvSpec("corridor", {"suite": SUITE})
Write = Callable[..., Path]


@pytest.fixture
def write(agentgym: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Export the corridor as a user does, into a folder from which modules are imported."""
    before = set(sys.modules)

    def run(target: str, *words: object) -> Path:
        out = tmp_path / target
        done = agentgym("export", "env", "--suite", SUITE, "--to", target, "-o", out, *words)
        assert (done.code, done.err) == (0, "")
        monkeypatch.syspath_prepend(str(out))
        return out

    yield run
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("server", "agentgym_corridor"):
            del sys.modules[name]


def way_out() -> list[str]:
    """Return the actions that win the task."""
    env, actions, over = make_env(SPEC), [], False
    env.reset(seed=0, options={"task": TASK})
    while not over:
        actions.append(env.expert() or "")
        _, _, over, _, _ = env.step(actions[-1])
    env.close()
    return actions


# The folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["openenv", "verifiers"])
def test_what_is_written_is_python_and_names_the_suite_and_its_options(
    write: Write, target: str
) -> None:
    out = write(target, "--max-turns", 5)
    code = {path: path.read_text() for path in out.rglob("*.py")}
    for path, text in code.items():
        compile(text, path, "exec")
    assert any("'max_turns': 5" in text and f"'{SUITE}'" in text for text in code.values())
    assert not [path for path in out.rglob("*") if "$" in path.name or path.suffix == ".txt"]
    assert all("$" not in path.read_text() for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--suite", SUITE, "--to", "openev"], 2, "did you mean openenv?"),
        (["--suite", "corridor/tets", "--to", "openenv"], 2, "corridor/test"),
        (["--suite", SUITE, "--to", "openenv", "--option", "rooms=3"], 2, "option of corridor"),
        (["--suite", "webshop/full-test", "--to", "verifiers"], 1, "agentgym envs download"),
    ],
    ids=["target", "suite", "option", "data"],
)
def test_what_cannot_be_played_is_refused_before_anything_is_written(
    agentgym: Any, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    done = agentgym("export", "env", *words, "-o", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_as_it_is(agentgym: Any, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    done = agentgym("export", "env", "--suite", SUITE, "--to", "openenv", "-o", tmp_path)
    assert done.code == 2
    assert "nothing was written" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_the_commands_of_the_guide_run(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    guide = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    for line in block.splitlines():
        assert agentgym(*shlex.split(line)[1:]).code == 0, line
    assert len(list(tmp_path.glob("*/README.md"))) == 2


# OpenEnv ------------------------------------------------------------------------------------------


@pytest.fixture
def served(write: Write) -> Iterator[str]:
    """The address of the exported server, which runs as uvicorn runs it."""
    pytest.importorskip("openenv.core", reason="not installed: pip install 'agentgym[openenv]'")
    uvicorn = import_module("uvicorn")
    write("openenv")
    app = import_module("server.app").app()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.filterwarnings("default")
def test_a_client_of_openenv_wins_while_another_plays_something_else(served: str) -> None:
    ours = import_module("agentgym.export_openenv")
    with (
        ours.SuiteClient(base_url=served).sync() as one,
        ours.SuiteClient(base_url=served).sync() as other,
    ):
        seen = one.reset(seed=0, task=TASK)
        assert (seen.observation.task, seen.done, seen.reward) == (TASK, False, None)
        assert other.reset(seed=1).observation.task == other.reset(seed=1).observation.task
        for action in way_out():
            assert action in seen.observation.admissible_actions
            seen = one.step(ours.TextAction(text=action))
        assert (seen.done, seen.reward, seen.observation.won) == (True, 1.0, True)
        assert (one.state().step_count, other.state().step_count) == (len(way_out()), 0)
        assert one.state().suite == SUITE
        unknown = other.step(ours.TextAction(text="dance"))
        assert not unknown.observation.admissible
        with pytest.raises(RuntimeError, match="unknown task"):
            other.reset(task="test-0000")


@pytest.mark.filterwarnings("default")
def test_openenv_itself_finds_nothing_wrong_with_the_server(served: str) -> None:
    report = import_module("openenv.cli._validation").validate_running_environment(served)
    assert report["passed"], report["criteria"]


# verifiers ----------------------------------------------------------------------------------------


class _Endpoint(BaseHTTPRequestHandler):
    """Answers as a model that knows the way out: the n-th reply is the n-th action."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_anything: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked["messages"])  # type: ignore[attr-defined]
        said = sum(message["role"] == "assistant" for message in asked["messages"])
        text = f"<think>on</think><action>{way_out()[said]}</action>"
        choice = {"index": 0, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        content = json.dumps(answer | {"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def endpoint() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.filterwarnings("default")
def test_a_rollout_of_verifiers_wins_and_is_worth_the_benchmark_s_reward(
    write: Write, endpoint: Any
) -> None:
    vf = pytest.importorskip(
        "verifiers.v1", reason="not installed: pip install 'agentgym[verifiers]'"
    )
    write("verifiers")
    config = vf.resolve_env_config({"taskset": {"id": "agentgym_corridor"}})
    env = vf.load_environment(config)
    assert len(list(env.taskset)) == 64
    (task,) = env.taskset.include(ids=[TASK])
    url = f"http://127.0.0.1:{endpoint.server_port}/v1"
    context = vf.ModelContext(model="m", client=vf.EvalClientConfig(base_url=url))

    async def roll() -> Any:
        async with env.serving():
            (slot,) = env.slots(task)
            return await env.run_slot(slot, context)

    episode = asyncio.run(roll())
    assert (episode.ok, episode.errors) == (True, [])
    (trace,) = episode.traces
    assert trace.reward == 1.0
    assert trace.metrics == {"won": 1.0, "score": 1.0, "turns": len(way_out()), "valid_actions": 1}
    last = endpoint.asked[-1]
    assert [message["role"] for message in last] == ["user", "assistant"] * 2 + ["user"]
