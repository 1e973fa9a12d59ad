"""A vLLM server that is started here, watched, started again where it died, and ended.

The process knows nothing of weights that were loaded later: who asks it for samples notices that it
was restarted and loads them again (:mod:`agentgym.policies.vllm_replica`).
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

from agentgym.errors import ServerError, UsageError
from agentgym.files import make_folder
from agentgym.policies import serve_guard
from agentgym.policies.serve_address import free_port, refuse_taken, url_of
from agentgym.policies.serve_command import (
    Served,
    ServeOptions,
    command_line,
    environment,
    find_vllm,
)

_POLL_S = 0.25
_TELL_EVERY_S = 15.0
_HEALTH_S = 5.0  # for an answer
_HANGS_AFTER_S = 60.0  # without one
_STARTS = 3  # in a row that fail before it is given up
_CLOSE_S = 15.0
_PORT_S = 10.0  # until the port of one that was killed is free
_ERROR = re.compile(r"\b\w*(Error|Exception): ")
_TAIL = 65536  # bytes of the log that are looked at


class ModelServer:
    """A vLLM server in a process group of its own, on this machine only.

    A context manager: inside it is running.

    Args:
        served: What it serves.
        options: How it is started.
        log: File that its output is appended to.
        say: Told what people should know.
        name: What people are told that it is.

    Attributes:
        url: Where it is.
        restarts: How often it was started again.
        asleep: Whether somebody sent it to sleep. Nobody asks how it is then, and if it dies it is
            started again when it shall wake: others have its GPU.

    Raises:
        UsageError: vLLM is not there, or it would be open to everybody.
        DataError: The log cannot be written.
    """

    def __init__(
        self,
        served: Served,
        options: ServeOptions,
        log: Path,
        say: Callable[[str], None],
        name: str = "vLLM",
    ) -> None:
        port = options.port or free_port()
        options.refuse_open()
        host = options.host
        self._address = host, port
        self._command = command_line(find_vllm(options.vllm), served, port, options.flags, host)
        self._environment = environment(served, options.devices, host)
        self._patience, self._say, self._log, self._name = options.patience, say, log, name
        make_folder(log.parent)
        self.url = url_of(host, port)
        self.restarts = 0
        self.asleep = False
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = Event()
        self._watcher = Thread(target=self._watch, name="agentgym-watch", daemon=True)

    def __enter__(self) -> ModelServer:
        """Start it and wait until it is ready.

        Raises:
            UsageError: Its port is taken.
            ServerError: It ended, or took too long; the message has the end of its log.
        """
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, with all processes that it started."""
        self.let_go()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSE_S)
        self._kill()

    def let_go(self) -> None:
        """Let it end, and do not wait until it has; :meth:`__exit__` does."""
        self._closing.set()
        if self._watcher.ident is not None:  # it was ready, and is watched
            self._watcher.join()
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # the guard ends the group

    def start(self) -> None:
        """Start it, and wait for nothing; the block's end, or :meth:`__exit__`, ends it.

        Raises:
            UsageError: Its port is taken.
        """
        refuse_taken(*self._address)
        self._say(f"starting {self._name} at {self.url}; its log: {self._log}")
        self._start()

    def wait_until_ready(self) -> None:
        """Wait for a server that was started, and watch it from then on.

        One that was killed meanwhile is started again; one that ended by itself would do so again.

        Raises:
            ServerError: As on entering.
        """
        for left in reversed(range(_STARTS)):
            try:
                self._wait_until_ready()
            except ServerError:
                if not left or not self._was_killed():
                    raise
                self._say(f"{self._name} was killed while it was started, and is started again")
                self._kill()
                self._start_again()
            else:
                break
        self._watcher.start()

    @property
    def group(self) -> int:
        """The process group that it runs in now."""
        assert self._process is not None
        return self._process.pid

    def wait(self) -> None:
        """Wait until it is given up.

        Raises:
            ServerError: It was: it died again and again.
        """
        self._watcher.join()
        if not self._closing.is_set():
            raise ServerError(
                f"{self._name} was given up: {self._last_words()}; its log: {self._log}"
            )

    # Inside -----------------------------------------------------------------------------------

    def _start_again(self) -> None:
        refuse_taken(*self._address, _PORT_S)
        self._start()

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._begun_at = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 (what the user asked to run)
                [sys.executable, str(serve_guard.__file__), *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # an interrupt from the keyboard is not for the server
            )

    def _wait_until_ready(self) -> None:
        begun = told = time.monotonic()
        while not self._is_up():
            if self._ended():
                raise ServerError(
                    f"{self._name} ended while it was started: {self._last_words()}; its log:"
                    f" {self._log}"
                )
            now = time.monotonic()
            if now - begun > self._patience:
                raise ServerError(
                    f"{self._name} is not ready after {now - begun:.0f} s (policy.serve.patience);"
                    f" its last words: {self._last_words()}; its log: {self._log}"
                )
            if now - told > _TELL_EVERY_S:
                told = now
                self._say(f"waiting for {self._name}, {now - begun:.0f} s: {self._last_words()}")
            if self._closing.wait(_POLL_S):
                return

    def _watch(self) -> None:
        heard = time.monotonic()
        failures = 0
        while not self._closing.wait(_POLL_S * 4):
            if self.asleep or self._is_up():
                heard, failures = time.monotonic(), 0
                continue
            hangs = time.monotonic() - heard > _HANGS_AFTER_S
            if not self._ended() and not hangs:
                continue
            if failures == _STARTS:
                self._say(
                    f"{self._name} died {_STARTS} times in a row and is given up; log: {self._log}"
                )
                return
            failures += 1
            self._say(
                f"{self._name} {'hangs' if hangs else 'died'} and is started again: its log"
                f" {self._log}"
            )
            self._restart()
            heard = time.monotonic()

    def _restart(self) -> None:
        self._kill()
        self.restarts += 1
        try:
            self._start_again()
            self._wait_until_ready()
        except (ServerError, UsageError) as error:
            self._say(str(error))
        else:
            if not self._closing.is_set():
                self._say(f"{self._name} is ready again")

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _was_killed(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        return code in (-signal.SIGKILL, 128 + signal.SIGKILL)

    def _is_up(self) -> bool:
        """Return whether it answers; where it ended, whoever does is another."""
        return not self._ended() and self._answers()

    def _answers(self) -> bool:
        # No proxy stands before this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.url}/health", timeout=_HEALTH_S) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):  # refused, too late, an error, half an answer
            return False

    def _kill(self) -> None:
        """End whatever is left of the group, at once; the leader's death leaves the others."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _last_words(self) -> str:
        """Return the last line of the log; of one that ended, the last that names an exception."""
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._begun_at, size - _TAIL))
            lines = log.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        errors = [line for line in said if _ERROR.search(line)] if self._ended() else []
        return (errors or said or ["(nothing)"])[-1][:300]
