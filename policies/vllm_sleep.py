"""A vLLM server that sleeps: others may have its GPU for a while.

Asleep it keeps its weights in the memory of the CPU and forgets keys and values (vLLM's level 1);
on the GPU stay its context and what it compiled. It answers ``/health`` as ever, and lets whoever
asks for tokens wait. It wakes in two steps: weights first, so that new ones can take the place of
those that come back; then room for keys and values.

At vLLM's level 2 the weights would be forgotten too, which saves the room in the CPU's memory. It
is not used: an adapter needs the weights below it, and a server that nobody wakes with new weights
would be left with none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from agentgym.errors import ServerError
from agentgym.policies.vllm_http import Http, Lost, Refused

_SLEEP, _WAKE, _IS_SLEEPING = "/sleep?level=1", "/wake_up", "/is_sleeping"
_INFO = "/server_info?config_format=json"
_LEAST_S = 10.0  # for an answer, however little patience there is
_HOW = "VLLM_SERVER_DEV_MODE=1 in its environment and --enable-sleep-mode"


class Asleep(ServerError):  # noqa: N818 (what happened)
    """The server sleeps: others may have its GPU."""


class Sleeper:
    """Sends one server to sleep and wakes it. All methods belong to one event loop.

    Args:
        http: The server.
        patience: Seconds that it may take.

    Attributes:
        asleep: Whether it was sent to sleep, and is not awake as a whole again.
    """

    def __init__(self, http: Http, patience: float) -> None:
        self._http, self._patience = http, max(patience, _LEAST_S)
        self.asleep = False

    async def check(self, *, wake: bool) -> None:
        """Refuse a server that cannot sleep; wake one that an earlier run left asleep.

        Args:
            wake: Whether it may be woken. That a run has its GPU just now cannot be told from that
                one left it asleep: who has no use for the GPU should let it sleep.

        Raises:
            Asleep: It sleeps, and may not be woken.
            ServerError: It has no such routes, was started without sleep mode, or is on a CPU.
        """
        try:
            sleeps = _says_so(await self._http.get(_IS_SLEEPING))
        except Refused as error:
            raise ServerError(
                f"the vLLM server at {self._http.url} cannot be sent to sleep: it has no"
                f" {_IS_SLEEPING}; start it with {_HOW}, or leave out policy.server.sleep"
            ) from error
        self._refuse_sleepless(await self._info())
        if sleeps and not wake:
            raise Asleep(
                f"the vLLM server at {self._http.url} is asleep; a run may be using its GPU, so it"
                f" was asked nothing more (if none does: curl -X POST {self._http.url}{_WAKE})"
            )
        if sleeps:
            await self._tell(_WAKE)

    async def refuse_asleep(self) -> None:
        """Refuse a server that would let every request wait.

        Raises:
            ServerError: It sleeps, or is paused.
        """
        if await self.is_sleeping():
            raise ServerError(
                f"the vLLM server at {self._http.url} is asleep or paused, and answers nothing;"
                f" wake it: curl -X POST {self._http.url}{_WAKE}, or start it again"
            )

    async def is_sleeping(self) -> bool:
        """Return whether it says that it sleeps; one that has no such route does not."""
        with suppress(Refused, Lost):
            return _says_so(await self._http.get(_IS_SLEEPING))
        return False

    async def sleep(self) -> None:
        """Send it to sleep; requests under way are aborted, so there should be none.

        Raises:
            ServerError: It does not answer in time, or an error.
        """
        self.asleep = True  # in part at least, from the moment that it is told
        await self._tell(_SLEEP)

    @asynccontextmanager
    async def woken(self) -> AsyncIterator[None]:
        """Wake it: inside it has its weights, and after the block room for keys and values.

        One that does not sleep stays as it is. One that was started again meanwhile is awake, and
        takes no offence at being woken.

        Raises:
            ServerError: It does not wake, or not in time.
        """
        if not self.asleep:
            yield
            return
        await self._tell(f"{_WAKE}?tags=weights")
        yield
        await self._tell(f"{_WAKE}?tags=kv_cache")
        if await self.is_sleeping():
            raise Lost(f"the vLLM server at {self._http.url} was woken and sleeps on")
        self.asleep = False

    async def leave(self) -> None:
        """Leave it awake for whoever comes next, where that is possible at once."""
        if self.asleep:
            with suppress(ServerError, TimeoutError):
                async with asyncio.timeout(_LEAST_S):
                    await self._http.post(_WAKE, {})

    # Inside -----------------------------------------------------------------------------------

    async def _tell(self, path: str) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._http.post(path, {})
        except TimeoutError as error:
            raise ServerError(
                f"POST {self._http.url}{path} was not answered within {self._patience:.0f} s"
                " (policy.server.patience); look into the server's log, start it again, and go on"
                " with --resume"
            ) from error
        except Lost as error:
            raise Lost(
                f"{error}; if the GPU has no room for it, give it less of it:"
                " --gpu-memory-utilization"
            ) from error

    async def _info(self) -> Any:
        """Return its configuration; None where it does not tell."""
        with suppress(Refused, Lost, TypeError, KeyError):
            return (await self._http.get(_INFO))["vllm_config"]
        return None

    def _refuse_sleepless(self, config: Any) -> None:
        """Refuse a server that would say that it sleeps, and keep its memory."""
        try:
            device = config["device_config"]["device"]
            can = config["model_config"]["enable_sleep_mode"]
        except (TypeError, KeyError):  # another version's: it cannot be known
            return
        said = f"the vLLM server at {self._http.url}"
        if device == "cpu":
            raise ServerError(
                f"{said} is on a CPU, where vLLM does not sleep: it would say that it does, and"
                " keep its memory; leave out policy.server.sleep"
            )
        if not can:
            raise ServerError(
                f"{said} was started without sleep mode: told to sleep it would say that it does,"
                f" and keep its memory; start it with {_HOW}"
            )


def _says_so(answer: Any) -> bool:
    return isinstance(answer, dict) and bool(answer.get("is_sleeping"))
