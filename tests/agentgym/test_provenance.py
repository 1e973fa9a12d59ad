import re
import subprocess
from pathlib import Path

import pytest

from agentgym import provenance


def git(folder: Path, *command: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", str(folder), *author, *command], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("one\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "one")
    git(tmp_path, "tag", "v1")
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    return tmp_path


def test_a_clone_says_its_commit_even_where_a_tag_is(clone: Path) -> None:
    assert re.fullmatch("[0-9a-f]{40}", provenance.commit() or "")


def test_changed_files_are_told(clone: Path) -> None:
    (clone / "code.py").write_text("two\n")
    assert re.fullmatch("[0-9a-f]{40}-dirty", provenance.commit() or "")


def test_a_package_in_another_repository_does_not_take_its_commit(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = clone / "site-packages"
    inside.mkdir()
    monkeypatch.setattr(provenance, "_ROOT", inside)
    assert provenance.commit() is None


def test_without_git_there_is_no_commit(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None
