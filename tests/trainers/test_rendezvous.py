"""Processes meet, are compared, and say who was lost: in threads, at a real store."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
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
