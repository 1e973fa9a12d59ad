"""Fetching one file over HTTP: resumed where it stopped, and verified before it counts as there.

What has arrived lies in ``NAME.part`` beside a note of where it came from. An interrupt, a lost
connection or a full disk leaves both, and the next attempt goes on from there if the server can;
``NAME`` itself appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from agentgym import __version__
from agentgym.errors import DataError
from agentgym.partial import Part, Source

if TYPE_CHECKING:
    import httpx2

ATTEMPTS = 5
"""Failures in a row after which an address is given up; a megabyte of progress starts anew."""

_PROGRESS = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_LONGEST_PAUSE = 60.0
_LONGEST_PAGE = 1 << 20
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may pass
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that can be had at one of several addresses.

    ``urls`` are tried in order, the publisher's own first. Where ``sha256`` is known it does not
    matter which of them answers.
    """

    name: str  # what it is called once it is here
    urls: tuple[str, ...]
    size: int | None = None  # bytes; None where nobody wrote it down
    sha256: str | None = None  # hexadecimal
    archive: bool = False  # a zip file, of which only the content is wanted
    follow: Callable[[str], str | None] | None = None
    """Return the address that a web page, given as HTML, asks to confirm; None if it asks nothing.

    For hosts that put a page before a large file.
    """


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how it goes."""

    moved: Callable[[str, int, int | None], None] = lambda _what, _done, _total: None
    """What is being moved, how many bytes are there, and of how many if that is known."""
    said: Callable[[str], None] = lambda _line: None
    """One line about what did not go as it should, and what is done about it."""


class _Unavailable(Exception):  # noqa: N818 (an answer, not an error of ours)
    """This address does not have the file; another may."""


class _Interrupted(Exception):  # noqa: N818
    """This attempt failed, and the next may not."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause  # seconds that the server asks to wait


def fetch(file: RemoteFile, folder: Path, watch: Watch | None = None) -> Path:
    """Fetch a file into a folder, unless it is there.

    Args:
        file: What is wanted. Of size and hash, what is known is verified.
        folder: Where to; it exists.
        watch: Who is told how it goes.

    Returns:
        The path of the file.

    Raises:
        DataError: No address has it, a file of that name is another one, or the disk is full.
    """
    path = folder / file.name
    if path.exists():
        if wrong := _mismatch(path, file):
            raise DataError(f"{path} is not the file that is expected: {wrong}; delete it")
        return path
    watch = watch or Watch()
    failures: list[str] = []
    with _client() as client:
        fetching = _Fetching(client, file, Part(path), watch)
        for url in file.urls:
            if failures:
                watch.said(f"{failures[-1]}; trying {url}")
            try:
                fetching.read(url)
            except _Unavailable as failure:
                failures.append(f"{url} {failure}")
            else:
                return path
    raise DataError(
        f"{file.name} could not be fetched: {'; '.join(failures)}. Try again later, or fetch it by"
        f" other means, put it at {path}, and run the same command again"
    )


def _client() -> httpx2.Client:
    import httpx2

    # A file's own bytes: what is compressed on its way can be neither counted nor resumed.
    headers = {"User-Agent": f"agentgym/{__version__}", "Accept-Encoding": "identity"}
    return httpx2.Client(headers=headers, timeout=_TIMEOUT, follow_redirects=True)


class _Fetching:
    """Brings one file here, from whichever address has it."""

    def __init__(self, client: httpx2.Client, file: RemoteFile, part: Part, watch: Watch) -> None:
        self._client = client
        self._file = file
        self._part = part
        self._watch = watch

    def read(self, url: str) -> None:
        """Read the whole file from an address, in as many attempts as are worth it."""
        failed, furthest = 0, self._part.size
        while True:
            try:
                self._attempt(url)
            except _Interrupted as failure:
                failed = 1 if self._part.size >= furthest + _PROGRESS else failed + 1
                furthest = max(furthest, self._part.size)
                if failed == ATTEMPTS:
                    raise _Unavailable(f"failed {failed} times, the last time: {failure}") from None
                pause = min(failure.pause or 2.0 ** (failed - 1), _LONGEST_PAUSE)
                self._watch.said(f"{self._file.name}: {failure}; next attempt in {pause:.0f} s")
                sleep(pause)
            else:
                return

    def _attempt(self, url: str) -> None:
        """Go on as far as one connection carries, and finish the file if that is to its end."""
        resumed = self._part.size > 0
        page = self._request(url, url)
        if page is not None and self._file.follow is not None:
            confirmed = self._file.follow(page)
            page = page if confirmed is None else self._request(confirmed, url)
        if page is not None:
            raise _Unavailable(f"answered with a web page instead of the file{_titled(page)}")
        if wrong := _mismatch(self._part.path, self._file):
            self._part.discard()
            if resumed:  # perhaps the pieces are of two versions
                raise _Interrupted(f"what was put together is not the file: {wrong}")
            raise _Unavailable(f"sent another file: {wrong}")
        self._part.finish()

    def _request(self, address: str, url: str) -> str | None:
        """Read from ``address``, which stands for ``url``; return a web page instead of it."""
        import httpx2

        try:
            with self._client.stream(
                "GET", address, headers=self._part.conditions(url)
            ) as response:
                if _is_page(response):
                    return _page(response)
                total = self._prepare(response, url)
                if total is None or self._part.size < total:
                    self._receive(response, total)
        except httpx2.TransportError as error:
            raise _Interrupted(str(error) or type(error).__name__) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _Unavailable(f"cannot be read: {error}") from error
        if total is not None and self._part.size != total:
            raise _Interrupted(f"the connection ended after {self._part.size} of {total} bytes")
        return None

    def _prepare(self, response: httpx2.Response, url: str) -> int | None:
        """Make ready for what a response brings; return the size of the whole file if known."""
        self._refuse_status(response)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _Unavailable("compresses what it sends, although it was asked not to")
        total = self._total(response)
        if None not in (total, self._file.size) and total != self._file.size:
            raise _Unavailable(f"has another file: {total} bytes, expected {self._file.size}")
        _refuse_without_room(self._part.path.parent, (total or 0) - self._part.size)
        if response.status_code == 200:
            self._part.begin(Source(url, _validator(response)))
        return total

    def _refuse_status(self, response: httpx2.Response) -> None:
        status = response.status_code
        said = f"answered {status} {response.reason_phrase}".strip()
        if status in _LATER:
            raise _Interrupted(said, _retry_after(response))
        if status == 416:
            whole = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if not (whole and whole[2] == str(self._part.size)):  # else nothing is left to send
                self._part.discard()
                raise _Interrupted("cannot send the rest; starting again")
        elif status not in (200, 206):
            raise _Unavailable(said)

    def _total(self, response: httpx2.Response) -> int | None:
        """Return the size of the whole file; refuse a piece that does not continue the part."""
        if response.status_code == 200:
            length = response.headers.get("content-length")
            return int(length) if length else None
        sent = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if sent is None or (sent[1] is not None and int(sent[1]) != self._part.size):
            self._part.discard()
            raise _Interrupted("sent another piece than was asked for; starting again")
        return None if sent[2] == "*" else int(sent[2])

    def _receive(self, response: httpx2.Response, total: int | None) -> None:
        with self._part.writing() as write:
            for chunk in response.iter_raw():
                write(chunk)
                self._watch.moved(self._file.name, self._part.size, total)


def _is_page(response: httpx2.Response) -> bool:
    kind = response.headers.get("content-type", "")
    return response.status_code in (200, 206) and kind.startswith("text/html")


def _page(response: httpx2.Response) -> str:
    read = bytearray()
    for chunk in response.iter_bytes():
        read += chunk
        if len(read) > _LONGEST_PAGE:
            break
    return read.decode(errors="replace")


def _titled(page: str) -> str:
    title = _TITLE.search(page)
    return f" ({' '.join(title[1].split())[:80]})" if title else ""


def _retry_after(response: httpx2.Response) -> float | None:
    seconds = response.headers.get("retry-after", "")
    return float(seconds) if seconds.isdecimal() else None


def _validator(response: httpx2.Response) -> str | None:
    """Return what tells this version of the file from others, as If-Range wants it."""
    etag: str | None = response.headers.get("etag")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("last-modified")
    return modified


def _refuse_without_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"no room for {needed} more bytes in {folder}, where {free} are free; make room and run"
            " the same command again"
        )


def _mismatch(path: Path, file: RemoteFile) -> str | None:
    """Return in what a file differs from what is expected; None where it does not."""
    size = path.stat().st_size
    if file.size not in (None, size):
        return f"{size} bytes, expected {file.size}"
    if file.sha256 is not None:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != file.sha256:
            return f"its SHA-256 begins with {found[:12]}, expected {file.sha256[:12]}"
    return None
