"""How the processes of a run find each other, make sure that they are alike, and part.

They meet at a store of torch, at rank 0 or at the launcher. There each one writes what it is, so
that another version or configuration on one host is found before anything is computed; and there
it writes why it ended, so that those who only see a lost connection can say who was lost.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Thread
from types import TracebackType

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from agentgym.errors import LostRankError, UsageError
from agentgym.launch import Launch
from agentgym.trainers.ranks import ALONE, CPU, Ranks
from agentgym.trainers.sharding import LEAST_WAIT_S, ParallelOptions

PATIENCE_S = 10.0
"""How long a process that lost another waits for what the others say about it."""

_MOMENT_S = 2.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_GLOO_DEVICE = "GLOO_SOCKET_IFNAME"
_LOST = "lost another"
_SIGNS = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "Timed out")
"""What torch says where another process is gone; of gloo it has no type of its own."""


def device_of(launch: Launch) -> torch.device:
    """Return where a process computes: on a GPU of its own, or on the CPU."""
    if launch.cpu or not torch.cuda.is_available():
        return CPU
    return torch.device("cuda", launch.local_rank or 0)


@contextmanager
def joined(launch: Launch, options: ParallelOptions, about: Mapping[str, str]) -> Iterator[Ranks]:
    """Meet the other processes of a run, and be one of them until the end of the block.

    Args:
        launch: Which process this is.
        options: How long is waited.
        about: What must be the same on all, by name, as the version of a library.

    Raises:
        UsageError: The processes are not alike, there are more of them on a host than GPUs, or
            which GPU is whose is not said.
        LostRankError: Not all were there in time, or one was lost inside of the block.
    """
    if launch.size == 1 and options.weights == "whole":
        yield ALONE
        return
    device = device_of(launch)
    if device.type == "cuda":
        _take_gpu(device, launch)
    store = _meet(launch, options.join_timeout, about)
    with _on_this_host(launch):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=launch.rank,
            world_size=launch.size,
            timeout=timedelta(seconds=options.timeout or LEAST_WAIT_S),
        )
    with _Farewell(store, launch):
        yield Ranks(launch.rank, launch.size, device)
        dist.destroy_process_group()


def _take_gpu(device: torch.device, launch: Launch) -> None:
    if launch.local_rank is None:
        raise UsageError(
            f"LOCAL_RANK is not set on rank {launch.rank} of {launch.size}, and it says which GPU"
            " of its host a process has; start the processes with `torchrun` or"
            " `accelerate launch`, or set it"
        )
    count = torch.cuda.device_count()
    if launch.local_rank >= count:
        raise UsageError(
            f"rank {launch.rank} is process {launch.local_rank} of its host, counted from 0, and"
            f" the host has {count} GPUs; start one process a GPU"
        )
    torch.cuda.set_device(device)


@contextmanager
def _on_this_host(launch: Launch) -> Iterator[None]:
    """Let gloo listen on the loopback device where all processes are on this host.

    Programs that are started later, as servers, choose for themselves.
    """
    here = launch.address in _LOOPBACK and sys.platform == "linux"
    if not here or _GLOO_DEVICE in os.environ:
        yield
        return
    os.environ[_GLOO_DEVICE] = "lo"
    try:
        yield
    finally:
        del os.environ[_GLOO_DEVICE]


# Meeting ------------------------------------------------------------------------------------------


def _meet(launch: Launch, timeout: float, about: Mapping[str, str]) -> Store:
    """Return the store that all processes share, when all are there and alike."""
    if launch.size == 1:
        return HashStore()
    where = f"{launch.address}:{launch.port}"
    try:
        return _met(launch, timeout, about, where)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise LostRankError(
            f"rank {launch.rank} cannot meet the others at {where} within {timeout:g} s"
            f" ({str(error).splitlines()[0]}); does rank 0 run there, and can it be reached?"
        ) from error


def _met(launch: Launch, timeout: float, about: Mapping[str, str], where: str) -> Store:
    deadline = time.monotonic() + timeout
    shared = TCPStore(
        launch.address,
        launch.port,
        launch.size,
        is_master=_has_store(launch),
        timeout=timedelta(seconds=timeout),
        wait_for_workers=False,
    )
    store = PrefixStore(f"agentgym/{launch.attempt}", shared)
    store.set(_key("here", launch.rank), json.dumps(dict(about)))
    missing = _missing(store, "here", range(launch.size), deadline)
    if missing:
        raise LostRankError(
            f"{_named(missing)} of {launch.size} did not come to {where} within {timeout:g} s"
            " (parallel.join_timeout); start all, with the same address and number of processes"
        )
    found = [json.loads(store.get(_key("here", rank))) for rank in range(launch.size)]
    store.set(_key("read", launch.rank), "")
    if _has_store(launch):  # which ends with this process, and the others are to read it too
        _missing(store, "read", range(launch.size), time.monotonic() + PATIENCE_S)
    _compare(found)
    return store


def _has_store(launch: Launch) -> bool:
    return launch.is_first and not launch.agent


def _compare(found: list[dict[str, str]]) -> None:
    """Refuse processes that are not alike.

    Raises:
        UsageError: The message names who differs from rank 0, and in what.
    """
    for name, expected in found[0].items():
        apart = [rank for rank, other in enumerate(found) if other.get(name) != expected]
        if apart:
            raise UsageError(
                f"{_named(apart)}: {name} is {found[apart[0]].get(name)}, and rank 0 has"
                f" {expected}; all processes of a run must have the same"
            )


def _missing(store: Store, what: str, ranks: Iterable[int], deadline: float) -> list[int]:
    """Return which ranks have not written something when time is up."""
    missing = list(ranks)
    while missing := [rank for rank in missing if not store.check([_key(what, rank)])]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return missing


# Parting ------------------------------------------------------------------------------------------


class _Farewell:
    """Writes why a process ends before its time, and finds out who made it.

    A process that is lost says nothing any more; one that failed said why; all others say that
    they lost another.
    """

    def __init__(self, store: Store, launch: Launch) -> None:
        self._store, self._launch = store, launch

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        if self._launch.size == 1:
            _disconnect()
            return
        lost = _is_loss(error)
        try:
            self._store.set(_key("end", self._launch.rank), _LOST if lost else _told(error))
            _disconnect()
            why = self._why() if lost else None
            self._store.set(_key("left", self._launch.rank), "")
            if _has_store(self._launch):  # which ends with this process, and others still read it
                silent = self._silent("end", self._others)
                self._silent("left", [rank for rank in self._others if rank not in silent])
            if why is not None:
                raise LostRankError(why) from error
        except (dist.DistError, RuntimeError) as gone:
            raise LostRankError(
                f"rank {self._launch.rank}: {self._launch.address}:{self._launch.port}, where the"
                " processes met, is gone, and rank 0 or the launcher with it; go on with --resume"
            ) from gone

    @property
    def _others(self) -> list[int]:
        return [rank for rank in range(self._launch.size) if rank != self._launch.rank]

    def _silent(self, what: str, ranks: list[int]) -> list[int]:
        return _missing(self._store, what, ranks, time.monotonic() + PATIENCE_S)

    def _why(self) -> str:
        me = f"rank {self._launch.rank} lost another process: "
        missing = self._silent("end", self._others)
        for rank in self._others:
            if rank not in missing:
                said = self._store.get(_key("end", rank)).decode()
                if said != _LOST:
                    return f"{me}rank {rank} ended: {said}"
        if missing:
            return f"{me}{_named(missing)} is gone without a word; go on with --resume"
        return f"{me}all are there, and the network between them is not, or parallel.timeout passed"


def _disconnect() -> None:
    """End the connections to the others, so that those who wait in one notice now.

    Not for longer than a moment: what the GPUs' connections wait for may never come.
    """

    def end() -> None:
        with suppress(RuntimeError, ValueError, AssertionError):  # torch's, of a group half gone
            dist.destroy_process_group()

    if dist.is_initialized():
        ending = Thread(target=end, daemon=True)
        ending.start()
        ending.join(_MOMENT_S)


def _is_loss(error: BaseException) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _key(what: str, rank: int) -> str:
    return f"{what}/{rank}"


def _named(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
