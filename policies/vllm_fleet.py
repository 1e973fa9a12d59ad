"""Several servers with the same weights, of which some may be away for a while.

An episode stays with one server, which keeps its prefix. Where that one is gone, another takes the
episode's next turn: all that was said so far is in the request. A server that comes back is given
the weights of the day before anything is asked of it, and takes new episodes again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from agentgym.policies.vllm_http import Gone
from agentgym.policies.vllm_replica import Answer, Replica

T = TypeVar("T")


class Fleet:
    """The servers, and which episode is with whom. All methods belong to one event loop.

    Args:
        replicas: Connected.

    Attributes:
        replicas: The servers.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = tuple(replicas)
        self._homes: dict[str, Replica] = {}
        self._returning: dict[str, asyncio.Task[None]] = {}

    def home(self, session: str) -> Replica:
        """Return the server of an episode.

        A new one, and one whose server is gone, goes where the fewest episodes are, and of those
        where the fewest requests are under way.

        Raises:
            ServerError: A server is back, and did not take its weights.
        """
        self._refuse_failed()
        home = self._homes.get(session)
        if home is None or (home.away and self._elsewhere(home)):
            home = self._homes[session] = self._idlest()
        return home

    async def ask(
        self, session: str, body: Callable[[str, int], dict[str, Any]], read: Callable[[Any], T]
    ) -> Answer[T]:
        """Ask an episode's server for a completion; another one where that is gone.

        Raises:
            ContextOverflow, ServerError: As :meth:`Replica.ask`.
        """
        moved = 0
        while True:
            home = self.home(session)
            try:
                answer = await home.ask(body, read, partial(self._elsewhere, home))
            except Gone:
                self._await_return(home)
                moved += 1
                continue
            return Answer(answer.found, answer.version, answer.losses + moved)

    async def score(self, rows: Sequence[Sequence[int]], start: Sequence[int]) -> list[list[float]]:
        """Return the log-probabilities of rows from ``start`` on, each from the idlest server.

        Raises:
            ServerError: As :meth:`Replica.ask`.
        """
        return await all_of(
            [
                self._score(n, row, first)
                for n, (row, first) in enumerate(zip(rows, start, strict=True))
            ]
        )

    async def load(self, path: str | None, version: int) -> None:
        """Let all servers take the weights of a folder; those that are gone, when they are back.

        Args:
            path: The folder; None where the weights are sent.
            version: Theirs.

        Raises:
            DataError: There are no weights in the folder.
            ServerError: A server did not take them, or all are gone.
        """
        self._refuse_failed()
        took = await all_of([self._load(one, path, version) for one in self.replicas])
        for replica, fingerprint in zip(self.replicas, took, strict=True):
            if fingerprint is None:
                known = next(known for known in took if known is not None)
                while not await replica.owe(path, version, known):
                    if await self._load(replica, path, version) is not None:
                        break

    async def sleep(self) -> None:
        """Let the server sleep until weights are loaded.

        Raises:
            ServerError: It stayed away, or does not go to sleep.
        """
        # One of several may be on its way back: it would be asked, or woken, beside the learner.
        assert len(self.replicas) == 1, f"{len(self.replicas)} servers shall sleep, expected one"
        await self.replicas[0].sleep()

    def fork(self, session: str, copy: str) -> None:
        """Let ``copy`` be where ``session`` is."""
        if session in self._homes:
            self._homes[copy] = self._homes[session]

    def drop(self, session: str) -> None:
        """Forget an episode."""
        self._homes.pop(session, None)

    async def close(self) -> None:
        """Hang up."""
        await all_of([replica.close() for replica in self.replicas])

    # Inside -----------------------------------------------------------------------------------

    def _idlest(self) -> Replica:
        episodes = Counter(replica.url for replica in self._homes.values())
        there = [replica for replica in self.replicas if not replica.away]
        return min(there or self.replicas, key=lambda one: (episodes[one.url], one.in_flight))

    def _elsewhere(self, home: Replica) -> bool:
        return any(not one.away for one in self.replicas if one is not home)

    async def _score(self, n: int, row: Sequence[int], first: int) -> list[float]:
        while True:
            there = [one for one in self.replicas if not one.away] or self.replicas
            replica = there[n % len(there)]
            try:
                return await replica.score(row, first, partial(self._elsewhere, replica))
            except Gone:
                self._await_return(replica)

    async def _load(
        self, replica: Replica, path: str | None, version: int
    ) -> list[list[float]] | None:
        """Return the fingerprint of the weights, or None where nobody is there."""
        try:
            await replica.load(path, version, partial(self._elsewhere, replica))
        except Gone:
            self._await_return(replica)
            return None
        return replica.fingerprint

    def _await_return(self, replica: Replica) -> None:
        task = self._returning.get(replica.url)
        if task is None or task.done():
            self._returning[replica.url] = asyncio.create_task(replica.come_back())

    def _refuse_failed(self) -> None:
        for task in self._returning.values():
            if task.done() and not task.cancelled():
                task.result()


async def all_of(work: Sequence[Coroutine[object, object, T]]) -> list[T]:
    """Wait for all; the first that fails cancels the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
