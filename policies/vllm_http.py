"""One vLLM server over HTTP: what is sent, and what each failure means.

Three things go wrong, and each wants something else. *Refused*: the server is there and says no,
and would say no again. *Gone*: nobody is there to be asked; someone may be, later. *Lost*: it was
asked, and no usable answer came; the same question may be asked again, a few times.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ConfigDict, Field

from agentgym.errors import ServerError
from agentgym.policies.server_url import checked_url

KEY = "VLLM_API_KEY"
"""The environment variable that vLLM, too, reads its key from."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CONNECT_S = 5.0
_NOT_YET = (502, 503, 504)  # what a gateway says while there is nothing behind it


class ServerOptions(BaseModel):
    """The vLLM servers that answer for the policy, and how they are treated.

    Attributes:
        urls: Where they are; each episode stays with one of them.
        model: The name that the servers know the model by; None takes the only one that they have.
        sync: How weights get there: ``disk``, ``lora``, or ``nccl`` from GPU to GPU; ``auto`` takes
            ``lora`` where an adapter is trained, else ``disk``.
        tolerance: By how much the log-probability of a token may differ between trainer and server
            after weights were handed over, in nats.
        in_flight: Requests that a server has at once.
        timeout: Seconds after which a request counts as lost.
        patience: Seconds to wait for a server that is gone. One that was started for the run may
            take those of ``policy.serve.patience`` to be there again, unless this is set.
        sleep: Whether the server has its GPU in turns with the learner, and sleeps while that
            learns.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    urls: tuple[str, ...] = ()
    model: str | None = None
    sync: Literal["auto", "disk", "lora", "nccl"] = "auto"
    tolerance: float = Field(default=1e-3, gt=0)
    in_flight: int = Field(default=256, ge=1)
    timeout: float = Field(default=600.0, gt=0)
    patience: float = Field(default=300.0, ge=0)
    sleep: bool = False

    def of_started(self, urls: tuple[str, ...], model: str, start: float) -> ServerOptions:
        """Return these for servers that were started for the run.

        Args:
            urls: Where they are.
            model: The name that they know it by.
            start: Seconds that one may take to become ready, and so to be there again.
        """
        patience = self.patience_of_started(start)
        return self.model_copy(update={"urls": urls, "model": model, "patience": patience})

    def patience_of_started(self, start: float) -> float:
        """Return the seconds to wait for a server that was started for the run and is gone.

        Args:
            start: Seconds that one may take to become ready, and so to be there again.
        """
        # A resumed run reads all settings from its folder, those that nobody set, too.
        is_set = self.patience != type(self).model_fields["patience"].default
        return self.patience if is_set else max(self.patience, start)


class Refused(ServerError):  # noqa: N818 (what happened)
    """The server said no, with a status from 400 to 499.

    Attributes:
        status: Of the answer.
        param: What of the request was wrong, where the server says that.
    """

    def __init__(self, message: str, status: int, param: str | None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


class Gone(ServerError):  # noqa: N818 (what happened)
    """Nobody was there to be asked."""


class Lost(ServerError):  # noqa: N818 (what happened)
    """It was asked, and no usable answer came."""


class Http:
    """Asks one server, once for each call.

    Args:
        url: Its root, with or without ``/v1``.
        options: How long an answer may take.

    Attributes:
        url: Its root.

    Raises:
        UsageError: The URL is none, or carries a secret.
    """

    def __init__(self, url: str, options: ServerOptions) -> None:
        self.url = root_of(url)
        key = os.environ.get(KEY)
        self._client = httpx2.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(options.timeout, connect=_CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=urlsplit(self.url).hostname not in _LOOPBACK,  # no proxy to this machine
            verify=self.url.startswith("https"),  # reading certificates takes a fifth of a second
        )

    async def get(self, path: str, within: float | None = None) -> Any:
        """Return the JSON that a path answers with; text as it is, None for an empty answer.

        Args:
            path: Of the URL.
            within: Seconds without an answer after which nobody is there.

        Raises:
            Refused, Gone, Lost: See the top of this file.
        """
        try:
            async with asyncio.timeout(within):
                return await self._ask("GET", path, None)
        except TimeoutError as error:
            raise Gone(f"nothing answers at {self.url}") from error

    async def post(self, path: str, body: object) -> Any:
        """Send JSON; return what :meth:`get` returns.

        Raises:
            Refused, Gone, Lost: See the top of this file.
        """
        return await self._ask("POST", path, body)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, body: object) -> Any:
        what = f"{method} {self.url}{path}"
        try:
            answer = await self._client.request(method, path, json=body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Gone(f"nothing answers at {self.url}") from error
        except httpx2.TimeoutException as error:
            raise Lost(f"{what}: no answer in time (policy.server.timeout)") from error
        except httpx2.RequestError as error:  # or the answer is packed, and cannot be unpacked
            raise Lost(f"{what}: the connection broke ({type(error).__name__})") from error
        return self._read(what, answer)

    def _read(self, what: str, answer: httpx2.Response) -> Any:
        status = answer.status_code
        if status in _NOT_YET:
            raise Gone(f"{what}: answered {status}, not ready")
        if status >= 500:
            raise Lost(f"{what}: answered {status}: {_reason(answer)[0]}")
        if status >= 300:
            message, param = _reason(answer)
            hint = f"; it wants a key, which is taken from ${KEY}" if status in (401, 403) else ""
            raise Refused(f"{what}: answered {status}: {message}{hint}", status, param)
        if not answer.content:
            return None
        if "json" not in answer.headers.get("content-type", ""):
            return _text(answer)  # what was done, in a sentence; or a page of something else
        try:
            return answer.json()
        except (ValueError, RecursionError) as error:
            raise Lost(f"{what}: answered no JSON but {_text(answer)[:60]!r}") from error


def root_of(url: str) -> str:
    """Return the root of a server's URL, without ``/v1``.

    Raises:
        UsageError: It is no URL of HTTP, or carries a secret, which would be written down.
    """
    checked_url(url, "http://HOST:PORT", KEY)
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _text(answer: httpx2.Response) -> str:
    """Return an answer as it is, in whatever encoding it says that it is."""
    return answer.content.decode(errors="replace")


def _reason(answer: httpx2.Response) -> tuple[str, str | None]:
    """Return what an error answer says, in one line, and the parameter it is about."""
    try:
        error = json.loads(answer.content)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, RecursionError):
        message, param = _text(answer), None
    return " ".join(message.split())[:300] or answer.reason_phrase, param
