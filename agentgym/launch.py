"""Which of a run's processes this one is, as ``torchrun`` and ``accelerate launch`` say it.

Both tell it in the environment: ``RANK`` of ``WORLD_SIZE`` processes, ``LOCAL_RANK`` of
``LOCAL_WORLD_SIZE`` on this host, and where the first one is found, ``MASTER_ADDR`` and
``MASTER_PORT``. A process that was started
without them is alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from agentgym.errors import UsageError


@dataclass(frozen=True, slots=True)
class Launch:
    """The place of a process among those of its run."""

    rank: int  # from 0
    size: int
    local_rank: int | None  # among those of this host, where it is said
    address: str  # where rank 0 is found
    port: int
    agent: bool  # whether the launcher itself is found there, and not rank 0
    attempt: str  # which start this is, where a launcher starts the processes again
    cpu: bool  # whether GPUs shall be left alone
    local_size: int | None = None  # processes on this host, where it is said

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


ALONE = Launch(0, 1, 0, "127.0.0.1", 0, agent=False, attempt="0", cpu=False)


def launched(environ: Mapping[str, str] = os.environ) -> Launch:
    """Return which process this is.

    Raises:
        UsageError: The environment says half of it, or what cannot be.
    """
    cpu = environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    size = _number(environ, "WORLD_SIZE", 1)
    if size == 1:
        return Launch(0, 1, 0, ALONE.address, 0, agent=False, attempt="0", cpu=cpu)
    rank = _number(environ, "RANK")
    if not 0 <= rank < size:
        raise UsageError(f"RANK is {rank} of WORLD_SIZE {size}; expected 0 to {size - 1}")
    address = environ.get("MASTER_ADDR")
    if not address:
        raise UsageError(f"WORLD_SIZE is {size} and MASTER_ADDR is not set; {_HOW}")
    return Launch(
        rank,
        size,
        _number(environ, "LOCAL_RANK") if "LOCAL_RANK" in environ else None,
        address,
        _number(environ, "MASTER_PORT"),
        agent=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
        cpu=cpu,
        local_size=_number(environ, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environ else None,
    )


_HOW = "start the processes with `torchrun` or `accelerate launch`"


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    given = environ.get(name)
    if given is None and default is not None:
        return default
    if given is None or not given.isdecimal():
        said = "not set" if given is None else repr(given)
        raise UsageError(f"{name} is {said}, expected a number; {_HOW}")
    return int(given)
