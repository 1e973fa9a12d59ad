"""The harness of the fuzzing sees what it is for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import DataError

Run = Callable[[Callable[[bytes], object]], Any]


@pytest.fixture
def run(beside: Callable[[str], Any], tmp_path: Path) -> Run:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "home2").mkdir()
    (tmp_path / "home2" / "secret").write_text("secret")
    return lambda target: beside("harness").run("a", target, [b"x"], home)


def failure(run: Run, target: Callable[[bytes], object]) -> str:
    return ", ".join(run(target).failures)


def test_a_refusal_is_no_failure_and_every_other_error_is_one(run: Run) -> None:
    def refuse(data: bytes) -> None:
        raise DataError("no")

    result = run(refuse)
    assert (result.refused, result.failures) == (1, {})
    assert "ZeroDivisionError" in failure(run, lambda data: 1 // 0)


OUTSIDE: dict[str, Callable[[Path], object]] = {
    "a folder whose name begins alike": lambda there: (there / "home2" / "secret").read_text(),
    "a relative path": lambda there: Path("../home2/secret").read_text(),
    "a file that is written": lambda there: (there / "new").write_text("x"),
    "a folder that is listed": os.listdir,
    "a link": lambda there: os.symlink("x", there / "link"),
    "a link that leads out": lambda there: os.symlink("../home2/secret", "link"),
    "a second name": lambda there: os.link(there / "home2" / "secret", "mine"),
    "a folder that is removed": lambda there: os.rmdir(there / "home2"),
    "a file that is cut": lambda there: os.truncate(there / "home2" / "secret", 0),
    "what is moved away": lambda there: os.rename("x", there / "x"),
    "the repository": lambda there: (Path(__file__).parents[2] / "pyproject.toml").read_text(),
    "code that is written": lambda there: Path(__file__).open("a").close(),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_whatever_leaves_the_folder_is_seen(what: str, run: Run, tmp_path: Path) -> None:
    def leave(data: bytes) -> None:
        try:
            OUTSIDE[what](tmp_path)
        except OSError as error:  # whether it would have gone well is another matter
            raise DataError("no") from error

    assert "looked outside" in failure(run, leave)


def test_what_is_done_in_the_folder_and_reading_code_is_no_failure(run: Run) -> None:
    def stay(data: bytes) -> None:
        for folder in ("a/b/c", "d"):
            Path(folder).mkdir(parents=True)
            Path(folder, "x").write_bytes(data)
        Path("d/x").rename("d/y")
        os.symlink("../d/y", "d/w")
        os.symlink("y", "d/z")
        assert Path("d/z").read_bytes() == data
        shutil.rmtree("a")
        shutil.rmtree(Path("d").absolute())
        assert Path(__file__).read_text()

    assert failure(run, stay) == ""
