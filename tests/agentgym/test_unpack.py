"""Unpacking archives, the hostile and the broken ones too."""

import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from agentgym.errors import DataError
from agentgym.fetch import Watch
from agentgym.unpack import BrokenArchiveError, unpack


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    folder.mkdir()
    return folder


def packed(tmp_path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_archive_is_unpacked_with_its_folders(tmp_path: Path, into: Path) -> None:
    moved: list[tuple[str, int, int | None]] = []
    archive = packed(tmp_path, ("a/b/c", b"12"), ("empty/", b""), ("d", b"345"))
    unpack(archive, into, Watch(moved=lambda *step: moved.append(step)))
    assert everything(into) == {"a/b/c": b"12", "d": b"345"}
    assert (into / "empty").is_dir()
    assert moved[-1] == ("unpacking archive.zip", 5, 5)


def test_a_file_of_an_earlier_archive_stays(tmp_path: Path, into: Path) -> None:
    unpack(packed(tmp_path, ("both", b"first"), ("one", b"1")), into)
    unpack(packed(tmp_path, ("both", b"second"), ("two", b"2")), into)
    assert everything(into) == {"both": b"first", "one": b"1", "two": b"2"}


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "member",
    ["../out", "a/../../out", "/out", "C:/out", "C:out", "..\\out", "a\\b", "a/..", link("a/link")],
    ids=lambda member: member if isinstance(member, str) else "link",
)
def test_nothing_is_written_of_an_archive_that_leads_out(
    tmp_path: Path, into: Path, member: str | zipfile.ZipInfo
) -> None:
    archive = packed(tmp_path, ("harmless", b"1"), (member, b"/etc/passwd"))
    with pytest.raises(BrokenArchiveError, match="only ordinary files below one folder"):
        unpack(archive, into)
    assert list(into.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.zip", "inside"]


def test_two_members_of_one_name_are_refused(tmp_path: Path, into: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = packed(tmp_path, ("a", b"1"), ("a", b"2"))
    with pytest.raises(BrokenArchiveError, match="each once"):
        unpack(archive, into)


def test_what_is_no_archive_is_said(tmp_path: Path, into: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(BrokenArchiveError, match="no whole zip archive"):
        unpack(path, into)


def test_an_archive_that_was_cut_is_broken(tmp_path: Path, into: Path) -> None:
    archive = packed(tmp_path, ("a", bytes(range(256)) * 40))
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(BrokenArchiveError):
        unpack(archive, into)


def test_a_changed_byte_is_noticed_wherever_it_is_or_does_not_matter(
    tmp_path: Path, into: Path
) -> None:
    content = bytes(range(60)) + b"x" * 90
    whole = packed(tmp_path, ("a", content)).read_bytes()
    noticed = 0
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        (tmp_path / "archive.zip").write_bytes(broken)
        try:
            unpack(tmp_path / "archive.zip", into)
        except DataError:
            noticed += 1
        else:
            assert set(everything(into).values()) <= {content}
        shutil.rmtree(into)
        into.mkdir()
    assert noticed > len(whole) // 2


def test_an_encrypted_archive_is_broken_to_us(tmp_path: Path, into: Path) -> None:
    archive = packed(tmp_path, ("a", b"1"))
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the flag in the file's own header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    archive.write_bytes(content)
    with pytest.raises(BrokenArchiveError, match="encrypted"):
        unpack(archive, into)


def test_an_archive_that_does_not_fit_is_refused_before_it_is_written(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(into)._replace(free=999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DataError, match=r"1000 bytes are needed in .* and 999 are free"):
        unpack(packed(tmp_path, ("a", b"0" * 1000)), into)
    assert list(into.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, into: Path) -> None:
    (into / "a").write_text("a file")
    with pytest.raises(DataError, match=r"cannot unpack .*archive\.zip into .*: ") as error:
        unpack(packed(tmp_path, ("a/b", b"1")), into)
    assert "\n" not in str(error.value)
