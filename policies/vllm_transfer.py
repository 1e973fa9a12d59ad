"""Weights to a vLLM server by a broadcast among GPUs, as vLLM documents it since 0.30.

The trainer is rank 0 of a group, the server's workers are the others. Over HTTP the server is told
to join the group, which the trainer does in the same moment, and which tensors come; then both
broadcast, the trainer from its memory and the workers into theirs. No file is written. How the
group communicates is the trainer's affair: here nothing of NCCL or torch is known.

A group is of one server, so a server that is restarted breaks none but its own.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Protocol, TypedDict, TypeVar

from agentgym.errors import ServerError
from agentgym.policies.vllm_http import Http, Lost

T = TypeVar("T")

INIT = "/init_weight_transfer_engine"
FLAG = '--weight-transfer-config \'{"backend":"nccl"}\''
_NOT_CONFIGURED = "not configured"  # of what vLLM says without that flag


class Manifest(TypedDict):
    """What is broadcast, in this order, as vLLM is told of it."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class Group(Protocol):
    """The trainer's place in a group of ranks. Methods but ``abort`` block."""

    def broadcast(self, tensor: Any) -> None:
        """Begin to send a tensor to all ranks; it must stay as it is until ``wait`` returned."""

    def wait(self) -> None:
        """Wait until all is sent."""

    def abort(self) -> None:
        """Leave at once; what blocks in another thread ends. Leaving twice is leaving once."""


class Weights(Protocol):
    """What the trainer has to send."""

    @property
    def manifest(self) -> Manifest:
        """What it is."""

    def broadcast(self, group: Group) -> None:
        """Send all of it, and wait until it is sent.

        Raises:
            Gone: It changed meanwhile; what the server has is of no version.
        """


class Source(Protocol):
    """The trainer. Methods block, and are called in threads."""

    def weights(self) -> Weights:
        """Return the weights of the version that was handed over last.

        Raises:
            Gone: They are no more: the next version is being made.
        """

    def new_id(self) -> bytes:
        """Return the name of a new group, by which its ranks find each other."""

    def join(self, name: bytes, ranks: int) -> Group:
        """Be rank 0 of a group; returns when all ranks are there."""


class Transfer:
    """Sends weights to one server. All methods belong to one event loop.

    Args:
        http: The server.
        source: The trainer.
    """

    def __init__(self, http: Http, source: Source) -> None:
        self._http, self._source = http, source
        self._group: Group | None = None

    async def check(self) -> None:
        """Refuse a server that answers nothing until a weight update is finished.

        Raises:
            ServerError: It is paused, as one is left whose weights came but in part.
        """
        if (await self._http.get("/is_paused"))["is_paused"]:
            raise ServerError(
                f"the vLLM server at {self._http.url} is paused, as one is left whose weights came"
                " but in part; restart it"
            )

    async def load(self) -> None:
        """Let the server take the trainer's weights as they are now.

        While they come it is paused: requests of others wait. If they do not come it stays so,
        because what it has then is no model; loading again mends that.

        Raises:
            Refused, Gone, Lost: The weights did not arrive.
            ServerError: The server was not started for this.
        """
        try:
            weights = await _in_thread(self._source.weights)
            group = self._group = self._group or await self._join()
            await self._http.post("/pause?mode=keep", {})
            await self._http.post("/start_weight_update", {})
            update = {"update_info": weights.manifest}
            await self._both("/update_weights", update, lambda: weights.broadcast(group))
            await self._http.post("/finish_weight_update", {})
            await self._http.post("/resume", {})
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Leave the group; the next load makes a new one."""
        if self._group is not None:
            self._group.abort()
            self._group = None

    async def close(self) -> None:
        """Leave the group, and let the server do the same where it can still be told."""
        if self._group is not None:
            with suppress(ServerError):  # some versions cannot
                await self._http.post("/shutdown_weight_transfer_engine", {})
        self.leave()

    async def _join(self) -> Group:
        ranks = 1 + int((await self._http.get("/get_world_size"))["world_size"])
        name = await _in_thread(self._source.new_id)
        place = {
            "nccl_unique_id_b64": base64.b64encode(name).decode(),
            "rank_offset": 1,
            "world_size": ranks,
        }
        try:
            return await self._both(
                INIT, {"init_info": place}, lambda: self._source.join(name, ranks)
            )
        except Lost as error:
            if _NOT_CONFIGURED not in str(error):
                raise
            raise ServerError(
                f"the vLLM server at {self._http.url} takes no weights over NCCL; start it with"
                f" {FLAG} (train --serve does), or set policy.server.sync to disk"
            ) from error

    async def _both(self, path: str, body: object, work: Callable[[], T]) -> T:
        """Do our part of what all ranks do together while the server does its own."""
        theirs = asyncio.create_task(self._http.post(path, body))
        try:
            ours, _ = await asyncio.gather(_in_thread(work), theirs)
        finally:
            theirs.cancel()  # where ours failed: it may never end
        return ours


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do ``work`` in a thread of its own.

    It may hang for good where the other ranks do not come, and must not keep the process then.
    """
    done: Future[T] = Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(work())
        except BaseException as error:  # is raised where it is waited for
            done.set_exception(error)

    Thread(target=run, name="agentgym-transfer", daemon=True).start()
    return asyncio.wrap_future(done)
