"""Data sets from a real HTTP server: there as a whole or not at all, whatever comes between."""

import fcntl
import hashlib
import io
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym import fetch as fetching
from agentgym.download import WORK_FOLDER, DataSet, download
from agentgym.errors import DataError
from agentgym.fetch import RemoteFile, Watch

FIRST = {"games/train/1": b"one"}
SECOND = {"games/test/2": b"two", "readme": b"not wanted"}


def zipped(content: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause between attempts, none of which is waited for."""
    waited: list[float] = []
    monkeypatch.setattr(fetching, "sleep", waited.append)
    return waited


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def data(server: Any, folder: Path) -> DataSet:
    """Two archives that make one tree, and a file beside it."""
    server.files |= {"/a.zip": zipped(FIRST), "/b.zip": zipped(SECOND), "/list": b"x" * 1000}
    archives = [RemoteFile(n, (f"{server.url}/{n}",), archive=True) for n in ("a.zip", "b.zip")]
    return DataSet(
        about="games",
        licence="none",
        files=(*archives, RemoteFile("list", (f"{server.url}/list",), 1000)),
        default_folder=lambda: folder,
        variable="GAMES",
        suite="games/test",
        unpacked=("games/train", "games/test"),
    )


def everything(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


WHOLE = ["games/test/2", "games/train/1", "list"]


def test_a_data_set_is_put_in_its_place_and_nothing_else_is_left(
    data: DataSet, folder: Path
) -> None:
    assert download(data, folder)
    assert everything(folder) == WHOLE
    assert sorted(path.name for path in folder.iterdir()) == ["games", "list"]


def test_what_is_there_is_not_fetched_again(data: DataSet, folder: Path, server: Any) -> None:
    download(data, folder)
    server.requests.clear()
    assert not download(data, folder)
    assert server.requests == []


def test_only_the_missing_file_is_fetched(data: DataSet, folder: Path, server: Any) -> None:
    download(data, folder)
    server.requests.clear()
    (folder / "list").unlink()
    assert download(data, folder)
    assert server.requests == ["/list"]


def test_nothing_is_in_its_place_until_everything_is_there(
    data: DataSet, folder: Path, server: Any
) -> None:
    del server.files["/list"]
    with pytest.raises(DataError, match=r"list could not be fetched: .*404"):
        download(data, folder)
    assert [path.name for path in folder.iterdir()] == [WORK_FOLDER]
    server.files["/list"] = b"x" * 1000
    server.requests.clear()
    assert download(data, folder)
    assert server.requests == ["/list"]  # the archives had arrived
    assert everything(folder) == WHOLE


def _stop_at(what: str) -> Callable[[str, int, int | None], None]:
    def moved(moving: str, _done: int, _total: int | None) -> None:
        if moving == what:
            raise KeyboardInterrupt

    return moved


@pytest.mark.parametrize("when", ["a.zip", "b.zip", "list", "unpacking a.zip", "unpacking b.zip"])
def test_an_interrupt_at_any_time_leaves_no_half_data_set(
    data: DataSet, folder: Path, when: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        download(data, folder, Watch(moved=_stop_at(when)))
    assert [path.name for path in folder.iterdir()] == [WORK_FOLDER]
    assert not (folder / WORK_FOLDER / "unpacked").exists()
    assert download(data, folder)
    assert everything(folder) == WHOLE


def test_a_killed_attempt_s_unpacked_files_do_not_get_in(data: DataSet, folder: Path) -> None:
    left = folder / WORK_FOLDER / "unpacked" / "games" / "train"
    left.mkdir(parents=True)
    (left / "half").write_text("ha")
    download(data, folder)
    assert everything(folder) == WHOLE


def test_a_file_fetched_by_other_means_is_taken(data: DataSet, folder: Path, server: Any) -> None:
    work = folder / WORK_FOLDER
    work.mkdir(parents=True)
    for name in ("a.zip", "b.zip", "list"):
        (work / name).write_bytes(server.files.pop(f"/{name}"))
    assert download(data, folder)
    assert server.requests == []
    assert everything(folder) == WHOLE


def test_a_broken_archive_is_removed_and_fetched_again(
    data: DataSet, folder: Path, server: Any
) -> None:
    whole = server.files["/b.zip"]
    server.files["/b.zip"] = whole[:-40]
    with pytest.raises(DataError, match=r"b\.zip is no whole zip archive.*fetches it again"):
        download(data, folder)
    assert [path.name for path in folder.iterdir()] == [WORK_FOLDER]
    server.files["/b.zip"] = whole
    assert download(data, folder)


def test_an_archive_that_leads_out_is_refused(
    data: DataSet, folder: Path, server: Any, tmp_path: Path
) -> None:
    server.files["/b.zip"] = zipped({"../../../evil": b"1"})
    with pytest.raises(DataError, match="only ordinary files below one folder"):
        download(data, folder)
    assert list(tmp_path.rglob("evil")) == []


def test_archives_without_what_was_promised_are_refused(
    data: DataSet, folder: Path, server: Any
) -> None:
    server.files["/b.zip"] = zipped({"other": b"1"})
    with pytest.raises(DataError, match="the archives hold no games/test"):
        download(data, folder)
    assert [path.name for path in folder.iterdir()] == [WORK_FOLDER]


def test_half_a_data_set_of_somebody_else_is_neither_taken_nor_touched(
    data: DataSet, folder: Path, server: Any
) -> None:
    (folder / "games" / "train").mkdir(parents=True)
    (folder / "games" / "train" / "mine").write_text("precious")
    with pytest.raises(DataError, match=r"games is in the way: it has not all of .* with --to"):
        download(data, folder)
    assert everything(folder) == ["games/train/mine"]
    assert server.requests == []


def test_a_file_of_another_size_in_its_place_is_refused(data: DataSet, folder: Path) -> None:
    folder.mkdir()
    (folder / "list").write_bytes(b"x" * 10)
    with pytest.raises(DataError, match=r"list has 10 bytes, expected 1000; move it away"):
        download(data, folder)
    assert (folder / "list").read_bytes() == b"x" * 10


def test_a_failure_that_leaves_nothing_to_resume_leaves_nothing(
    data: DataSet, folder: Path, server: Any
) -> None:
    server.files.clear()
    with pytest.raises(DataError, match="404"):
        download(data, folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write into the folder"):
        download(data, tmp_path / "file" / "data")


def test_two_downloads_at_once_do_not_mix(data: DataSet, folder: Path, server: Any) -> None:
    work = folder / WORK_FOLDER
    work.mkdir(parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"another download into .* is running"):
            download(data, folder)
    assert server.requests == []
    assert download(data, folder)  # the lock of one that has ended does not matter


def test_preparation_runs_after_all_is_there_and_again_when_it_was(
    data: DataSet, folder: Path
) -> None:
    prepared: list[list[str]] = []
    with_it = DataSet(
        data.about, data.licence, data.files, data.default_folder, data.variable, data.suite,
        data.unpacked, prepare=lambda where, _watch: prepared.append(everything(where)),
    )  # fmt: skip
    download(with_it, folder)
    download(with_it, folder)
    assert prepared == [WHOLE, WHOLE]


def test_the_size_of_a_data_set_is_known_if_every_file_s_is(data: DataSet) -> None:
    assert data.size is None
    files = (RemoteFile("a", (), 3), RemoteFile("b", (), 4))
    known = DataSet("", "", files, data.default_folder, "", "")
    assert known.size == 7


KILLED = """
import sys
from pathlib import Path
from agentgym.download import DataSet, download
from agentgym.fetch import RemoteFile, Watch

url, sha, folder = sys.argv[1:]
file = RemoteFile("big", (url,), sha256=sha)
data = DataSet("", "", (file,), lambda: Path(folder), "", "")
def moved(_what, done, _total):
    sys.stdout.write(f"{done}\\n")
    sys.stdout.flush()
download(data, Path(folder), Watch(moved=moved))
"""


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill -9"])
def test_a_program_that_is_stopped_leaves_a_part_that_is_taken_up(
    server: Any, folder: Path, kill: signal.Signals
) -> None:
    body = bytes(range(256)) * 8192
    server.files["/big"], server.stall_after = body, 1_000_000
    sha = hashlib.sha256(body).hexdigest()
    command = [sys.executable, "-c", KILLED, f"{server.url}/big", sha, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stdout is not None
        assert any(int(line) > 900_000 for line in running.stdout)
        running.send_signal(kill)
        running.wait(timeout=30)
    server.stall_after = None
    assert [path.name for path in folder.iterdir()] == [WORK_FOLDER]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert (folder / "big").read_bytes() == body
    assert [path.name for path in folder.iterdir()] == ["big"]
    assert server.ranges[-1] is not None
    assert server.sent < len(body) + 1_000_000  # it was not sent again from its start
