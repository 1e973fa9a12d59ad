"""Processes meet, are compared, and say who was lost: in threads, at a real store.

That connections break where a process fails needs processes of their own.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore

from agentgym.errors import LostRankError, UsageError
from agentgym.launch import Launch
from agentgym.trainers import rendezvous
from agentgym.trainers.rendezvous import joined
from agentgym.trainers.sharding import ParallelOptions

SOON = ParallelOptions(join_timeout=5)
LOSS = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")


@pytest.fixture
def launch() -> Callable[..., Launch]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def of(rank: int, size: int = 2) -> Launch:
        return Launch(rank, size, rank, "127.0.0.1", port, agent=False, attempt="0", cpu=True)

    return of


def meet(launch: Launch, about: dict[str, str]) -> str:
    try:
        with joined(launch, SOON, about):
            return "met"
    except UsageError as error:
        return str(error)


def test_processes_with_other_versions_are_refused_by_all_and_named(launch) -> None:
    with ThreadPoolExecutor(3) as threads:
        about = [{"torch": "2.9"}, {"torch": "2.9"}, {"torch": "2.8"}]
        found = threads.map(meet, [launch(rank, 3) for rank in range(3)], about)
    expected = "rank 2: torch is 2.8, and rank 0 has 2.9; all processes of a run must have the same"
    assert list(found) == [expected] * 3


def test_a_process_that_does_not_come_is_named_in_time(launch) -> None:
    begun = time.monotonic()
    options = ParallelOptions(join_timeout=0.5)
    with (
        pytest.raises(LostRankError, match=r"ranks 1, 2 of 3 did not come .* within 0.5 s"),
        joined(launch(0, 3), options, {}),
    ):
        pass
    assert time.monotonic() - begun < 5


def test_a_meeting_place_that_cannot_be_reached_is_named_in_time(launch) -> None:
    begun = time.monotonic()
    options = ParallelOptions(join_timeout=0.5)
    with (
        pytest.raises(LostRankError, match=r"rank 1 cannot meet the others at 127.0.0.1:\d+"),
        joined(launch(1), options, {}),
    ):
        pass
    assert time.monotonic() - begun < 10


def test_a_process_alone_meets_nobody() -> None:
    alone = Launch(0, 1, 0, "nowhere", 0, agent=False, attempt="0", cpu=True)
    with joined(alone, SOON, {}) as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)


# Who was lost -----------------------------------------------------------------------------------


def part(store: HashStore, rank: int, error: Exception) -> str:
    launch = Launch(rank, 3, rank, "h", 1, agent=True, attempt="0", cpu=True)
    try:
        with rendezvous._Farewell(store, launch):
            raise error
    except (LostRankError, ValueError) as ended:
        return str(ended)


def ends(*errors: Exception | None) -> list[str]:
    """Return how processes end that fail with these errors; None says nothing any more."""
    store = HashStore()
    failing = [(rank, error) for rank, error in enumerate(errors) if error is not None]
    with ThreadPoolExecutor(3) as threads:
        return list(threads.map(lambda one: part(store, *one), failing))


def test_a_process_that_is_gone_without_a_word_is_named(monkeypatch) -> None:
    monkeypatch.setattr(rendezvous, "PATIENCE_S", 0.3)
    found = ends(LOSS, None, LOSS)
    assert [text.split(": ", 1)[1] for text in found] == [
        "rank 1 is gone without a word; go on with --resume"
    ] * 2


def test_a_process_that_failed_is_named_with_its_reason() -> None:
    found = ends(LOSS, ValueError("no room"), LOSS)
    assert found[1] == "no room"
    assert [found[0], found[2]] == [
        f"rank {rank} lost another process: rank 1 ended: ValueError: no room" for rank in (0, 2)
    ]


def test_a_network_that_fails_between_living_processes_is_told_apart() -> None:
    assert all("all are there, and the network" in text for text in ends(LOSS, LOSS, LOSS))


FAILS = """
import sys
from agentgym.launch import launched
from agentgym.trainers.rendezvous import joined
from agentgym.trainers.sharding import ParallelOptions

launch = launched()
try:
    with joined(launch, ParallelOptions(timeout=100, join_timeout=100), {}) as ranks:
        ranks.any(True)
        if launch.rank == int(sys.argv[1]):
            raise ValueError("no room")
        ranks.any(True)
except Exception as error:
    print(error)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("failing", [0, pytest.param(1, marks=pytest.mark.scale)])
def test_others_hear_at_once_why_a_process_failed_also_the_one_that_has_the_store(
    launch, failing
) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launch(0).port), "WORLD_SIZE": "2"}
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", FAILS, str(failing)],
            env={**os.environ, **place, "RANK": str(rank), "ACCELERATE_USE_CPU": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=200)[0].strip() for process in begun]
    other = 1 - failing
    assert said[failing] == "no room"
    assert said[other] == (
        f"rank {other} lost another process: rank {failing} ended: ValueError: no room"
    )


def test_a_process_of_many_that_is_not_told_which_gpu_is_its_own_is_refused() -> None:
    told = Launch(1, 2, None, "node0", 1, agent=False, attempt="0", cpu=False)
    with pytest.raises(UsageError, match="LOCAL_RANK is not set on rank 1 of 2"):
        rendezvous._take_gpu(torch.device("cuda", 0), told)


@pytest.mark.parametrize(("address", "device"), [("127.0.0.1", "lo"), ("node0", None)])
def test_processes_of_one_host_talk_over_its_loopback_device(address, device, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    launch = Launch(0, 2, 0, address, 1, agent=True, attempt="0", cpu=True)
    with rendezvous._on_this_host(launch):
        assert os.environ.get("GLOO_SOCKET_IFNAME") == device
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_a_device_that_was_named_stays_named(monkeypatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    launch = Launch(0, 2, 0, "127.0.0.1", 1, agent=True, attempt="0", cpu=True)
    with rendezvous._on_this_host(launch):
        assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
