"""A server that is started, watched, started again and ended; another program stands for vLLM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from agentgym.errors import DataError, ServerError, UsageError
from agentgym.policies import serve, serve_command, serve_guard
from agentgym.policies.serve import ModelServer
from agentgym.policies.serve_address import refuse_taken, url_of
from agentgym.policies.serve_command import (
    Served,
    ServeOptions,
    command_line,
    environment,
    find_vllm,
)
from agentgym.policies.serve_devices import visible_devices
from agentgym.policies.serve_many import ModelServers

# Knows nothing but that it is well; what is tested is the process around it.
HEALTHY = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

print("Loading weights", flush=True)
if os.environ.get("FAILS"):
    sys.exit("ValueError: this machine has no room for the model")
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""


def program(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Look more often than a real server needs."""
    monkeypatch.setattr(serve, "_POLL_S", 0.02)


@pytest.fixture
def vllm(tmp_path):
    """A command that takes vLLM's arguments."""
    (tmp_path / "healthy.py").write_text(HEALTHY)
    start = f'exec {sys.executable} {tmp_path / "healthy.py"} "$@"'
    return program(tmp_path / "vllm", "sleep 300 &", start)  # a process that it leaves behind


def server_of(vllm, tmp_path, said=None):
    options = ServeOptions(vllm=str(vllm))
    told = [] if said is None else said
    log = tmp_path / "logs" / "vllm.log"
    return ModelServer(Served(model="m", name="tiny"), options, log, told.append)


def healthy(url):
    with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
        return answer.status == 200
    return False


def processes(group):
    """Return the states of the processes of a group that are more than zombies."""
    rows = subprocess.run(["ps", "-eo", "pgid,stat"], capture_output=True, text=True, check=True)
    states = [row.split() for row in rows.stdout.splitlines()[1:]]
    return [state for pgid, state in states if int(pgid) == group and state[0] != "Z"]


def alive(group):
    return bool(processes(group))


def within(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_server_is_there_inside_the_block_and_nothing_is_left_after_it(vllm, tmp_path):
    said: list[str] = []
    with server_of(vllm, tmp_path, said) as server:
        assert healthy(server.url)
        group = server.group
        assert os.getpgid(group) == group != os.getpgid(0)
        assert "127.0.0.1" in server.url
    assert not healthy(server.url)
    within(10, lambda: not alive(group))
    log = tmp_path / "logs" / "vllm.log"
    assert f"starting vLLM at {server.url}; its log: {log}" in said
    assert "Loading weights" in log.read_text()


def test_a_server_that_was_killed_is_started_again_at_the_same_place(vllm, tmp_path):
    said: list[str] = []
    with server_of(vllm, tmp_path, said) as server:
        first = server.group
        os.killpg(first, signal.SIGKILL)
        within(5, lambda: not healthy(server.url))
        within(40, lambda: healthy(server.url))
        assert server.restarts == 1
        assert server.group != first
        within(5, lambda: "vLLM is ready again" in said)
    assert any("died and is started again" in line for line in said)


def test_a_server_that_is_killed_while_it_is_started_is_started_again(tmp_path):
    (tmp_path / "healthy.py").write_text(HEALTHY)
    vllm = program(
        tmp_path / "vllm",
        f"[ -e {tmp_path / 'second'} ] || {{ touch {tmp_path / 'second'}; kill -9 $$; }}",
        f'exec {sys.executable} {tmp_path / "healthy.py"} "$@"',
    )
    said = []
    with server_of(vllm, tmp_path, said) as server:
        assert healthy(server.url)
    assert said[1:] == ["vLLM was killed while it was started, and is started again"]


def test_a_server_that_is_always_killed_while_it_is_started_is_given_up(tmp_path):
    vllm = program(tmp_path / "vllm", "kill -9 $$")
    said = []
    with pytest.raises(ServerError, match="ended while it was started"):
        server_of(vllm, tmp_path, said).__enter__()
    assert len(said) == 3  # three starts


def test_a_server_that_dies_in_its_sleep_is_started_again_when_it_shall_wake(vllm, tmp_path):
    said: list[str] = []
    with server_of(vllm, tmp_path, said) as server:
        server.asleep = True
        os.killpg(server.group, signal.SIGKILL)
        within(5, lambda: not healthy(server.url))
        time.sleep(0.5)  # in which somebody who looks would see it
        assert not any("died" in line for line in said)
        server.asleep = False
        within(40, lambda: healthy(server.url))
        assert server.restarts == 1


@contextmanager
def somebody_else(port=0):
    """Another program, that answers everything as if it were well. Yields its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_anything):
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_port_that_another_program_has_is_refused_and_nothing_is_started(vllm, tmp_path):
    with somebody_else() as port:
        options = ServeOptions(vllm=str(vllm), port=port)
        server = ModelServer(Served(model="m", name="m"), options, tmp_path / "log", print)
        with pytest.raises(UsageError, match=f"port {port} is taken.*another with --port"), server:
            pass
        several = servers_of(vllm, tmp_path, [])
        several.servers[1]._address = ("127.0.0.1", port)
        with pytest.raises(UsageError, match=f"port {port} is taken"), several:
            pass
        within(10, lambda: not alive(several.servers[0].group))
    assert not (tmp_path / "log").exists()


def test_another_program_that_takes_the_port_is_not_taken_for_the_server(
    vllm, tmp_path, monkeypatch
):
    said: list[str] = []
    taken = []

    def be_second(host, port, _patience):
        if not taken:
            taken.append(stack.enter_context(somebody_else(port)))
        refuse_taken(host, port)

    with ExitStack() as stack, server_of(vllm, tmp_path, said) as server:
        monkeypatch.setattr(serve, "refuse_taken", be_second)
        os.killpg(server.group, signal.SIGKILL)
        within(20, lambda: any("times in a row and is given up" in line for line in said))
        assert healthy(server.url)  # as the other one says
    assert f"port {taken[0]} is taken" in " ".join(said)


def test_a_server_is_asked_where_it_listens():
    assert url_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert url_of("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert url_of("::1", 80) == "http://[::1]:80"
    assert url_of("::", 80) == "http://[::1]:80"
    with pytest.raises(UsageError, match=r"nothing can listen at 192\.0\.2\.1, port 80"):
        refuse_taken("192.0.2.1", 80)  # an address of no machine


def test_a_server_that_no_longer_answers_is_replaced(vllm, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "_HANGS_AFTER_S", 0.5)
    monkeypatch.setattr(serve, "_HEALTH_S", 0.2)
    with server_of(vllm, tmp_path) as server:
        first = server.group
        os.killpg(first, signal.SIGSTOP)
        within(40, lambda: server.restarts == 1 and healthy(server.url))
        within(10, lambda: not alive(first))


def test_a_server_that_cannot_start_says_why_in_one_line(vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(ServerError) as caught, server_of(vllm, tmp_path):
        pass
    assert "vLLM ended while it was started: ValueError: this machine has no room" in str(
        caught.value
    )
    assert str(tmp_path / "logs" / "vllm.log") in str(caught.value)


def test_a_server_that_is_never_ready_is_given_up(tmp_path):
    slow = program(tmp_path / "slow", "echo reading a large file", "exec sleep 60")
    served, options = Served(model="m", name="m"), ServeOptions(vllm=str(slow), patience=0.6)
    server = ModelServer(served, options, tmp_path / "log", lambda _: None)
    with pytest.raises(ServerError, match=r"not ready after .* reading a large file"), server:
        pass
    within(5, lambda: not alive(server.group))


def test_a_server_that_dies_again_and_again_is_given_up(vllm, tmp_path):
    said: list[str] = []
    with server_of(vllm, tmp_path, said) as server:
        server._environment = {**server._environment, "FAILS": "1"}
        os.killpg(server.group, signal.SIGKILL)
        with pytest.raises(ServerError, match="given up: ValueError: this machine has no room"):
            server.wait()
    assert any("died 3 times in a row" in line for line in said)


def test_a_server_does_not_outlive_a_starter_that_was_killed(tmp_path):
    sleeper = program(tmp_path / "sleeper", "echo up", "exec sleep 300")
    starter = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from agentgym.policies.serve import ModelServer\n"
        "from agentgym.policies.serve_command import Served, ServeOptions\n"
        "options = ServeOptions(vllm=sys.argv[1])\n"
        "server = ModelServer(Served(model='m', name='m'), options, Path(sys.argv[2]), print)\n"
        "server._start()\n"
        "print(server.group, flush=True)\n"
        "time.sleep(300)\n"
    )
    log = tmp_path / "log"
    with subprocess.Popen(
        [sys.executable, "-c", starter, sleeper, log], stdout=subprocess.PIPE, text=True
    ) as started:
        group = int(started.stdout.readline())
        within(10, lambda: log.exists() and "up" in log.read_text())
        assert alive(group)
        started.kill()
    within(10, lambda: not alive(group))


def test_what_a_server_leaves_behind_is_ended_though_it_does_not_listen(tmp_path):
    stubborn = program(
        tmp_path / "stubborn", "(trap '' TERM; echo deaf; sleep 300) &", "exec sleep 300"
    )
    hurried = (
        "import sys\nfrom agentgym.policies import serve_guard\n"
        "serve_guard._GRACE_S = 0.5\nserve_guard.main()\n"
    )
    command = [sys.executable, "-c", hurried, stubborn]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as guard:
        assert guard.stdout.readline() == b"deaf\n"
        guard.stdin.close()
        within(10, lambda: not alive(guard.pid))


def test_a_guard_does_not_wait_for_what_has_ended(tmp_path):
    listens = program(tmp_path / "listens", "sleep 300 &", "exec sleep 300")
    command = [sys.executable, serve_guard.__file__, listens]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        within(10, lambda: len(processes(guard.pid)) == 3)
        guard.stdin.close()
        assert guard.wait(serve_guard._GRACE_S / 2) == 128 + signal.SIGTERM


# Several -----------------------------------------------------------------------------------------


def servers_of(vllm, tmp_path, said, **options):
    asked = ServeOptions(vllm=str(vllm), replicas=2, **options)
    log = tmp_path / "logs" / "vllm.log"
    return ModelServers(Served(model="m", name="tiny"), asked, log, said.append)


def test_several_servers_are_each_watched_by_itself(vllm, tmp_path):
    said: list[str] = []
    with servers_of(vllm, tmp_path, said) as servers:
        first, second = servers.servers
        assert len(set(servers.urls)) == 2
        assert all(healthy(url) for url in servers.urls)
        groups = [first.group, second.group]
        os.killpg(second.group, signal.SIGKILL)
        within(40, lambda: second.restarts == 1 and healthy(second.url))
        assert first.restarts == 0
        assert first.group == groups[0]
        groups.append(second.group)
    within(10, lambda: not any(alive(group) for group in groups))
    assert any(line.startswith("vLLM 2 of 2 died and is started again") for line in said)
    assert all((tmp_path / "logs" / f"vllm-{n}.log").exists() for n in (0, 1))


def test_where_one_of_several_cannot_start_none_is_left(vllm, tmp_path):
    fails = f"mkdir {tmp_path}/first || exit 1; exec"  # the second one: a folder is made once
    vllm.write_text(vllm.read_text().replace("exec", fails))
    servers = servers_of(vllm, tmp_path, [])
    with pytest.raises(ServerError, match=r"vLLM [12] of 2 ended while it was started"), servers:
        pass
    within(10, lambda: not any(alive(server.group) for server in servers.servers))


def test_servers_are_waited_for_until_the_last_one_is_given_up(vllm, tmp_path):
    said: list[str] = []
    with servers_of(vllm, tmp_path, said) as servers:
        for server in servers.servers:
            server._environment = {**server._environment, "FAILS": "1"}
            os.killpg(server.group, signal.SIGKILL)
        with pytest.raises(ServerError, match=r"vLLM 2 of 2 was given up"):
            servers.wait()
    assert sum("times in a row and is given up" in line for line in said) == 2


def test_several_servers_are_told_to_end_before_any_is_waited_for(vllm, tmp_path):
    wait_for_the_other = """
import signal, time
from pathlib import Path
folder, port = Path(sys.argv[0]).parent, sys.argv[sys.argv.index("--port") + 1]

def end(*_):
    (folder / f"told-{port}").touch()
    while len(list(folder.glob("told-*"))) < 2:
        time.sleep(0.02)
    (folder / f"ended-{port}").touch()
    os._exit(0)

signal.signal(signal.SIGTERM, end)
"""
    (tmp_path / "healthy.py").write_text(HEALTHY.replace("print(", f"{wait_for_the_other}\nprint("))
    with servers_of(vllm, tmp_path, []):
        pass
    assert len(list(tmp_path.glob("ended-*"))) == 2


def test_ports_follow_one_another(vllm, tmp_path):
    servers = servers_of(vllm, tmp_path, [], port=8765)
    assert servers.urls == ("http://127.0.0.1:8765", "http://127.0.0.1:8766")


def test_each_server_has_gpus_of_its_own(vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7,8")
    servers = servers_of(vllm, tmp_path, [], tensor_parallel=2)
    seen = [server._environment["CUDA_VISIBLE_DEVICES"] for server in servers.servers]
    assert seen == ["3,5", "6,7"]
    assert all("--tensor-parallel-size 2" in " ".join(s._command) for s in servers.servers)
    named = servers_of(vllm, tmp_path, [], devices=("1", "2"))
    seen = [server._environment["CUDA_VISIBLE_DEVICES"] for server in named.servers]
    assert seen == ["1", "2"]
    with pytest.raises(UsageError, match=r"2 servers of 4 GPUs each need 8 GPUs, and there are 5"):
        servers_of(vllm, tmp_path, [], tensor_parallel=4)


def test_the_gpus_of_a_machine_are_asked_of_its_driver(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_devices() == ()
    program(tmp_path / "nvidia-smi", "echo 0", "echo 1")
    assert visible_devices() == ("0", "1")
    program(tmp_path / "nvidia-smi", "echo no driver is running", "exit 9")
    assert visible_devices() == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == ()


# Finding vLLM ------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("AGENTGYM_VLLM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_vllm_is_looked_for_where_it_was_said_then_in_the_environment_then_on_the_path(
    nowhere, monkeypatch
):
    with pytest.raises(UsageError, match=r"no vllm on the PATH; pip install 'agentgym\[vllm\]'"):
        find_vllm(None)
    on_path = program(nowhere / "vllm")
    assert find_vllm(None) == (str(on_path), "serve")
    python = nowhere / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    program(python)
    monkeypatch.setenv("AGENTGYM_VLLM", str(nowhere / "venv"))
    module = ("-m", "vllm.entrypoints.openai.api_server")
    assert find_vllm(None) == (str(python), *module)
    other = program(nowhere / "my-vllm")
    assert find_vllm(str(other)) == (str(other), "serve")


@pytest.mark.parametrize("said", ["--vllm", "$AGENTGYM_VLLM"])
def test_a_vllm_that_is_not_there_says_who_named_it(said, nowhere, monkeypatch):
    gone = str(nowhere / "gone")
    monkeypatch.setenv("AGENTGYM_VLLM", gone)
    with pytest.raises(UsageError) as caught:
        find_vllm(gone if said == "--vllm" else None)
    assert f"{said} is {gone!r}, no program" in str(caught.value)


def test_the_command_line_asks_for_what_training_needs(monkeypatch):
    monkeypatch.setattr(serve_command, "has_gpu", lambda: True)
    served = Served(model="DIR", name="tiny", max_model_len=2048, lora_rank=12)
    line = " ".join(command_line(("vllm", "serve"), served, 8123, ("--seed", "3")))
    assert line == (
        "vllm serve DIR --served-model-name tiny --host 127.0.0.1 --port 8123 --dtype float32"
        " --logprobs-mode processed_logprobs --max-model-len 2048"
        " --enable-lora --max-lora-rank 16 --max-loras 2 --seed 3"
    )
    plain = command_line(("py", "-m", "module"), Served(model="DIR", name="tiny"), 1, ())
    assert plain[:5] == ["py", "-m", "module", "--model", "DIR"]
    assert "--enable-lora" not in plain


def test_servers_behind_the_last_port_are_refused_where_they_are_asked_for():
    assert ServeOptions(port=65534, replicas=2).port == 65534
    assert ServeOptions(port=0, replicas=70000).port == 0
    said = (
        r"2 servers from port 65535 on need those up to 65536, .*choose at most 65534 with --port"
    )
    with pytest.raises(UsageError, match=said):
        ServeOptions(port=65535, replicas=2)


def test_a_server_for_other_machines_needs_a_key_and_takes_no_weights(monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    ServeOptions().refuse_open()
    wide = ServeOptions(host="0.0.0.0")
    with pytest.raises(UsageError, match=r"needs a key in \$VLLM_API_KEY"):
        wide.refuse_open()
    monkeypatch.setenv("VLLM_API_KEY", "a secret of mine")
    wide.refuse_open()
    served = Served(model="DIR", name="tiny")
    line = command_line(("vllm", "serve"), served, 1, (), wide.host)
    assert line[line.index("--host") + 1] == "0.0.0.0"
    assert "a secret of mine" not in " ".join(line)
    # What takes weights is at /collective_rpc, which vLLM's key does not guard.
    assert environment(served, (), wide.host)["VLLM_SERVER_DEV_MODE"] == "0"
    assert environment(served)["VLLM_SERVER_DEV_MODE"] == "1"


@pytest.mark.parametrize("argument", ["--api-key", "--api-key=x", "--api_key=x", "--host=0.0.0.0"])
def test_a_key_among_the_arguments_is_refused_and_not_repeated(argument):
    options = ServeOptions(arguments=("--seed=1", argument, "hunter2"))
    with pytest.raises(UsageError, match="is none of vLLM's arguments that are passed") as refused:
        options.refuse_open()
    assert "hunter2" not in str(refused.value)
    assert "=x" not in str(refused.value)


def test_a_server_on_a_cpu_reads_no_prompt_in_pieces(monkeypatch):
    # vLLM 0.32 puts the draws of a request with a seed back after a piece, and on a CPU it cannot.
    monkeypatch.setattr(serve_command, "has_gpu", lambda: False)
    served = Served(model="DIR", name="tiny")
    line = command_line(("vllm", "serve"), served, 1, ("--seed", "3"))
    assert line[-3:] == ["--no-enable-chunked-prefill", "--seed", "3"]


def test_a_log_that_cannot_be_written_is_said_before_anything_is_started(vllm, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write into the folder"):
        ModelServer(
            Served(model="m", name="m"),
            ServeOptions(vllm=str(vllm)),
            tmp_path / "file" / "log",
            lambda _: None,
        )
