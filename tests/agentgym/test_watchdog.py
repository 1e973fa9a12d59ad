"""A standstill is told once, with the stage and the place; so is that it goes on."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from agentgym import watchdog
from agentgym.watchdog import Watchdog, waiting_at, watching


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_barks_once_a_standstill_and_says_when_it_goes_on() -> None:
    clock, said, pulse = Time(), list[str](), [0]
    dog = Watchdog(10, lambda: pulse[0], said.append, clock)
    dog.enter("rollout")
    for clock.now in (5.0, 9.0):
        dog.check()
    assert said == []
    for clock.now in (10.0, 11.0, 30.0):
        dog.check()
    assert len(said) == 1
    assert said[0].startswith("nothing has advanced for 10 s in the stage 'rollout': ")
    assert "guard.stall_after" in said[0]
    pulse[0], clock.now = 1, 32.0
    dog.check()
    assert said[1:] == ["it goes on, after 32 s, in the stage 'rollout'"]
    clock.now = 42.0
    dog.check()
    assert len(said) == 3


@pytest.mark.parametrize("advance", ["stage", "pulse"])
def test_what_advances_keeps_it_quiet(advance: str) -> None:
    clock, said, pulse = Time(), list[str](), [0]
    dog = Watchdog(10, lambda: pulse[0], said.append, clock)
    for second in range(0, 100, 9):
        clock.now = float(second)
        if advance == "stage":
            dog.enter("update")
        else:
            pulse[0] += 1
        dog.check()
    assert said == []


def test_a_real_standstill_is_found_while_the_thread_is_stuck() -> None:
    said = list[str]()
    with watching(0.2, lambda: 0, said.append) as enter:
        enter("update")
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "in the stage 'update'" in said[0]


def test_no_patience_watches_nothing() -> None:
    before = threading.active_count()
    with watching(0, lambda: 1 / 0, print) as enter:
        enter("rollout")
        assert threading.active_count() == before


def test_the_place_is_the_innermost_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_PACKAGE", Path(__file__).parent)
    assert "test_the_place_is_the_innermost_of_the_package (" in waiting_at(threading.get_ident())


def test_episodes_that_wait_are_counted_by_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_PACKAGE", Path(__file__).parent)
    main, found = threading.get_ident(), list[str]()
    stuck = asyncio.Event

    async def answer(event: asyncio.Event) -> None:
        await event.wait()

    async def episode(event: asyncio.Event) -> None:
        await answer(event)

    async def run() -> None:
        event = stuck()
        episodes = [asyncio.ensure_future(episode(event)) for _ in range(3)]
        await asyncio.sleep(0)
        looking = asyncio.to_thread(lambda: found.append(waiting_at(main)))
        await looking
        event.set()
        await asyncio.gather(*episodes)

    asyncio.run(run())
    assert found[0].startswith("3 at answer (")
