"""Ranks that weights are broadcast to, over gloo instead of NCCL, behind vLLM's own routes.

They keep what arrives bit by bit, and are as strict as vLLM's workers: about the fields they are
sent, the number that all ranks add up first, and the order of an update's four calls.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

NAME_BYTES = 128
PATIENCE = timedelta(seconds=3)


class GlooGroup:
    """One rank of a group."""

    def __init__(self, store: dist.Store, rank: int, ranks: int) -> None:
        self._group = dist.ProcessGroupGloo(store, rank, ranks, PATIENCE)
        self._under_way: list[Any] = []
        self.aborted = False
        self._store = store  # lives as long as the group
        warm = torch.ones(1)
        self._group.allreduce([warm]).wait()
        assert warm.item() == ranks

    def broadcast(self, tensor: torch.Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = 0
        self._under_way.append(self._group.broadcast([tensor], options))

    def wait(self) -> None:
        for work in self._under_way:
            work.wait()
        self._under_way.clear()

    def abort(self) -> None:
        self.aborted = True


class GlooCollectives:
    """What makes groups for the trainer; the name of one is where its store listens."""

    def __init__(self) -> None:
        self.groups: list[GlooGroup] = []
        self._stores: dict[bytes, dist.TCPStore] = {}

    def new_id(self) -> bytes:
        store = dist.TCPStore("127.0.0.1", 0, None, True, PATIENCE, wait_for_workers=False)
        name = str(store.port).encode().ljust(NAME_BYTES, b"\0")
        self._stores[name] = store
        return name

    def join(self, name: bytes, ranks: int) -> GlooGroup:
        self.groups.append(GlooGroup(self._stores[name], 0, ranks))
        return self.groups[-1]


def join(name: bytes, rank: int, ranks: int) -> GlooGroup:
    """Be one of the others."""
    assert len(name) == NAME_BYTES
    port = int(name.rstrip(b"\0"))
    return GlooGroup(dist.TCPStore("127.0.0.1", port, None, False, PATIENCE), rank, ranks)


class Ranks:
    """The workers of a fake server, as many as it is told, and its routes.

    What is public may be changed by a test: ``configured`` is whether the server was started for
    this, ``breaks`` calls of ``/update_weights`` fail.
    """

    def __init__(self, server: Any, refusal: Callable[..., Exception], count: int = 1) -> None:
        self.server, self._refusal, self.count = server, refusal, count
        self.configured, self.breaks = True, 0
        self.received: list[dict[str, torch.Tensor]] = []  # by rank
        self.calls: list[str] = []
        self.active = self.paused = False
        self._groups: list[GlooGroup] = []
        server.more_posts |= {
            "/init_weight_transfer_engine": self.init,
            "/start_weight_update": self.start,
            "/update_weights": self.update,
            "/finish_weight_update": self.finish,
            "/shutdown_weight_transfer_engine": self.shut_down,
            "/pause?mode=keep": lambda body: self.pause(True),
            "/resume": lambda body: self.pause(False),
        }
        server.more_gets |= {
            "/get_world_size": lambda: {"world_size": self.count},
            "/is_paused": lambda: {"is_paused": self.paused},
        }

    def restart(self) -> None:
        """Forget the group, as a process that was started anew."""
        self._groups, self.active = [], False
        self.paused = False
        self.server.runs.set()
        self.server.restart()

    def pause(self, paused: bool) -> Any:
        self.calls.append("pause" if paused else "resume")
        self.paused = paused
        (self.server.runs.clear if paused else self.server.runs.set)()
        return {"status": "paused" if paused else "resumed"}

    def init(self, body: Any) -> Any:
        if "init_info" not in body:
            raise self._refusal(422, "Field required", "init_info")
        self.calls.append("init")
        if not self.configured:
            raise self._refusal(
                500, "Weight transfer not configured. Please set weight_transfer_config"
            )
        place = dict(body["init_info"])
        name = base64.b64decode(place.pop("nccl_unique_id_b64"), validate=True)
        first, ranks = place.pop("rank_offset"), place.pop("world_size")
        assert not place, place
        self._groups = self._each(lambda n: join(name, first + n, ranks))
        return {"message": "Weight transfer initialized"}

    def start(self, _body: Any) -> Any:
        self.calls.append("start")
        if self.active:
            raise self._refusal(500, "a weight update is already active")
        self.active = True
        self.server.broken |= not self.paused  # a turn now would be of no model
        return {"message": "Weight update started"}

    def update(self, body: Any) -> Any:
        self.calls.append("update")
        info = dict(body["update_info"])
        named = list(zip(*map(info.pop, ("names", "dtype_names", "shapes")), strict=True))
        assert not info, info
        if self.breaks or not self._groups:
            self.breaks, self.active = max(0, self.breaks - 1), False
            raise self._refusal(500, "Call to update_weights method failed")

        def receive(n: int) -> dict[str, torch.Tensor]:
            into = {name: torch.empty(shape, dtype=getattr(torch, d)) for name, d, shape in named}
            for tensor in into.values():
                self._groups[n].broadcast(tensor)
            self._groups[n].wait()
            return into

        self.received = self._each(receive)
        return {"message": "Weights updated"}

    def finish(self, _body: Any) -> Any:
        self.calls.append("finish")
        if not self.active:
            raise self._refusal(500, "finish_weight_update without start_weight_update")
        self.active = False
        if not self.server.deaf:
            self.server.take(self.received[0])
        return {"message": "Weight update finished"}

    def shut_down(self, _body: Any) -> Any:
        self.calls.append("shutdown")
        self._groups = []
        return {"message": "Weight transfer shut down"}

    def _each(self, work: Any) -> list[Any]:
        """Do the same on all ranks at once."""
        found: dict[int, Any] = {}
        threads = [
            threading.Thread(target=lambda n=n: found.__setitem__(n, work(n)))
            for n in range(self.count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[n] for n in range(self.count)]
