"""When the turns of several episodes are sampled: each by itself, or all together in rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from agentgym.types import Policy, Request, Sample

Seen = Callable[[Sample], None]
"""Is told a sample before any episode goes on with what was sampled together with it."""


class Sampler(Protocol):
    """Samples one piece of a turn."""

    async def __call__(self, request: Request, seen: Seen | None = None) -> Sample:
        """Return what was sampled, after ``seen`` was told."""


class Rounds:
    """Gathers the requests of all unfinished episodes into one call, sorted by session.

    A batch is then a function of seed and data, never of timing: the same turn decoded in
    another batch differs in its last bits.
    """

    def __init__(self, policy: Policy, episodes: int) -> None:
        self.policy = policy
        self.unfinished = episodes
        self._waiting: dict[str, tuple[Request, Seen | None, asyncio.Future[Sample]]] = {}

    async def sample(self, request: Request, seen: Seen | None = None) -> Sample:
        """Wait until every unfinished episode has asked, then return this one's sample."""
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._waiting[request.session] = (request, seen, future)
        await self._go_when_complete()
        return await future

    def join(self, episodes: int) -> None:
        """Say that so many episodes more will ask."""
        self.unfinished += episodes

    async def leave(self) -> None:
        """Say that one episode will ask no more."""
        self.unfinished -= 1
        await self._go_when_complete()

    async def _go_when_complete(self) -> None:
        if not self._waiting or len(self._waiting) < self.unfinished:
            return
        asked = [self._waiting[session] for session in sorted(self._waiting)]
        self._waiting = {}
        try:
            samples = await self.policy.sample([request for request, _, _ in asked])
            for (_, seen, _), sample in zip(asked, samples, strict=True):
                if seen is not None:
                    seen(sample)
        except BaseException as error:
            for _, _, future in asked:
                future.set_exception(error)
            return
        for (_, _, future), sample in zip(asked, samples, strict=True):
            future.set_result(sample)


def sampler(policy: Policy, rounds: Rounds) -> Sampler:
    """Return how episodes are sampled: at the policy's own pacing."""

    async def alone(request: Request, seen: Seen | None = None) -> Sample:
        (sample,) = await policy.sample([request])
        if seen is not None:
            seen(sample)
        return sample

    return rounds.sample if policy.pacing == "rounds" else alone
