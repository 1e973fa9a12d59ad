"""An event loop in a thread of its own.

Connections belong to the loop that opened them. A rollout is one ``asyncio.run``, so the loop of
one rollout is gone in the next; here connections, and what waits in them, outlive it. Plain
functions can wait for what happens in it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="agentgym-server", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._loop.is_closed()

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Wait for ``work`` in a plain function; an interrupt of the waiting cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def wait(self, work: Coroutine[object, object, T]) -> T:
        """Wait for ``work`` in another event loop; a cancelled waiting cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """Cancel what still runs and end the thread. Closing twice is closing once."""
        if self.closed:
            return
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
