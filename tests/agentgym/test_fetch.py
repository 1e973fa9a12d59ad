"""Fetching a file from a real HTTP server that misbehaves in every way the real ones do."""

import errno
import hashlib
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym import fetch as fetching
from agentgym.errors import DataError
from agentgym.fetch import ATTEMPTS, RemoteFile, Watch, fetch

BODY = bytes(range(256)) * 4096  # 1 MiB: more than any buffer on the way
SHA = hashlib.sha256(BODY).hexdigest()
PAGE = b"<!doctype html><html><title>Sign\nin</title></html>"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause between attempts, none of which is waited for."""
    waited: list[float] = []
    monkeypatch.setattr(fetching, "sleep", waited.append)
    return waited


def known(server: Any, *paths: str, **more: Any) -> RemoteFile:
    urls = tuple(server.url + path for path in paths or ("/file",))
    return RemoteFile("file", urls, len(BODY), SHA, **more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Whole files --------------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = BODY
    moved: list[tuple[str, int, int | None]] = []
    path = fetch(known(server), tmp_path, Watch(moved=lambda *step: moved.append(step)))
    assert path == tmp_path / "file"
    assert path.read_bytes() == BODY
    assert names(tmp_path) == ["file"]
    assert moved[-1] == ("file", len(BODY), len(BODY))
    assert [done for _, done, _ in moved] == sorted(done for _, done, _ in moved)


def test_a_file_that_is_there_is_not_fetched_again(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert server.requests == []


def test_another_file_of_that_name_is_kept_and_refused(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY[:-1] + b"x")
    with pytest.raises(DataError, match="not the file that is expected: its SHA-256"):
        fetch(known(server), tmp_path)
    assert (tmp_path / "file").read_bytes() == BODY[:-1] + b"x"


def test_a_redirect_is_followed(server: Any, tmp_path: Path) -> None:
    server.files["/other"] = BODY
    server.redirects["/file"] = "/other"
    assert fetch(known(server), tmp_path).read_bytes() == BODY


def test_redirects_without_end_are_given_up(server: Any, tmp_path: Path) -> None:
    server.redirects["/file"] = "/file"
    with pytest.raises(DataError, match="redirects"):
        fetch(known(server), tmp_path)


def test_a_file_whose_length_the_server_does_not_tell_arrives(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = BODY
    server.chunked = True
    assert fetch(known(server), tmp_path).read_bytes() == BODY


def test_an_empty_file_is_a_file(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = b""
    assert fetch(RemoteFile("file", (server.url + "/file",), 0), tmp_path).read_bytes() == b""


# Cut connections ----------------------------------------------------------------------------------


def test_a_cut_connection_is_taken_up_where_it_broke(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = BODY
    server.cuts = [400_000, 300_000]
    said: list[str] = []
    assert fetch(known(server), tmp_path, Watch(said=said.append)).read_bytes() == BODY
    assert server.ranges == [None, "bytes=400000-", "bytes=700000-"]
    assert server.sent == len(BODY)
    assert len(pauses) == len(said) == 2


def test_a_server_without_ranges_starts_again(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = BODY
    server.cuts = [400_000]
    server.knows_ranges = False
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert server.sent == 400_000 + len(BODY)
    assert len(pauses) == 1


def test_without_a_version_nothing_is_put_together(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = BODY
    server.cuts = [400_000]
    server.etag = None
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert server.ranges == [None, None]
    assert len(pauses) == 1


def test_a_file_that_changed_meanwhile_is_fetched_anew(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = b"old" * 300_000
    server.cuts = [400_000]

    def change(_line: str) -> None:
        server.files["/file"], server.etag = BODY, '"second"'

    url = (server.url + "/file",)
    assert fetch(RemoteFile("file", url), tmp_path, Watch(said=change)).read_bytes() == BODY
    assert server.ranges == [None, "bytes=400000-"]
    assert len(pauses) == 1


def test_pieces_that_do_not_make_the_file_are_fetched_once_more(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = b"x" * len(BODY)
    server.cuts = [400_000]

    def change(_line: str) -> None:  # and the version is claimed to be the same
        server.files["/file"] = BODY

    assert fetch(known(server), tmp_path, Watch(said=change)).read_bytes() == BODY
    assert server.ranges == [None, "bytes=400000-", None]
    assert len(pauses) == 2


def test_a_server_that_sends_another_piece_is_asked_for_the_whole(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = BODY
    server.cuts = [400_000]
    server.shift = 7
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=400000-", None]
    assert len(pauses) == 2


def test_a_part_that_was_whole_already_needs_no_more_bytes(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = BODY
    server.cuts = [len(BODY) - 1]
    with pytest.raises(KeyboardInterrupt):
        fetch(known(server), tmp_path, Watch(said=_interrupt))
    with (tmp_path / "file.part").open("ab") as stream:
        stream.write(BODY[-1:])
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert server.sent == len(BODY) - 1
    assert pauses == []


def test_a_server_that_never_gets_further_is_given_up(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = BODY
    server.cuts = [10] * 100
    with pytest.raises(
        DataError, match=r"failed 5 times, the last time: .*(10|20|30|40|50) (of|bytes)"
    ):
        fetch(known(server), tmp_path)
    assert len(server.requests) == ATTEMPTS
    assert pauses == [1, 2, 4, 8]
    assert (tmp_path / "file.part").stat().st_size == 10 * ATTEMPTS  # kept for another time


def test_a_server_that_falls_silent_is_asked_again(
    server: Any, tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_TIMEOUT", 0.5)
    server.files["/file"], server.stall_after = BODY, 400_000

    def wake(_line: str) -> None:
        server.stall_after = None

    assert fetch(known(server), tmp_path, Watch(said=wake)).read_bytes() == BODY
    assert server.ranges == [None, "bytes=400000-"]
    assert len(pauses) == 1


# Interrupts ---------------------------------------------------------------------------------------


def _interrupt(*_anything: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_leaves_a_part_and_the_next_run_goes_on(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = BODY

    def stop(_name: str, done: int, _total: int | None) -> None:
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(known(server), tmp_path, Watch(moved=stop))
    assert names(tmp_path) == ["file.part", "file.part.json"]
    there = (tmp_path / "file.part").stat().st_size
    assert 500_000 < there < len(BODY)
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={there}-"]
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"url": 1}', '{"no": "note"}'])
def test_a_part_of_unknown_origin_is_not_built_upon(server: Any, tmp_path: Path, note: str) -> None:
    server.files["/file"] = BODY
    (tmp_path / "file.part").write_bytes(b"from elsewhere")
    (tmp_path / "file.part.json").write_text(note)
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert server.ranges == [None]


def test_a_part_outlives_an_address_that_answers_nothing_useful(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/mirror"] = BODY
    server.cuts = [400_000]
    file = known(server, "/file", "/mirror")
    with pytest.raises(KeyboardInterrupt):
        fetch(file, tmp_path, Watch(said=lambda line: "next" in line and _interrupt()))
    assert fetch(file, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, None, None, "bytes=400000-"]
    assert pauses == []


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_a_refusal_is_told_with_the_remedy_and_not_repeated(
    server: Any, tmp_path: Path, status: int
) -> None:
    server.statuses = [status]
    with pytest.raises(DataError, match=f"answered {status} .*put it at .*/file") as error:
        fetch(known(server), tmp_path)
    assert "\n" not in str(error.value)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_with_growing_pauses(
    server: Any, tmp_path: Path, pauses: list[float], status: int
) -> None:
    server.files["/file"] = BODY
    server.statuses = [status] * 3
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert pauses == [1, 2, 4]


def test_a_lasting_failure_is_given_up(server: Any, tmp_path: Path, pauses: list[float]) -> None:
    server.statuses = [500] * 100
    with pytest.raises(DataError, match="failed 5 times, the last time: answered 500"):
        fetch(known(server), tmp_path)
    assert pauses == [1, 2, 4, 8]


def test_the_pause_that_a_server_asks_for_is_kept_up_to_a_minute(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files["/file"] = BODY
    server.statuses = [429, 429, 429]
    server.retry_after = ["7", "86400", "Wed, 21 Oct 2026 07:28:00 GMT"]
    fetch(known(server), tmp_path)
    assert pauses == [7, 60, 4]


def test_nobody_at_the_address_is_said(tmp_path: Path, pauses: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    with pytest.raises(DataError, match=r"failed 5 times, the last time: .*refused"):
        fetch(RemoteFile("file", (url,)), tmp_path)
    assert len(pauses) == ATTEMPTS - 1


def test_another_file_at_the_address_is_refused_before_it_is_fetched(
    server: Any, tmp_path: Path
) -> None:
    server.files["/file"] = BODY * 2
    with pytest.raises(DataError, match=f"has another file: {2 * len(BODY)} bytes, expected"):
        fetch(known(server), tmp_path)
    assert names(tmp_path) == []


def test_a_file_of_another_size_is_refused_where_the_server_tells_none(
    server: Any, tmp_path: Path
) -> None:
    server.files["/file"] = BODY * 2
    server.chunked = True
    with pytest.raises(DataError, match=f"sent another file: {2 * len(BODY)} bytes, expected"):
        fetch(known(server), tmp_path)
    assert names(tmp_path) == []


def test_a_file_with_another_hash_is_refused(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = b"x" * len(BODY)
    with pytest.raises(DataError, match="sent another file: its SHA-256 begins with"):
        fetch(known(server), tmp_path)
    assert names(tmp_path) == []


def test_what_comes_compressed_is_refused(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = BODY
    server.encoding = "gzip"
    with pytest.raises(DataError, match="compresses what it sends"):
        fetch(known(server), tmp_path)


# Web pages ----------------------------------------------------------------------------------------


def test_a_web_page_is_not_taken_for_the_file(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = PAGE
    server.types["/file"] = "text/html; charset=utf-8"
    with pytest.raises(DataError, match=r"web page instead of the file \(Sign in\)"):
        fetch(RemoteFile("file", (server.url + "/file",)), tmp_path)
    assert names(tmp_path) == []


def test_a_page_that_asks_to_confirm_is_confirmed_and_resumed(
    server: Any, tmp_path: Path, pauses: list[float]
) -> None:
    server.files |= {"/file": PAGE, "/confirmed": BODY}
    server.types["/file"] = "text/html"
    server.cuts_of["/confirmed"] = [400_000]
    file = known(server, follow=lambda page: "Sign" in page and server.url + "/confirmed")
    assert fetch(file, tmp_path).read_bytes() == BODY
    assert server.requests == ["/file", "/confirmed"] * 2
    assert server.sent_of["/confirmed"] == len(BODY)
    assert len(pauses) == 1


def test_a_page_behind_the_page_is_refused(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = PAGE
    server.types["/file"] = "text/html"
    with pytest.raises(DataError, match="web page instead of the file"):
        fetch(known(server, follow=lambda _page: server.url + "/file"), tmp_path)
    assert server.requests == ["/file", "/file"]


def test_the_next_address_is_tried_and_the_failure_said(server: Any, tmp_path: Path) -> None:
    server.files["/mirror"] = BODY
    said: list[str] = []
    file = known(server, "/file", "/mirror")
    assert fetch(file, tmp_path, Watch(said=said.append)).read_bytes() == BODY
    assert said == [f"{server.url}/file answered 404 Not Found; trying {server.url}/mirror"]


def test_a_wrong_mirror_is_refused_like_a_wrong_publisher(server: Any, tmp_path: Path) -> None:
    server.files["/mirror"] = b"x" * len(BODY)
    with pytest.raises(DataError, match=r"404 Not Found; .*/mirror sent another file"):
        fetch(known(server, "/file", "/mirror"), tmp_path)


# Disks --------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_refused_before_anything_is_sent(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/file"] = BODY
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DataError, match=f"no room for {len(BODY)} more bytes in .* 1000 are free"):
        fetch(known(server), tmp_path)
    assert names(tmp_path) == []


class FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, stream: Any, room: int) -> None:
        self.stream, self.room = stream, room

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *_error: object) -> None:
        self.stream.close()

    def write(self, chunk: bytes) -> None:
        self.room -= len(chunk)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.stream.write(chunk)


def test_a_disk_that_fills_up_keeps_what_arrived(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/file"] = BODY
    real: Callable[..., Any] = Path.open

    def open_(path: Path, *mode: Any, **more: Any) -> Any:
        stream = real(path, *mode, **more)
        return FullDisk(stream, 600_000) if path.name == "file.part" and mode == ("ab",) else stream

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_)
        with pytest.raises(DataError, match=r"No space left on device; what arrived is kept"):
            fetch(known(server), tmp_path)
    there = (tmp_path / "file.part").stat().st_size
    assert 0 < there <= 600_000
    assert fetch(known(server), tmp_path).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={there}-"]
