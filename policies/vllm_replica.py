"""One vLLM server as a policy sees it: asked again where that helps, and with the right weights.

A server that was restarted has the weights that it began with, and says nothing of it. So each
has a fingerprint, the log-probabilities of fixed tokens, taken when weights were loaded. Whenever a
server may have been restarted the fingerprint is taken again, and where it differs the weights are
loaded again, before anything else is asked.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from agentgym.errors import ContextOverflow, DataError, ServerError, StaleWeightsError
from agentgym.policies.vllm_http import Gone, Http, Lost, Refused, ServerOptions
from agentgym.policies.vllm_wire import read_scores, scoring, top_logprobs

T = TypeVar("T")
Way = Literal["disk", "lora"]

OLDEST = (0, 16)
"""The oldest vLLM that takes weights from a folder while it runs."""

_COMPLETIONS, _RPC = "/v1/completions", "/collective_rpc"
_LOAD, _UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
_LOSSES = 2  # how often one request is asked again
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_RESTART_S = 5.0  # no server is started in less; one that was silent for longer may be another
_SAME = 1e-2  # nats by which a server may differ from itself, whatever else is in its batch
_NEEDS: dict[Way, tuple[str, str]] = {
    "disk": (_RPC, "VLLM_SERVER_DEV_MODE=1 in its environment"),
    "lora": (_LOAD, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment and --enable-lora"),
}


class Replica:
    """One server with its weights. All methods belong to one event loop.

    Args:
        url: Where it is.
        options: How it is treated.
        probe: Rows of fixed tokens.
        run: Tells the adapters of this run from those of others.

    Attributes:
        url: Where it is.
        model: The name by which its weights are asked for; another for each adapter.
        max_context: Tokens, prompt and sample together.
        fingerprint: Log-probabilities of the fixed tokens after the last load.
    """

    def __init__(
        self, url: str, options: ServerOptions, probe: Sequence[Sequence[int]], run: str
    ) -> None:
        self._http = Http(url, options)
        self._options, self._probe, self._run = options, probe, run
        self.url = self._http.url
        self.model = self._base = ""
        self.max_context = 0
        self.fingerprint: list[list[float]] = []
        self._way: Way = "disk"
        self._loaded: tuple[str, int] | None = None
        self._slots = asyncio.Semaphore(options.in_flight)
        self._checking, self._alone = asyncio.Lock(), asyncio.Lock()
        self._scores_alone = False
        self._heard = 0.0  # when it last answered
        self._doubted = False

    async def connect(self, way: Way | None) -> None:
        """Find out what the server is, and that it can do what is needed.

        Args:
            way: How weights will get there; None asks for those that are there.

        Raises:
            ServerError: Nothing is there, it is no vLLM or too old, or it lacks a model or a flag;
                the message says which and what to do.
        """
        check_version(self.url, await self._version())
        card = _model_card(self.url, await self._http.get("/v1/models"), self._options.model)
        self.model = self._base = str(card["id"])
        self.max_context = int(card["max_model_len"])
        if way is not None:
            await self._check_takes_weights(way)
            self._way = way
        # One that takes adapters dies of a row that is scored beside other requests (0.32, CPU).
        self._scores_alone = await self._has_route(_LOAD)
        self.fingerprint = await self._persist(self._take_fingerprint)
        self._heard = time.monotonic()

    async def load(self, path: str, version: int) -> None:
        """Take the weights of a folder.

        Raises:
            DataError: The folder is none; a server that is told so would die of it.
            ServerError: The server did not take them.
        """
        wanted = "adapter_config.json" if self._way == "lora" else "config.json"
        if not (Path(path) / wanted).is_file():
            raise DataError(f"no weights to hand over: {path} has no {wanted}")
        self._loaded = path, version

        async def work() -> list[list[float]]:
            await self._load()
            return await self._take_fingerprint()

        self.fingerprint = await self._persist(work)
        self._heard, self._doubted = time.monotonic(), False

    async def ask(
        self, body: Callable[[str], dict[str, Any]], read: Callable[[Any], T]
    ) -> tuple[T, int]:
        """Ask for a completion until there is one.

        Args:
            body: Returns what to send, from the name of the weights.
            read: Returns what the answer means; raises ``Lost`` where it means nothing.

        Returns:
            What was read, and how many times the answer was lost before.

        Raises:
            ContextOverflow: The prompt does not fit.
            ServerError: The server refused, stayed away for too long, or lost it too often.
        """
        losses = 0

        async def work() -> T:
            await self._trust()
            content = body(self.model)
            async with self._room(scoring=content.get("prompt_logprobs") is not None):
                found = read(await self._http.post(_COMPLETIONS, content))
            self._heard = time.monotonic()
            return found

        def lose() -> None:
            nonlocal losses
            losses += 1

        return await self._persist(work, lose), losses

    async def score(self, ids: Sequence[int], start: int) -> list[float]:
        """Return the log-probabilities of a row's tokens from ``start`` on; raises as ``ask``."""
        scores, _ = await self.ask(
            lambda model: scoring(ids, model), lambda answer: read_scores(answer, ids, start)
        )
        return scores

    async def cools_first(self) -> bool:
        """Return whether log-probabilities are those after the division by the temperature."""
        row = self._probe[0]
        found = []
        for temperature in (1.0, 2.0):
            change = {"temperature": temperature, "logprobs": 5}

            def body(model: str, change: dict[str, Any] = change) -> dict[str, Any]:
                return {**scoring(row, model), "prompt_logprobs": None, **change}

            found.append((await self.ask(body, top_logprobs))[0])
        plain, cooled = found
        same = [abs(plain[name] - cooled[name]) < 1e-6 for name in plain.keys() & cooled.keys()]
        return not all(same)

    async def close(self) -> None:
        """Leave no adapter behind, where the server can still be told, and hang up."""
        if self.model != self._base:
            with suppress(ServerError):
                await self._http.post(_UNLOAD, {"lora_name": self.model})
        await self._http.close()

    # Inside -----------------------------------------------------------------------------------

    async def _version(self) -> str:
        try:
            return str((await self._http.get("/version"))["version"])
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
            raise ServerError(
                f"the vLLM server at {self.url} takes no weights: it has no {path}; start it with"
                f" {how} (agentgym serve does)"
            )

    async def _has_route(self, path: str) -> bool:
        try:
            await self._http.post(path, {})  # of a route that is there: something is missing in it
        except Refused as error:
            return error.status not in (403, 404, 405)
        return True

    @asynccontextmanager
    async def _room(self, *, scoring: bool) -> AsyncIterator[None]:
        """Wait for a place among the requests in flight; for all of them where that is needed."""
        if not (scoring and self._scores_alone):
            async with self._slots:
                yield
            return
        async with self._alone, AsyncExitStack() as places:
            for _ in range(self._options.in_flight):
                await places.enter_async_context(self._slots)
            yield

    async def _persist(
        self, work: Callable[[], Awaitable[T]], lose: Callable[[], None] = lambda: None
    ) -> T:
        """Do ``work`` until it is done; the server may be gone for a while, or lose it twice."""
        gone_since: float | None = None
        losses = 0
        wait = _FIRST_WAIT_S
        while True:
            try:
                return await work()
            except Gone as error:
                now = time.monotonic()
                gone_since = now if gone_since is None else gone_since
                if now - gone_since >= self._options.patience:
                    raise ServerError(
                        f"{error} for {self._options.patience:.0f} s; start the server again and go"
                        " on (training with --resume), or raise policy.server.patience"
                    ) from error
            except (Lost, Refused) as error:
                if isinstance(error, Refused) and not self._vanished(error):
                    raise _refusal(error) from error
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
            await self._http.get("/health")
            if not await self._is_itself():
                await self._bring_back()
            self._heard, self._doubted = time.monotonic(), False

    def _is_trusted(self) -> bool:
        return not self._doubted and time.monotonic() - self._heard < _RESTART_S

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
        await self._load()
        if not await self._is_itself():
            raise StaleWeightsError(
                f"the server at {self.url} was restarted, and given the weights of version"
                f" {self._loaded[1]} again it does not answer as before; is it the same model, in"
                " the same precision?"
            )

    async def _take_fingerprint(self) -> list[list[float]]:
        async with self._room(scoring=True):
            answers = [
                await self._http.post(_COMPLETIONS, scoring(row, self.model)) for row in self._probe
            ]
        return [read_scores(a, row, 1) for a, row in zip(answers, self._probe, strict=True)]

    async def _load(self) -> None:
        assert self._loaded is not None
        path, version = self._loaded
        if self._way == "disk":
            call = {"method": "reload_weights", "kwargs": {"weights_path": path}}
            await self._http.post(_RPC, call)
            return
        # A new name for each version: what is kept for prefixes is told apart by it.
        name = f"{self._base}-{self._run}-v{version}"
        for old in dict.fromkeys((name, self.model)):
            if old != self._base:
                with suppress(Refused):  # it was not there
                    await self._http.post(_UNLOAD, {"lora_name": old})
        await self._http.post(_LOAD, {"lora_name": name, "lora_path": path})
        self.model = name


def farthest(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    """Return the greatest absolute difference of two fingerprints, in nats."""
    pairs = zip(left, right, strict=True)
    return max(abs(a - b) for rows in pairs for a, b in zip(*rows, strict=True))


def check_version(url: str, version: str) -> None:
    """Refuse a vLLM that is too old.

    Raises:
        ServerError: It is.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    built_from_source = ".dev" in version  # its numbers say nothing
    if numbers is None or built_from_source:
        return
    if (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise ServerError(
            f"the server at {url} is vLLM {version}; {OLDEST[0]}.{OLDEST[1]} or later is needed, to"
            " take weights while it runs: pip install -U vllm"
        )


def _model_card(url: str, answer: Any, wanted: str | None) -> Any:
    """Return the entry of the model that is asked for, of all that a server has.

    Raises:
        ServerError: There is none of that name, or several and none was named.
    """
    try:
        cards = [card for card in answer["data"] if not card.get("parent")]  # no adapters
    except (TypeError, KeyError, AttributeError) as error:
        raise ServerError(f"{url}/v1/models answered no list of models") from error
    names = ", ".join(str(card["id"]) for card in cards)
    chosen = [card for card in cards if wanted in (None, card["id"])]
    if not chosen:
        raise ServerError(
            f"the server at {url} has no model {wanted!r}; it has: {names}. Set policy.server.model"
            " to one of these, or start the server with the model"
        )
    return chosen[0]


def _refusal(error: Refused) -> ServerError | ContextOverflow:
    said = str(error)
    if error.status == 400 and (error.param == "input_tokens" or "context length" in said):
        return ContextOverflow(
            f"{said}; lower policy.sampling.max_context, or start the server with a greater"
            " --max-model-len"
        )
    return error
