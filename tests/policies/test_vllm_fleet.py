"""Several servers: which one an episode is with, and what becomes of it where that one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agentgym.errors import ServerError, StaleWeightsError
from agentgym.policies.vllm_fleet import Fleet
from agentgym.policies.vllm_gate import Gate
from agentgym.policies.vllm_http import Gone
from agentgym.policies.vllm_replica import Answer


class Server:
    """A replica that needs no server: it answers with its name until it is gone."""

    def __init__(self, name: str) -> None:
        self.url = name
        self.in_flight = 0
        self.away = False
        self.version = 0
        self.fingerprint = [[0.0]]
        self.waits = asyncio.Event()  # set: somebody is there again
        self.stale = self.sleeps = False
        self.owed: list[int] = []

    async def ask(self, body: Any, read: Any, elsewhere: Callable[[], bool]) -> Answer[Any]:
        self._answer(elsewhere)
        return Answer(read(body(self.url, self.version)), self.version, 0)

    async def score(self, row: Any, first: int, elsewhere: Callable[[], bool]) -> list[str]:
        self._answer(elsewhere)
        return [self.url]

    async def load(self, path: str, version: int, elsewhere: Callable[[], bool]) -> None:
        self._answer(elsewhere)
        self.version, self.fingerprint = version, [[float(version)]]

    async def owe(self, path: str, version: int, fingerprint: Any) -> bool:
        if self.away:
            self.version, self.fingerprint = version, fingerprint
            self.owed.append(version)
        return self.away

    async def come_back(self) -> None:
        await self.waits.wait()
        if self.stale:
            raise StaleWeightsError("other weights than before")
        self.away = False

    async def sleep(self) -> None:
        self.sleeps = True

    async def close(self) -> None:
        pass

    def die(self) -> None:
        self.waits.clear()
        self.gone = True

    gone = False

    def _answer(self, elsewhere: Callable[[], bool]) -> None:
        if self.gone:
            self.away = True
            if elsewhere():
                raise Gone(f"nothing answers at {self.url}")
            raise ServerError("gone for good")


def fleet_of(count: int = 2) -> tuple[Fleet, list[Server]]:
    servers = [Server(name) for name in "abc"[:count]]
    return Fleet(servers), servers  # type: ignore[arg-type]


async def who(fleet: Fleet, session: str) -> Answer[str]:
    return await fleet.ask(session, lambda url, _: {"url": url}, lambda answer: answer["url"])


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_new_episodes_go_where_the_fewest_are_and_then_to_the_idlest() -> None:
    async def go() -> None:
        fleet, (a, b) = fleet_of()
        a.in_flight = 5
        assert [(await who(fleet, s)).found for s in ("1", "2", "3", "1")] == ["b", "a", "b", "b"]
        b.in_flight = 9
        fleet.drop("1")
        assert (await who(fleet, "4")).found == "a"

    run(go())


def test_an_episode_whose_server_is_gone_goes_on_at_another_and_stays_there() -> None:
    async def go() -> None:
        fleet, (a, _) = fleet_of()
        assert (await who(fleet, "1")).found == "a"
        a.die()
        moved = await who(fleet, "1")
        assert (moved.found, moved.losses) == ("b", 1)
        a.gone = False
        a.waits.set()
        await asyncio.sleep(0.01)
        assert (await who(fleet, "1")).found == "b"
        assert (await who(fleet, "2")).found == "a"  # it takes new ones again

    run(go())


def test_rows_are_scored_where_somebody_is() -> None:
    async def go() -> None:
        fleet, (a, _) = fleet_of()
        assert await fleet.score([[1], [1]], [1, 1]) == [["a"], ["b"]]
        a.die()
        assert await fleet.score([[1], [1]], [1, 1]) == [["b"], ["b"]]

    run(go())


def test_all_gone_is_an_error() -> None:
    async def go() -> None:
        fleet, servers = fleet_of()
        for server in servers:
            server.die()
        with pytest.raises(ServerError, match="for good"):
            await who(fleet, "1")

    run(go())


def test_weights_go_to_all_and_to_one_that_is_gone_when_it_is_back() -> None:
    async def go() -> None:
        fleet, (a, b) = fleet_of()
        await fleet.load("v1", 1)
        assert (a.version, b.version) == (1, 1)
        b.die()
        await fleet.load("v2", 2)
        assert b.owed == [2]
        assert b.fingerprint == a.fingerprint == [[2.0]]

    run(go())


def test_a_server_that_is_back_while_weights_go_round_is_given_them_too() -> None:
    async def go() -> None:
        fleet, (a, b) = fleet_of()
        b.die()
        slow = a.load

        async def meanwhile(*args: Any) -> None:
            await asyncio.sleep(0.01)
            b.gone = b.away = False
            await slow(*args)

        a.load = meanwhile  # type: ignore[method-assign]
        await fleet.load("v1", 1)
        assert (b.version, b.owed) == (1, [])

    run(go())


def test_only_a_server_that_is_the_only_one_sleeps() -> None:
    async def work() -> None:
        fleet, (server,) = fleet_of(1)
        await fleet.sleep()
        assert server.sleeps
        fleet, servers = fleet_of(2)
        with pytest.raises(AssertionError, match="2 servers shall sleep, expected one"):
            await fleet.sleep()
        assert not any(server.sleeps for server in servers)

    run(work())


def test_a_server_that_comes_back_with_other_weights_is_told_of() -> None:
    async def go() -> None:
        fleet, (a, _) = fleet_of()
        assert (await who(fleet, "1")).found == "a"
        a.die()
        await who(fleet, "1")
        a.stale = True
        a.waits.set()
        await asyncio.sleep(0.01)
        with pytest.raises(StaleWeightsError):
            await who(fleet, "1")

    run(go())


# The gate -----------------------------------------------------------------------------------------


def test_whoever_goes_alone_waits_for_those_inside_and_holds_up_the_next() -> None:
    seen: list[str] = []

    async def go() -> None:
        gate = Gate(2)

        async def one(name: str, seconds: float) -> None:
            async with gate.together():
                seen.append(f"{name} in")
                await asyncio.sleep(seconds)
                seen.append(f"{name} out")

        async def alone() -> None:
            async with gate.alone():
                assert gate.inside == 0
                seen.append("alone")

        async with asyncio.TaskGroup() as group:
            group.create_task(one("a", 0.02))
            await asyncio.sleep(0)
            group.create_task(alone())
            await asyncio.sleep(0)
            for name in "bcd":
                group.create_task(one(name, 0.001))
            await asyncio.sleep(0.005)
            assert gate.inside == 1

    run(go())
    assert seen[:3] == ["a in", "a out", "alone"]
    assert len(seen) == 9


def test_one_that_gives_up_waiting_to_be_alone_lets_the_others_in() -> None:
    async def go() -> None:
        gate = Gate(4)

        async def alone() -> None:
            async with gate.alone():
                pytest.fail("somebody was inside")

        async with gate.together():
            waiting = asyncio.create_task(alone())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            async with asyncio.timeout(1), gate.together():
                assert gate.inside == 2

    run(go())
