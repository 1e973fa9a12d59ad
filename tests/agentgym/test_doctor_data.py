"""Data that is not what was published, or installed, is told by its hashes."""

import base64
import hashlib
from collections.abc import Callable
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import pytest

from agentgym.doctor_data import data_findings
from agentgym.download import DataSet
from agentgym.fetch import RemoteFile

Register = Callable[[type], None]
HERE = b"as it was published"


@pytest.fixture
def folder(say_env: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The data folder of an environment that has one file and one archive to download."""
    digest = hashlib.sha256(HERE).hexdigest()
    data = DataSet(
        about="words",
        licence="none",
        files=(
            RemoteFile("words.txt", (), len(HERE), digest),
            RemoteFile("games.zip", (), archive=True),
        ),
        default_folder=lambda: tmp_path,
        variable="SAY_DATA",
        suite="say/published",
        unpacked=("games",),
    )
    monkeypatch.setattr(say_env, "data_sets", classmethod(lambda _: {"words": data}))
    return tmp_path


def whole(folder: Path) -> None:
    (folder / "words.txt").write_bytes(HERE)
    (folder / "games" / "one").mkdir(parents=True)
    (folder / "games" / "one" / "game.json").write_text("{}")


def test_data_that_nobody_downloaded_is_not_spoken_of(folder: Path) -> None:
    assert list(data_findings("say")) == []


def test_data_that_is_what_was_published_is_told_with_its_hashes(folder: Path) -> None:
    whole(folder)
    (finding,) = data_findings("say")
    assert finding.level == "ok"
    assert f"words.txt {hashlib.sha256(HERE).hexdigest()[:12]}" in finding.said
    sizes = hashlib.sha256(b"one/game.json 2\n").hexdigest()[:12]
    assert f"games 1 files, names and sizes {sizes}" in finding.said


@pytest.mark.parametrize("content", [b"as it was publishad", b"as"], ids=["bytes", "size"])
def test_another_file_of_the_same_name_is_found(folder: Path, content: bytes) -> None:
    whole(folder)
    (folder / "words.txt").write_bytes(content)
    (finding,) = data_findings("say")
    assert finding.level == "FAIL"
    assert "words.txt in" in finding.said
    moved = f"mv {folder / 'words.txt'} {folder / 'words.txt'}.other"
    assert finding.mend == f"{moved} && agentgym envs download say --set words"


def test_data_that_is_not_whole_is_a_note_with_its_download(folder: Path) -> None:
    (folder / "words.txt").write_bytes(HERE)
    (finding,) = data_findings("say")
    assert (finding.level, finding.mend) == ("note", "agentgym envs download say --set words")
    assert "games is not in" in finding.said


def test_bundled_data_that_is_not_what_was_installed_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (first,) = data_findings("alfworld")
    assert first.level == "ok"
    assert first.said.startswith("3 files, SHA-256 ")
    path = Path(str(files("agentgym") / "data" / "alfworld" / "grammar.twl2"))

    def listed(content: bytes) -> list[metadata.PackagePath]:
        entry = metadata.PackagePath("agentgym/data/alfworld/grammar.twl2")
        value = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        entry.hash = metadata.FileHash(f"sha256={value}")
        return [entry]

    monkeypatch.setattr(metadata, "files", lambda _: listed(path.read_bytes()))
    assert next(data_findings("alfworld")).level == "ok"
    monkeypatch.setattr(metadata, "files", lambda _: listed(b"another"))
    changed = next(data_findings("alfworld"))
    assert changed.level == "FAIL"
    assert changed.said.startswith("grammar.twl2 in ")
    assert changed.mend == "pip install --force-reinstall --no-deps agentgym"
