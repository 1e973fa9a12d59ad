"""The commands of the guides to evaluating and playing are run."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
ANSWER = {
    "id": "1", "object": "chat.completion", "created": 0, "model": "m",
    "usage": {"prompt_tokens": 9, "completion_tokens": 3},
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "<action>back</action>"}}],
}  # fmt: skip


def commands(page: str) -> list[list[str]]:
    """Return the words of the commands that a page shows, without the first."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(words[0] == "agentgym" for words in lines)
    return [words[1:] for words in lines]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_anything: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        sent = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, certificates: Any) -> Iterator[str]:
    monkeypatch.setattr("httpcore2.default_ssl_context", lambda **_options: certificates)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()
        thread.join()


def test_the_commands_of_the_guide_to_evaluating_run(
    agentgym: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = commands("evaluate.md")
    assert len(shown) >= 8
    for words in shown:
        told = [endpoint if word.startswith("http://") else word for word in words]
        code, out, err = agentgym(*told)
        assert (code, err) == (0, ""), words
        assert out


def test_the_commands_of_the_guide_to_playing_run(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script").write_text(":expert 50\n:save demonstrations.jsonl\n")
    for words in commands("play.md"):
        with (tmp_path / "script").open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            code, out, err = agentgym(*words)
        assert (code, err) == (0, ""), words
        if words[0] == "play" and "alfworld-tiny" not in words:
            (tmp_path / "demonstrations.jsonl").unlink()  # of another environment than the next
        assert out


def test_the_guide_to_playing_names_every_command_of_the_session() -> None:
    from agentgym.play import HELP
    from agentgym.play_model import PILOT_HELP

    named = set(re.findall(r":[a-z]+", (DOCS / "play.md").read_text(encoding="utf-8")))
    assert set(re.findall(r"^  (:[a-z]+)", HELP + PILOT_HELP, re.MULTILINE)) <= named
