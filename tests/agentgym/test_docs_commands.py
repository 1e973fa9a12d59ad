"""The commands that the README and the guides show are run, as far as a test can."""

import io
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
from typer.core import TyperGroup
from typer.main import get_command

from agentgym import doctor
from agentgym.cli import app
from agentgym.view import ViewServer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
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


# Every other command of every page ---------------------------------------------------------------

# Their blocks marked ``sh`` are run as they stand: above, in test_docs_gpus.py, test_export_env.py.
STANDING = {"docs/evaluate.md", "docs/play.md", "docs/gpus.md", "docs/export.md"}
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md")})
FILLED = {  # what stands in for what a reader has to fill in
    "…": ["--env", "alfworld"], "MODEL": ["alfworld-tiny"], "DIR": ["out"],
    "RUN": ["runs/seed-0"], "RUN…": ["runs/seed-0", "runs/seed-1"],
    "A": ["results/random"], "B": ["results/expert"],
}  # fmt: skip
# Games that need no download stand in for the published ones.
GENERATED = ["--set", "env.suite=alfworld/gen-train", "--set", "eval.suite=alfworld/gen-unseen"]
LISTENS = "listens until it is interrupted; its own tests do that"
VLLM = "needs vLLM; test_evaluate_served.py evaluates with a program in its place"
DATA = "needs published data, which a test does not fetch"
SLEEP = "needs a GPU; test_train_sleep.py trains with a program in the server's place"
NOT_RUN = {  # lines that begin so are only held to the options that there are
    "agentgym serve ": LISTENS,
    "agentgym envs serve ": LISTENS,
    "agentgym eval --suite alfworld/gen-unseen --model alfworld-tiny --serve": VLLM,
    "agentgym eval --suite alfworld/valid_unseen": DATA,
    "agentgym eval --suite webshop/small-test": DATA,
    "agentgym eval --suite alfworld/gen-unseen -n 6 --policy expert --option engine=textworld":
        "needs TextWorld; `make test-reference` plays it",
    "agentgym train --env alfworld --recipe spear-1.5b --serve --sleep": SLEEP,
    "agentgym train --env alfworld --recipe paper --serve --sleep": SLEEP,
    "agentgym --install-completion": "asks which shell it is in; test_completion.py tells it",
}  # fmt: skip


def lines_of(page: Path) -> list[str]:
    """Return the command lines of a page: of its blocks and, of the README, its table."""
    name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
    fence = r"^```(\w*)\n(.*?)^```$"
    standing = {"sh"} if name in STANDING else set()
    blocks = [
        block
        for language, block in re.findall(fence, text, re.MULTILINE | re.DOTALL)
        if language in {"", "sh"} - standing
    ]
    rest = re.sub(fence, "", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^    (.*)$", rest, re.MULTILINE)
    if name == "README.md":
        cells = re.findall(r"^\| (`agentgym .*?) \|", text, re.MULTILINE)
        blocks += [span for cell in cells for span in re.findall(r"`(agentgym [^`]+)`", cell)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.search(r"(^|\s)agentgym ", line)]


def words_of(line: str) -> list[str]:
    """Return the words behind ``agentgym`` in a line, whatever launches or feeds it."""
    words = shlex.split(line.rpartition(" | ")[2], comments=True)
    return words[words.index("agentgym") + 1 :]


def cheap(words: list[str]) -> list[str]:
    """Return a command with what makes it cost little."""
    words = [part for word in words for part in FILLED.get(word, [word])]
    match words[:2]:
        case ["train", *_]:
            stand_in = GENERATED if {"alfworld", "--recipe"} <= set(words) else []
            return [*words, *stand_in, "--dry-run"]
        case ["eval", *_]:
            return [*words, "--tasks", "1", "--max-turns", "3"]
        case ["envs", "download"]:
            return [*words, "--dry-run"]
    return words


def check_options(words: list[str]) -> None:
    """Hold words to the commands and the options that there are; nothing of them is run."""
    command, rest = get_command(app), words
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, words
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in rest if word.startswith("-")} <= known, words


@pytest.fixture
def place(
    agentgym: Any, make_run: Any, register: Any, vllm: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Path:  # fmt: skip
    """The folder in which a reader is who did what the pages say, and has all they speak of."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewServer, "serve_forever", interrupted)
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    monkeypatch.setattr(doctor, "default_envs", lambda _: ["corridor"])
    monkeypatch.setattr(doctor, "_MEASURE_S", 0.1)
    monkeypatch.setenv("AGENTGYM_VLLM", str(vllm))
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        run = make_run("runs/seed", seed)
        with (run / "config.toml").open("a") as stream:
            stream.write('[policy]\ntemplate = "plain"\ncontext = "full"\n')
        model = run / "checkpoints" / "step_000003" / "hf"
        model.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (model / name).write_text("{}")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "thermostat.py").write_text(python_of("add-a-method.md"))
    (tmp_path / "mine.txt").write_text(template_of("train.md"))
    names: dict[str, Any] = {"__name__": "guess"}
    exec(python_of("add-an-environment.md"), names)
    register(names["GuessEnv"])
    for policy in ("random", "expert"):
        asked = ("--suite", "corridor/test", "-n", "2", "--policy", policy)
        assert agentgym("eval", *asked, "-o", f"results/{policy}").code == 0
    return tmp_path


def template_of(page: str) -> str:
    (text,) = re.findall(r"^```\n(format: .*?)^```$", (DOCS / page).read_text(), re.M | re.DOTALL)
    return str(text)


def python_of(page: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.mark.timeout(600)  # a busy machine may take its time
@pytest.mark.parametrize("page", [*filter(lines_of, PAGES)], ids=lambda page: page.name)
@pytest.mark.usefixtures("place")
def test_the_commands_of_a_page_run(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, page: Path
) -> None:
    for line in lines_of(page):
        words = words_of(line)
        if line.startswith(tuple(NOT_RUN)):
            check_options(words)
            continue
        fed = re.match(r"printf '([^']*)' \|", line)
        script = fed[1].replace(r"\n", "\n") if fed else ":quit\n"
        monkeypatch.setattr(sys, "stdin", io.StringIO(script))
        code, out, err = agentgym(*cheap(words))
        unfit = "--plan" in words and "agentgym: this does not fit" in err
        assert unfit or (code, err) == (0, ""), line
        assert out, line


def test_what_is_not_run_is_still_shown() -> None:
    shown = [line for page in PAGES for line in lines_of(page)]
    assert [one for one in NOT_RUN if not any(line.startswith(one) for line in shown)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_that_a_text_names_exist(page: Path) -> None:
    for named in re.findall(r"`agentgym ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
        check_options(named.split())
