"""Who may ask a server something now: many at once, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Lets so many in at once; whoever wants to be alone waits for them and holds up the next.

    Args:
        places: How many.

    Attributes:
        inside: How many are in.
    """

    def __init__(self, places: int) -> None:
        self.inside = 0
        self._places, self._alone = asyncio.Semaphore(places), asyncio.Lock()
        self._open, self._empty = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._empty.set()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Be inside with others."""
        while True:
            await self._open.wait()
            await self._places.acquire()
            if self._open.is_set():
                break
            self._places.release()  # someone goes alone, and came first
        self.inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.inside -= 1
            self._places.release()
            if not self.inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be inside with nobody else."""
        async with self._alone:
            self._open.clear()
            try:
                await self._empty.wait()
                yield
            finally:
                self._open.set()
