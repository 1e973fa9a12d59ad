"""An event loop in a thread of its own.

Connections belong to the loop that opened them. A rollout is one ``asyncio.run``, so the loop of
one rollout is gone in the next; here connections, and what waits in them, outlive it. Plain
functions can wait for what happens in it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import Lock, Thread
from typing import TypeVar

from agentgym.errors import ServerError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines from any thread.

    Attributes:
        closed: Whether it was closed.
    """

    def __init__(self) -> None:
        self.closed = False
        self._loop, self._deciding = asyncio.new_event_loop(), Lock()
        self._thread = Thread(target=self._loop.run_forever, name="agentgym-server", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Wait for ``work`` in a plain function; an interrupt of the waiting cancels it.

        Raises:
            ServerError: It was closed.
        """
        future = self._start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def wait(self, work: Coroutine[object, object, T]) -> T:
        """Wait for ``work`` in another event loop; a cancelled waiting cancels it.

        Raises:
            ServerError: It was closed.
        """
        return await asyncio.wrap_future(self._start(work))

    def soon(self, function: Callable[..., object], *args: str) -> None:
        """Call a function before what is asked for later; where it was closed, do nothing."""
        with self._deciding:
            if not self.closed:
                self._loop.call_soon_threadsafe(function, *args)

    def close(self, last: Coroutine[object, object, object]) -> None:
        """Cancel what still runs, do the last thing and end the thread; call it once."""
        with self._deciding:
            self.closed = True
        for work in (_cancel_others(), last):
            asyncio.run_coroutine_threadsafe(work, self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self, work: Coroutine[object, object, T]) -> Future[T]:
        with self._deciding:
            if self.closed:
                work.close()
                raise ServerError("something was asked of servers that were hung up on")
            return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
