"""What several tests of the front door need: an environment of their own, and the command."""

import gzip
import json
import re
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import pytest

from agentgym import __version__
from agentgym.cli import main
from agentgym.envs import registry
from agentgym.envs.base import Outcome, TextEnv
from agentgym.run_files import RESULTS_FORMAT
from agentgym.types import Info, Suite


class SayEnv(TextEnv):
    """Won by saying the number of the task; saying ``break`` breaks it, saying ``lose`` loses.

    Task 3 breaks whatever is said.
    """

    name = "say"
    default_suite = "say/all"
    default_max_turns = 3
    has_expert = True

    def __init__(
        self, suite: str | None = None, max_turns: int | None = None, loud: bool = False
    ) -> None:
        super().__init__(suite, max_turns)
        self.loud = loud

    @classmethod
    def suite_names(cls) -> tuple[str, ...]:
        return ("say/all", "say/published")

    def load_suite(self, name: str) -> Suite:
        if name not in self.suite_names():
            raise self.unknown_suite(name)
        return Suite(name, ("1", "2", "3", "4"), name == "say/published", True, "four numbers")

    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        self.task = task
        return f"which number? [bold]{seed}[/bold]\x1b[2J", self.info(False)

    def act(self, action: str) -> Outcome:
        if action == "break" or self.task == "3":
            raise ZeroDivisionError("broken on purpose")
        won = action == self.task
        return Outcome("yes" if won else "no", float(won), won or action == "lose", self.info(won))

    def expert(self) -> str | None:
        return self.task

    def info(self, won: bool) -> Info:
        return Info(
            task_id=self.task,
            task_type="odd" if int(self.task) % 2 else "even",
            goal=f"say {self.task}",
            won=won,
            score=float(won),
            admissible=True,
            anchor="which",
        )


Register = Callable[[type[TextEnv]], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register an environment's class under its name, for one test."""

    def add(kind: type[TextEnv]) -> None:
        module = ModuleType(f"module_of_{kind.name}")
        module.Kind = kind  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(registry._paths(), kind.name, f"{module.__name__}:Kind")

    return add


@pytest.fixture
def say_env(register: Register) -> type[SayEnv]:
    """The environment ``say``, registered."""
    register(SayEnv)
    return SayEnv


class Letters:
    """A tokenizer in which a token is a letter, and the letter of number 0 ends a turn."""

    chat_template = "its own"
    all_special_ids = (0,)
    added_tokens_decoder: ClassVar[dict[int, Any]] = {}
    end = 0

    def apply_chat_template(
        self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        said = "".join(f"<{one['role']}>{one['content']}\0" for one in conversation)
        return said + "<assistant>" * add_generation_prompt

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(map(ord, text))

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, token_ids))


@pytest.fixture
def letters() -> Letters:
    return Letters()


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def agentgym(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line as a shell would, and return its exit code and what it said."""

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["agentgym", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")  # so that no message is wrapped
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        code = exit_.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    return run


MakeRun = Callable[..., Path]

_CONFIG = """seed = {seed}
steps = 3
[env]
suite = "corridor/train"
[method]
name = "epo"
"""


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make the folder of a run: three steps, an evaluation before them, trajectories of step 2.

    The trajectories are of groups of four, two of which branch off; ``say`` is what is said in
    their first turn. The first group has tokens.
    """

    def make(name: str = "run", seed: int = 0, trajectories: int = 8, say: str = "go") -> Path:
        folder = tmp_path / f"{name}-{seed}"
        first = folder / "eval" / "step_000000"
        first.mkdir(parents=True)
        (folder / "trajectories").mkdir()
        (folder / "config.toml").write_text(_CONFIG.format(seed=seed))
        (folder / "env.json").write_text(json.dumps({"agentgym": __version__}))
        results = {
            "format": RESULTS_FORMAT,
            "protocol": {"agentgym": __version__, "suite": "corridor/test"},
            "summary": {"success": {"value": 0.25}, "score": 0.25},
        }
        (first / "results.json").write_text(json.dumps(results))
        steps = [_metrics(step, seed) for step in (1, 2, 3)]
        steps[-1]["eval/corridor/test/success_rate"] = 0.75
        (folder / "metrics.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps))
        played = [_trajectory(n, say) for n in range(trajectories)]
        without = [{k: v for k, v in t.items() if k not in ("rows", "return")} for t in played[:8]]
        _write_lines(first / "trajectories.jsonl.gz", without)
        _write_lines(folder / "trajectories" / "step_000002.jsonl.gz", played)
        return folder

    return make


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def _metrics(step: int, seed: int) -> dict[str, float]:
    return {
        "step": step,
        "episode/success_rate": (step + seed) / 8,
        "reward/mean": float(step + seed),
        "actor/entropy": 1 / step,
        "actor/entropy_turn_0": 2 / step,
        "actor/entropy_turn_1": 1 / step,
        "time/generate": 1.5,
    }


def _trajectory(n: int, say: str) -> dict[str, Any]:
    """Return the n-th trajectory: three turns; every other one is won in the third."""
    member, won = n % 4, n % 2 == 0
    actions = [say, "look", "look" if member == 3 else "leave"]
    turns = [
        {
            "observation": f"room {k} of task {n // 4}",
            "text": f"I think. <action>{action}</action>",
            "action": action,
            "parse_error": "no <action> tag" if (member, k) == (1, 1) else None,
            "admissible": (member, k) not in ((1, 1), (3, 0)),
            "reward": float(won and k == 2),
        }
        for k, action in enumerate(actions)
    ]
    line = {
        "task": f"task-{n // 4:05d}", "member": member, "branch": int(member == 2),
        "parent": [0, 0] if member == 2 else None, "shared_turns": 1 if member == 2 else 0,
        "suite": "corridor/train", "task_type": ("two rooms", "three rooms")[n // 4 % 2],
        "goal": "get out", "won": won, "score": float(won),
        "stop": "terminated" if won else "turns", "error": None, "faults": 0, "turns": turns,
        "return": float(won),
    }  # fmt: skip
    return line | {"rows": [_row(turns)]} if n < 4 else line


def _row(turns: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the tokens of a trajectory: two of an observation, then a turn's words, and again."""
    row: dict[str, list[Any]] = {name: [] for name in _TOKEN_FIELDS}
    for k, turn in enumerate(turns):
        words = re.findall(r"\s*\S+", turn["text"])
        for i, word in enumerate(("<obs>", "</obs>", *words)):
            said = i >= 2
            values = (100 + i, k if said else -1, -0.1 * i * said, -0.11 * i * said,
                      (0.5 - 0.25 * i) * said, 0.2 * i * said, word)  # fmt: skip
            for name, value in zip(_TOKEN_FIELDS, values, strict=True):
                row[name].append(value)
    return row


_TOKEN_FIELDS = ("ids", "turn", "behaviour_logprob", "logprob", "advantage", "entropy", "text")


class FileServer(ThreadingHTTPServer):
    """A server of bytes, with ranges and versions, that can be told to misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.etag: str | None = '"first"'
        self.knows_ranges = True
        self.chunked = False
        self.encoding: str | None = None
        self.shift = 0  # of what is sent against what is asked for
        self.statuses: list[int] = []  # of the first answers
        self.retry_after: list[str] = []  # that they ask for
        self.cuts: list[int] = []  # bytes after which the first connections break
        self.cuts_of: dict[str, list[int]] = {}
        self.stall_after: int | None = None  # bytes, and then nothing for a while
        self.requests: list[str] = []
        self.ranges: list[str | None] = []  # that were asked for
        self.sent_of: Counter[str] = Counter()  # bytes of bodies

    @property
    def sent(self) -> int:
        return self.sent_of.total()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may hang up
            super().handle_error(request, client_address)


class _Answer(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_anything: object) -> None:
        pass

    def do_GET(self) -> None:
        server, path = self.server, self.path
        server.requests.append(path)
        server.ranges.append(self.headers["Range"])
        if server.statuses:
            self._nothing(server.statuses.pop(0))
        elif path in server.redirects:
            self._nothing(302, Location=server.redirects[path])
        elif path in server.files:
            self._body(server.files[path])
        else:
            self._nothing(404)

    def _nothing(self, status: int, **headers: str) -> None:
        self.send_response(status)
        if self.server.retry_after:
            headers["Retry-After"] = self.server.retry_after.pop(0)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, content: bytes) -> None:
        server, asked = self.server, self.headers["Range"]
        same = self.headers["If-Range"] == server.etag and self.path not in server.types  # a page
        start = int(asked[6:-1]) if asked and same and server.knows_ranges else 0
        if start and start >= len(content):
            self._nothing(416, **{"Content-Range": f"bytes */{len(content)}"})
            return
        start -= server.shift if start else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        self.send_header("Content-Type", server.types.get(self.path, "application/octet-stream"))
        self._send(content[start:])

    def _send(self, rest: bytes) -> None:
        server = self.server
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        else:
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            cuts = server.cuts_of.get(self.path, server.cuts)
            if cuts:
                rest = rest[: cuts.pop(0)]
                self.close_connection = True
            stop = server.stall_after  # which may be another one when the client has hung up
            self._write(rest, stop)
            rest = rest[:stop]
        server.sent_of[self.path] += len(rest)

    def _write(self, rest: bytes, stop: int | None) -> None:
        with suppress(ConnectionError):  # the other side has hung up
            self.wfile.write(rest[:stop])
            if stop is not None:
                self.connection.settimeout(20)
                self.rfile.read(1)  # until the other side hangs up


@pytest.fixture(scope="session")
def certificates() -> ssl.SSLContext:
    """What a client knows of certificates; reading them takes a fifth of a second."""
    return ssl.create_default_context()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, certificates: ssl.SSLContext) -> Iterator[FileServer]:
    """An HTTP server of this machine, which no proxy stands before."""
    monkeypatch.setattr("httpcore2.default_ssl_context", lambda **_options: certificates)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with FileServer() as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def corridor_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder for the corridor, with random weights."""
    from agentgym.envs.corridor import WORDS
    from agentgym.policies.prompt import load_prompt
    from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "random"
    tokenizer = train_tokenizer([" ".join(WORDS)] * 10, 300)
    shape = Shape(hidden=32, layers=1, intermediate=64, context=256)
    fresh_model(tokenizer, shape, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    load_prompt("corridor", "plain", "full").save(folder)
    return folder


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """A command that takes vLLM's arguments, and is the fake server."""
    fake = Path(__file__).parents[1] / "fake_vllm.py"
    path = tmp_path / "vllm"
    path.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} {fake} --model "$@"\n')
    path.chmod(0o755)
    return path
