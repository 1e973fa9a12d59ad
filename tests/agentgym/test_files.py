"""Files are written whole or not at all."""

import os
import sys
from pathlib import Path

import pytest

from agentgym.errors import DataError, UsageError
from agentgym.files import (
    fill_empty,
    make_folder,
    make_once,
    named_folder,
    try_lock,
    write_atomic,
)


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_atomic(tmp_path / "text", "ä\r\n")
    write_atomic(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa4\r\n"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


def test_what_was_there_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*(os, "fsync", full) if fails == "fsync" else (Path, "replace", full))
    with pytest.raises(DataError, match=r"cannot write .*file: No space left on device"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("sync"), sync(handle)))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (calls.append("rename"), replace(self, to))[1]
    )
    write_atomic(tmp_path / "file", "x")
    assert calls[:2] == ["sync", "rename"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("x")
    write_atomic(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_path_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"cannot write .*file/inner: Not a directory"):
        write_atomic(tmp_path / "file" / "inner", "x")
    with pytest.raises(DataError, match=r"cannot write into the folder .*file/inner"):
        make_folder(tmp_path / "file" / "inner")


def test_a_folder_is_made_with_its_parents_and_may_be_there_already(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(folder).is_dir()
    assert list(folder.iterdir()) == []


def test_a_folder_is_filled_once_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    filled: list[Path] = []

    def fill(folder: Path) -> None:
        filled.append(folder)
        (folder / "file").write_text("content")

    for _ in range(2):
        assert make_once(tmp_path / "a" / "b", fill) == tmp_path / "a" / "b"
    assert len(filled) == 1
    assert (tmp_path / "a" / "b" / "file").read_text() == "content"
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "b"]


def test_a_folder_that_cannot_be_filled_does_not_appear(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"cannot write .*made: No space left on device; free"):
        make_once(tmp_path / "made", fill)
    assert list(tmp_path.iterdir()) == []


def test_of_two_who_make_a_folder_at_once_both_get_it(tmp_path: Path) -> None:
    def slow(folder: Path) -> None:
        make_once(tmp_path / "made", lambda other: (other / "file").touch())
        (folder / "file").touch()

    assert make_once(tmp_path / "made", slow) == tmp_path / "made"
    assert list(tmp_path.iterdir()) == [tmp_path / "made"]


def test_a_lock_is_had_by_one_at_a_time_and_given_up_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        assert try_lock(first)
        assert not try_lock(second)
        first.close()
        assert try_lock(second)


def test_a_platform_without_locks_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (
        (tmp_path / "lock").open("w") as file,
        pytest.raises(UsageError, match=r"no file locks.*use Linux or macOS"),
    ):
        try_lock(file)


def test_a_folder_is_filled_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def half(folder: Path) -> None:
        (folder / "first").write_text("1")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"cannot write .*out: No space left"):
        fill_empty(out, half)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    fill_empty(out, lambda folder: (folder / "first").write_text("1") and None)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(DataError, match="cannot write"):
        fill_empty(out, lambda folder: (folder / "first").write_text("2") and None)
    assert (out / "first").read_text() == "1"


def test_a_named_folder_goes_before_the_variables_and_that_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SHOP", raising=False)
    assert named_folder(None, "SHOP", lambda: Path("default")) == Path("default")
    monkeypatch.setenv("SHOP", "~/shop")
    assert named_folder(None, "SHOP", lambda: Path("default")) == tmp_path / "shop"
    assert named_folder("~", "SHOP", lambda: Path("default")) == tmp_path
