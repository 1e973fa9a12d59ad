"""What the processes of a run tell each other.

Every process holds the same step: the same trajectories, the same rows, the same advantages, as
everything that a method says is computed by every process from what is gathered here. Only the
passes of the model are divided. A process alone tells itself: each function here then returns
what it was given, and a run is bitwise what it was without them.

All processes must come to each call, and in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from agentgym.errors import AgentGymError

T = TypeVar("T")
R = TypeVar("R")

CPU = torch.device("cpu")

_BUCKET = 2**26
"""So many numbers of gradients are summed at once: 256 MiB in float32."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One of ``size`` processes, counted from 0; the first one speaks and writes for all."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    # Numbers ----------------------------------------------------------------------------------

    def sum_(self, *tensors: Tensor) -> None:
        """Add the processes' tensors up, in place; the result is the same to the bit on all."""
        for tensor in tensors:
            self._sum(tensor)

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add named numbers up; every process has the same names."""
        if self.size == 1:
            return dict(values)
        total = torch.tensor([values[name] for name in sorted(values)], dtype=torch.double)
        self._sum(total)
        return dict(zip(sorted(values), total.tolist(), strict=True))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add gradients up where each process has whole ones; FSDP adds up what it shards."""
        if self.size == 1:
            return
        whole = [p.grad for p in parameters if p.grad is not None]
        for bucket in _buckets([g for g in whole if not isinstance(g, DTensor)]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self._sum(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, summed in zip(bucket, parts, strict=True):
                gradient.copy_(summed.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Return whether any process says so."""
        return self.sums({"": float(flag)})[""] > 0

    # Everything else --------------------------------------------------------------------------

    def gather(self, mine: T) -> list[T]:
        """Return what each process has, in their order."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine)
        return found

    def by_first(self, work: Callable[[], T]) -> T:
        """Let the first process do something, and return its result on all."""
        if self.size == 1:
            return work()
        told: list[Any] = [work() if self.is_first else None]
        dist.broadcast_object_list(told, src=0)
        return told[0]  # type: ignore[no-any-return] # of the first process

    def deal(
        self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]], *, first: bool = False
    ) -> list[R]:
        """Let each process work on its share of the items.

        Args:
            items: The same on all.
            work: Returns a result for each of the items that it is given.
            first: Whether the first process does it all.

        Returns:
            The results, in the order of the items.
        """
        mine = self.share(items, first=first)
        parts = [iter(part) for part in self.gather(list(work(mine)) if mine else [])]
        return [next(parts[0 if first else n % self.size]) for n in range(len(items))]

    def share(self, items: Sequence[T], *, first: bool = False) -> Sequence[T]:
        """Return the items that are this process's: all or none where ``first`` has them all."""
        if first:
            return items if self.is_first else items[:0]
        return items[self.rank :: self.size]

    def agree(self, what: str, look: Callable[[], object]) -> None:
        """Make sure that all processes hold the same.

        Args:
            what: For the message, as ``the batch of step 3``.
            look: Returns what is compared, which is small; not called by a process alone.

        Raises:
            AgentGymError: They do not; the message names who differs from the first.
        """
        if self.size == 1:
            return
        found = self.gather(look())
        apart = [str(rank) for rank, other in enumerate(found) if other != found[0]]
        if apart:
            raise AgentGymError(
                f"{what} is another on rank {', '.join(apart)} than on rank 0, and all must learn"
                " from the same; are their processors or libraries different ones?"
            )

    def _sum(self, tensor: Tensor) -> None:
        if self.size > 1:
            dist.all_reduce(tensor)


ALONE = Ranks()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of one type together, up to so many numbers at once."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[Tensor] = []
        for tensor in (t for t in tensors if t.dtype is dtype):
            if bucket and sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        if bucket:
            yield bucket
