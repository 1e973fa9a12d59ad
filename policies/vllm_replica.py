"""One vLLM server as a policy sees it: asked again where that helps, and with the right weights.

A server that was restarted has the weights that it began with, and says nothing of it. So each
has a fingerprint, the log-probabilities of fixed tokens, taken when weights were loaded. Whenever a
server may have been restarted the fingerprint is taken again, and where it differs the weights are
loaded again, before anything else is asked.

Weights are loaded between requests: those under way are answered first, the next ones wait. So each
answer is of one version, and says which.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from agentgym.errors import DataError, ServerError, StaleWeightsError
from agentgym.policies.vllm_checks import check_version, model_of, refusal
from agentgym.policies.vllm_gate import Gate
from agentgym.policies.vllm_http import Gone, Http, Lost, Refused, ServerOptions
from agentgym.policies.vllm_sleep import Sleeper
from agentgym.policies.vllm_transfer import FLAG, INIT, Source, Transfer
from agentgym.policies.vllm_wire import read_scores, scoring, top_logprobs

T = TypeVar("T")
Way = Literal["disk", "lora", "nccl"]

_COMPLETIONS, _RPC = "/v1/completions", "/collective_rpc"
_LOAD, _UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
_LOSSES = 2  # how often one request is asked again
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_HEALTH_S = 10.0  # for a word from a server that may be gone, or not yet ready
_RESTART_S = 5.0  # no server is started in less; one that was silent for longer may be another
_SAME = 1e-2  # nats by which a server may differ from itself, whatever else is in its batch
_NEEDS: dict[Way, tuple[str, str]] = {
    "disk": (_RPC, "VLLM_SERVER_DEV_MODE=1 in its environment"),
    "lora": (_LOAD, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment and --enable-lora"),
    "nccl": (INIT, f"VLLM_SERVER_DEV_MODE=1 in its environment and {FLAG}"),
}


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What was read from a completion."""

    found: T
    version: int  # of the weights that answered
    losses: int  # how many times the answer was lost before


def _nowhere() -> bool:
    return False


class Replica:
    """One server with its weights. All methods belong to one event loop.

    What can be asked of another server as well takes ``elsewhere``, which tells whether there is
    one: then nothing waits for a server that is gone, and ``Gone`` is raised.

    Args:
        url: Where it is.
        options: How it is treated.
        probe: Rows of fixed tokens.
        run: Tells the adapters of this run from those of others.
        version: Of the weights that it has now.

    Attributes:
        url: Where it is.
        model: The name by which its weights are asked for; another for each adapter.
        vllm: Its version of vLLM.
        version: Of the weights that it was given last.
        max_context: Tokens, prompt and sample together.
        fingerprint: Log-probabilities of the fixed tokens after the last load.
        away: Whether nobody answered there when it was asked last.
    """

    def __init__(
        self,
        url: str,
        options: ServerOptions,
        probe: Sequence[Sequence[int]],
        run: str,
        version: int = 0,
    ) -> None:
        self._http = Http(url, options)
        self._options, self._probe, self._run = options, probe, run
        self._sleeper = Sleeper(self._http, options.patience)
        self.url = self._http.url
        self.model = self._base = self.vllm = ""
        self.version = version
        self.max_context = 0
        self.away = False
        self.fingerprint: list[list[float]] = []
        self._way: Way = "disk"
        self._asked_for = ""  # the adapter that it was told to load last
        self._loaded: tuple[str | None, int] | None = None
        self._transfer: Transfer | None = None
        self._half_loaded = False
        self._gate, self._checking = Gate(options.in_flight), asyncio.Lock()
        self._scores_alone = False
        self._heard = 0.0  # when it last answered
        self._doubted = False

    async def connect(
        self, way: Way | None, source: Source | None = None, *, wake: bool = False
    ) -> None:
        """Find out what the server is, and that it can do what is needed.

        Args:
            way: How weights will get there; None asks for those that are there.
            source: Who sends them, where that is ``nccl``.
            wake: Whether one that shall sleep at times, and sleeps now, is woken.

        Raises:
            Asleep: It shall sleep at times, does so now, and is not to be woken.
            ServerError: Nothing is there, it is no vLLM or too old, or it lacks a model or a flag;
                the message says which and what to do.
        """
        self.vllm = await self._version()
        check_version(self.url, self.vllm, nccl=way == "nccl")
        models = await self._http.get("/v1/models", within=_HEALTH_S)
        self._base, self.max_context = model_of(self.url, models, self._options.model)
        self.model = self._base
        if way is not None:
            await self._check_takes_weights(way)
            self._way = way
        if way == "nccl":
            assert source is not None
            self._transfer = Transfer(self._http, source)
            await self._transfer.check()
        if self._options.sleep:
            await self._sleeper.check(wake=wake)
        else:
            await self._sleeper.refuse_asleep()
        # One that takes adapters dies of a row that is scored beside other requests (0.32, CPU).
        self._scores_alone = await self._has_route(_LOAD)
        self.fingerprint = await self._persist(self._take_fingerprint)
        self._settle()

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._gate.inside

    async def sleep(self) -> None:
        """Sleep, when what is under way was answered; the next load wakes it.

        Raises:
            ServerError: It stayed away, or does not go to sleep.
        """

        async def work() -> None:
            async with self._checking, self._gate.alone():
                await self._sleeper.sleep()

        await self._persist(work)

    async def load(
        self, path: str | None, version: int, elsewhere: Callable[[], bool] = _nowhere
    ) -> None:
        """Take the weights of a folder, when what is under way was answered; wake up if asleep.

        Args:
            path: The folder; None where the weights are sent.
            version: Theirs.
            elsewhere: Whether other servers take them as well.

        Raises:
            DataError: The folder is none; a server that is told so would die of it.
            Gone: Nobody is there, and there is one elsewhere.
            ServerError: The server did not take them.
        """
        wanted = "adapter_config.json" if self._way == "lora" else "config.json"
        if path is not None and not (Path(path) / wanted).is_file():
            raise DataError(f"no weights to hand over: {path} has no {wanted}")

        async def work() -> None:
            async with self._checking, self._gate.alone():
                await self._load(path, version)
                self.fingerprint = await self._ask_for_fingerprint()
                self._loaded, self.version = (path, version), version
                self._settle()

        await self._persist(work, elsewhere=elsewhere)

    async def owe(self, path: str | None, version: int, fingerprint: list[list[float]]) -> bool:
        """Note weights that it shall load when it is back.

        Args:
            path: Their folder; None where they are sent.
            version: Theirs.
            fingerprint: What a server with these weights answers.

        Returns:
            Whether it is still away; if not, nothing was noted.
        """
        async with self._checking:
            if self.away:
                self._loaded, self.version = (path, version), version
                self.fingerprint = fingerprint
            return self.away

    async def come_back(self) -> None:
        """Wait until somebody is there again, and has the weights.

        Raises:
            ServerError: Somebody is, and does not take them.
        """
        wait = _FIRST_WAIT_S
        while self.away:
            with suppress(Gone, Lost):
                await self._trust()
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    async def ask(
        self,
        body: Callable[[str, int], dict[str, Any]],
        read: Callable[[Any], T],
        elsewhere: Callable[[], bool] = _nowhere,
        *,
        scoring: bool = False,
    ) -> Answer[T]:
        """Ask for a completion until there is one.

        Args:
            body: Returns what to send, from the name of the weights and their version.
            read: Returns what the answer means; raises ``Lost`` where it means nothing.
            elsewhere: Whether another server can be asked as well.
            scoring: Whether it is a row to be scored.

        Raises:
            ContextOverflow: The prompt does not fit.
            Gone: Nobody is there, and there is one elsewhere.
            ServerError: The server refused, stayed away for too long, or lost it too often.
        """
        assert not self._sleeper.asleep, "it was asked while it sleeps, and no load woke it"
        losses = 0

        async def work() -> Answer[T]:
            while True:
                await self._trust()
                async with self._room(scoring=scoring):
                    if self._doubted:  # it was lost to others while this one waited
                        continue
                    version = self.version
                    sent = body(self.model, version)
                    found = read(await self._http.post(_COMPLETIONS, sent))
                self._heard = time.monotonic()
                return Answer(found, version, losses)

        def lose() -> None:
            nonlocal losses
            losses += 1

        return await self._persist(work, lose, elsewhere)

    async def score(
        self, ids: Sequence[int], start: int, elsewhere: Callable[[], bool] = _nowhere
    ) -> list[float]:
        """Return the log-probabilities of a row's tokens from ``start`` on; raises as ``ask``."""
        answer = await self.ask(
            lambda model, _: scoring(ids, model),
            lambda answer: read_scores(answer, ids, start),
            elsewhere,
            scoring=True,
        )
        return answer.found

    async def cools_first(self) -> bool:
        """Return whether log-probabilities are those after the division by the temperature."""
        row = self._probe[0]
        found = []
        for temperature in (1.0, 2.0):
            change = {"temperature": temperature, "logprobs": 5}

            def body(model: str, _: int, change: dict[str, Any] = change) -> dict[str, Any]:
                return {**scoring(row, model), "prompt_logprobs": None, **change}

            found.append((await self.ask(body, top_logprobs)).found)
        plain, cooled = found
        same = [abs(plain[name] - cooled[name]) < 1e-6 for name in plain.keys() & cooled.keys()]
        return not all(same)

    async def close(self) -> None:
        """Leave it awake and without our adapter, where it can still be told, and hang up."""
        await self._sleeper.leave()
        if self.model != self._base:
            with suppress(ServerError):
                await self._http.post(_UNLOAD, {"lora_name": self.model})
        if self._transfer is not None:
            await self._transfer.close()
        await self._http.close()

    # Inside -----------------------------------------------------------------------------------

    async def _version(self) -> str:
        try:
            return str((await self._http.get("/version", within=_HEALTH_S))["version"])
        except Gone as error:
            raise ServerError(
                f"nothing answers at {self.url}; start a server with agentgym serve, or correct"
                " --server"
            ) from error
        except (Refused, Lost, TypeError, KeyError) as error:
            if isinstance(error, Refused) and error.status in (401, 403):
                raise
            raise ServerError(
                f"{self.url} answers, but is no vLLM server (GET /version: {error}); training needs"
                " the token ids and weights of vLLM 0.16 or later: agentgym serve, or vllm serve"
            ) from error

    async def _check_takes_weights(self, way: Way) -> None:
        path, how = _NEEDS[way]
        if not await self._has_route(path):
            what, by, instead = "weights", "agentgym serve", ""
            if way == "lora":
                what, by = "adapters", "agentgym serve --lora-rank R"
                if await self._has_route(_RPC):
                    instead = (
                        "; or hand over whole weights, which it takes: policy.server.sync=disk"
                    )
            raise ServerError(
                f"the vLLM server at {self.url} takes no {what}: it has no {path}; start it with"
                f" {how} ({by} does){instead}"
            )

    async def _has_route(self, path: str) -> bool:
        try:
            await self._http.post(path, {})  # of a route that is there: something is missing in it
        except Refused as error:
            return error.status not in (403, 404, 405)
        return True

    def _room(self, *, scoring: bool) -> AbstractAsyncContextManager[None]:
        """Wait for a place among the requests in flight; for all of them where that is needed."""
        alone = scoring and self._scores_alone
        return self._gate.alone() if alone else self._gate.together()

    async def _persist(
        self,
        work: Callable[[], Awaitable[T]],
        lose: Callable[[], None] = lambda: None,
        elsewhere: Callable[[], bool] = _nowhere,
    ) -> T:
        """Do ``work`` until it is done; the server may be gone for a while, or lose it twice."""
        gone_since: float | None = None
        losses = 0
        wait = _FIRST_WAIT_S
        while True:
            try:
                return await work()
            except Gone as error:
                self.away = self._doubted = True
                if elsewhere():
                    raise
                now = time.monotonic()
                gone_since = now if gone_since is None else gone_since
                if now - gone_since >= self._options.patience:
                    raise ServerError(
                        f"{error} for {self._options.patience:.0f} s; start the server again and go"
                        " on (training with --resume), or raise policy.server.patience"
                    ) from error
            except (Lost, Refused) as error:
                if isinstance(error, Refused) and not self._vanished(error):
                    raise refusal(error) from error
                losses += 1
                lose()
                if losses > _LOSSES:
                    raise ServerError(f"{error}; asked {losses} times") from error
                gone_since = None
            self._doubted = True
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def _vanished(self, error: Refused) -> bool:
        """Return whether the adapter is no longer known: the server was restarted unseen."""
        return error.status == 404 and self.model != self._base

    async def _trust(self) -> None:
        """Make sure that the server has the weights that it was given last."""
        if self._is_trusted():
            return
        async with self._checking:
            if self._is_trusted():  # another request did it meanwhile
                return
            await self._http.get("/health", within=_HEALTH_S)
            # What is half loaded must not be asked anything.
            if self._half_loaded or not (self._cannot_wait() or await self._is_itself()):
                await self._bring_back()
            self._settle()

    def _settle(self) -> None:
        """Take note that it is there, with the right weights."""
        self._heard, self._doubted, self.away = time.monotonic(), False, False

    def _is_trusted(self) -> bool:
        return not self._doubted and time.monotonic() - self._heard < _RESTART_S

    def _cannot_wait(self) -> bool:
        """Return whether a fingerprint would hold up turns, and one of them stands for it.

        Tokens that are scored alone wait for all turns that are being sampled, and the next ones
        for them. But a turn that was begun with the right weights, and was not lost, is with the
        process that had them.
        """
        return self._scores_alone and not self._doubted and self.in_flight > 0

    async def _is_itself(self) -> bool:
        try:
            return farthest(await self._take_fingerprint(), self.fingerprint) < _SAME
        except Refused as error:
            if self._vanished(error):
                return False
            raise

    async def _bring_back(self) -> None:
        if self._loaded is None:
            raise StaleWeightsError(
                f"the server at {self.url} answers with other weights than before, and was given"
                " none to load again; was it started with another model?"
            )
        if self._transfer is not None:
            self._transfer.leave()  # its ranks are those of the server that was there
        await self._load(*self._loaded)
        if not await self._is_itself():
            raise StaleWeightsError(
                f"the server at {self.url} was restarted, and given the weights of version"
                f" {self._loaded[1]} again it does not answer as before; is it the same model, in"
                " the same precision?"
            )

    async def _take_fingerprint(self) -> list[list[float]]:
        async with self._room(scoring=True):
            return await self._ask_for_fingerprint()

    async def _ask_for_fingerprint(self) -> list[list[float]]:
        answers = [
            await self._http.post(_COMPLETIONS, scoring(row, self.model)) for row in self._probe
        ]
        return [read_scores(a, row, 1) for a, row in zip(answers, self._probe, strict=True)]

    async def _load(self, path: str | None, version: int) -> None:
        self._half_loaded = True
        async with self._sleeper.woken():
            await self._load_by_way(path, version)
        self._half_loaded = False

    async def _load_by_way(self, path: str | None, version: int) -> None:
        if self._transfer is not None:
            await self._transfer.load()
            return
        if self._way == "disk":
            call = {"method": "reload_weights", "kwargs": {"weights_path": path}}
            await self._http.post(_RPC, call)
            return
        # A new name for each version: what is kept for prefixes is told apart by it.
        name = f"{self._base}-{self._run}-v{version}"
        if name in (self.model, self._asked_for):  # once more: it may be there
            with suppress(Refused):
                await self._http.post(_UNLOAD, {"lora_name": name})
        self._asked_for = name
        await self._http.post(_LOAD, {"lora_name": name, "lora_path": path})
        last, self.model = self.model, name
        if last not in (self._base, name):
            with suppress(ServerError):  # it is in nobody's way
                await self._http.post(_UNLOAD, {"lora_name": last})


def farthest(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    """Return the greatest absolute difference of two fingerprints, in nats.

    It is infinite where a value is not finite: nothing is near to that.
    """
    pairs = zip(left, right, strict=True)
    gaps = [abs(a - b) for rows in pairs for a, b in zip(*rows, strict=True)]
    return max(gaps) if all(map(math.isfinite, gaps)) else math.inf
