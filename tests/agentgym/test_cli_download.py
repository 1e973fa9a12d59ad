"""The command that brings official data here."""

import hashlib
import io
import os
import pty
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentgym.console import size
from agentgym.download import WORK_FOLDER, DataSet
from agentgym.envs.alfworld import ALFWorldEnv
from agentgym.envs.alfworld_files import GAME_FILE, TRAJECTORY_FILE, write_game
from agentgym.envs.alfworld_generate import generate, task_ids
from agentgym.envs.alfworld_official import GAMES, SPLITS
from agentgym.fetch import RemoteFile

FILES = {"json_2.1.1_json.zip": TRAJECTORY_FILE, "json_2.1.3_tw-pddl.zip": GAME_FILE}
"""Which of a game's two files each of the published archives has."""


def pack(games: Path, name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(games.rglob(name)):
            archive.write(path, f"json_2.1.1/{path.relative_to(games).as_posix()}")
    return stream.getvalue()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def published(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """ALFWorld's archives as they are published, but small and on this machine."""
    for split in SPLITS:
        for task in task_ids("gen-seen")[:2]:
            write_game(generate("gen-seen", task), tmp_path / "games" / split / task / "trial")
    files = []
    for name, member in FILES.items():
        body = pack(tmp_path / "games", member)
        server.files[f"/{name}"] = body
        sha = hashlib.sha256(body).hexdigest()
        files.append(RemoteFile(name, (f"{server.url}/{name}",), len(body), sha, archive=True))
    small = replace(GAMES, files=tuple(files))
    monkeypatch.setattr(ALFWorldEnv, "data_sets", classmethod(lambda _kind: {"games": small}))
    return small


@pytest.mark.usefixtures("published")
def test_downloaded_games_are_played(agentgym: Any, data: Path) -> None:
    code, out, err = agentgym("envs", "download", "alfworld")
    assert (code, err) == (0, "")
    assert f"it is in {data}" in out
    assert "play: agentgym eval --suite alfworld/valid_unseen" in out
    assert [path.name for path in data.iterdir()] == ["json_2.1.1"]
    code, out, _ = agentgym("eval", "--suite", "alfworld/valid_unseen", "--policy", "expert")
    assert code == 0
    assert "2/2" in out
    assert "not a published test set" not in out


@pytest.mark.usefixtures("published")
def test_what_is_there_is_said_and_left_alone(agentgym: Any, data: Path, server: Any) -> None:
    agentgym("envs", "download", "alfworld")
    server.requests.clear()
    code, out, _ = agentgym("envs", "download", "alfworld")
    assert code == 0
    assert f"it was already in {data}" in out
    assert server.requests == []


@pytest.mark.usefixtures("published", "data")
def test_another_folder_is_filled_and_how_it_is_found_is_said(
    agentgym: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    code, out, _ = agentgym("envs", "download", "alfworld", "--to", other)
    assert code == 0
    assert f"export ALFWORLD_DATA={other}" in out
    assert (other / "json_2.1.1" / "train").is_dir()


@pytest.mark.usefixtures("published", "data")
def test_an_address_without_the_file_is_one_line_with_the_remedy(
    agentgym: Any, server: Any
) -> None:
    server.files.clear()
    code, _, err = agentgym("envs", "download", "alfworld")
    assert (code, err.count("\n")) == (1, 1)
    assert "404 Not Found" in err
    assert "put it at" in err


def test_a_dry_run_shows_the_publishers_addresses_and_fetches_nothing(
    agentgym: Any, data: Path, server: Any
) -> None:
    code, out, _ = agentgym("envs", "download", "alfworld", "--dry-run")
    assert code == 0
    for file in GAMES.files:
        assert file.urls[0] in out
        assert str(file.sha256) in out
    assert "108.5 MB in all" in out
    assert server.requests == []
    assert not data.exists()


def test_what_cannot_be_downloaded_exits_2_and_says_why(agentgym: Any) -> None:
    code, _, err = agentgym("envs", "download", "corridor")
    assert code == 2
    assert "needs no data" in err
    code, _, err = agentgym("envs", "download", "alfworld", "--set", "game")
    assert code == 2
    assert "did you mean games?" in err


def test_sizes_are_said_for_people() -> None:
    assert size(5_479_720_229) == "5.48 GB"
    assert size(72_018_818) == "72.0 MB"
    assert size(147_099) == "147.1 kB"
    assert size(None) == "?"


RUN = """
import sys
from agentgym.cli import main
from agentgym.download import DataSet
from agentgym.envs.alfworld import ALFWorldEnv
from agentgym.envs.alfworld_official import data_folder
from agentgym.fetch import RemoteFile

file = RemoteFile("big", (sys.argv.pop(),))
one = DataSet("one", "none", (file,), data_folder, "ALFWORLD_DATA", "alfworld/train")
ALFWorldEnv.data_sets = classmethod(lambda kind: {"one": one})
main()
"""


@pytest.mark.usefixtures("data")
def test_a_terminal_shows_a_bar_and_an_interrupt_says_what_is_kept(data: Path, server: Any) -> None:
    server.files["/big"], server.stall_after = bytes(2_000_000), 1_000_000
    ours, theirs = pty.openpty()
    words = ["envs", "download", "alfworld", f"{server.url}/big"]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *words], stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as running:  # fmt: skip
        os.close(theirs)
        said = b""
        while b"1.0/2.0 MB" not in said:
            said += os.read(ours, 4096)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=30) == 130
        while chunk := _read(ours):
            said += chunk
    os.close(ours)
    assert b"what arrived is kept; the same command goes on from there" in said
    assert b"Traceback" not in said
    assert (data / WORK_FOLDER / "big.part").stat().st_size == 1_000_000


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other side has closed
        return b""
