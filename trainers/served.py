"""A run whose turns are sampled by vLLM servers: those that were named, or its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from agentgym.errors import UsageError
from agentgym.launch import launched
from agentgym.policies.hf import HFPolicy
from agentgym.policies.serve_command import Served, ServeOptions, find_vllm
from agentgym.policies.serve_devices import VISIBLE, slices, visible_devices
from agentgym.policies.serve_many import ModelServers
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions, root_of
from agentgym.trainers.handover import HandOver, way_of, write_weights
from agentgym.trainers.lora import has_adapter
from agentgym.trainers.nccl import Nccl
from agentgym.trainers.shared_gpu import SharedGpu, free_unused
from agentgym.trainers.weight_source import WeightSource

LOG = "logs/vllm.log"
TRANSFER = ("--weight-transfer-config", '{"backend": "nccl"}')
SYNC = "sync"
SLEEPS = "--enable-sleep-mode"


@dataclass(frozen=True, slots=True)
class Serving:
    """What a run wants of its servers."""

    server: ServerOptions
    serve: ServeOptions | None  # starts some where none is named
    model: str  # a folder or hub id, to be served
    dtype: Literal["float32", "bfloat16"]
    lora_rank: int | None
    max_context: int  # the longest that is sampled
    temperatures: tuple[float, ...]  # at which it is sampled

    @property
    def is_asked(self) -> bool:
        """Whether servers sample, and not the model in this process."""
        return self.serve is not None or bool(self.server.urls)

    def check(self) -> None:
        """Refuse what cannot be, before anything is started.

        Raises:
            UsageError: A server is named and another is to be started, vLLM is not there, there
                are too few GPUs or those of the processes that train, a URL is none or carries a
                secret, or an adapter is to be handed over and there is none.
        """
        if self.serve is not None and self.server.urls:
            raise UsageError(
                "policy.serve (--serve) starts a server for the run, and policy.server.urls"
                " (--server) names others; choose one"
            )
        if self.serve is not None:
            find_vllm(self.serve.vllm)
            self.serve.refuse_open()
            _refuse_gpus_of_trainers(self.serve)
            slices(self.serve.devices, self.serve.replicas, self.serve.tensor_parallel)
        for url in self.server.urls:
            root_of(url)
        way_of(self.server.sync, adapter=self.lora_rank is not None)


def _refuse_gpus_of_trainers(serve: ServeOptions) -> None:
    """Refuse servers on the GPUs of the processes that train.

    Raises:
        UsageError: There are several such processes on this host, and servers are to go where
            these are, or nothing says where.
    """
    launch, gpus = launched(), visible_devices()
    if launch.size == 1 or launch.cpu or not gpus:
        return
    count = launch.local_size or launch.size
    taken, free = gpus[:count], gpus[count:]
    shared = [gpu for gpu in serve.devices if gpu in taken]
    if serve.devices and not shared:
        return
    what = (
        f"policy.serve.devices names {', '.join(shared)} of these"
        if shared
        else "the run's own servers would begin there, too"
    )
    raise UsageError(
        f"{count} processes train, each on a GPU from the first one on ({', '.join(taken)}), and"
        f" {what}; {_gpus_for(serve, free)}"
    )


def _gpus_for(serve: ServeOptions, free: tuple[str, ...]) -> str:
    """Return what to do for servers to have GPUs that nobody trains on."""
    wanted = serve.replicas * serve.tensor_parallel
    if wanted <= len(free):
        return f"give them others: --set 'policy.serve.devices={json.dumps(free[:wanted])}'"
    left = f"only {', '.join(free)}" if free else "none"
    return (
        f"they need {wanted} others, and {left} of this host's {VISIBLE} is left: train with fewer"
        " processes, or name servers that others start (--server)"
    )


@contextmanager
def named_servers(
    trained: HFPolicy, asked: Serving, folder: Path, own: ModelServers | None = None
) -> Iterator[tuple[VLLMPolicy, HandOver]]:
    """Yield what samples with the servers that were named, and what hands weights to them.

    Args:
        trained: The model whose weights are handed over.
        asked: The servers.
        folder: The run's.
        own: The same servers as processes, where they were started for the run.

    Raises:
        UsageError, ServerError: A server does not fit; the message says what to do.
    """
    way = way_of(asked.server.sync, adapter=has_adapter(trained.model))
    source = None
    if way == "nccl":
        source = WeightSource(trained, Nccl(trained.model.device))
    policy = VLLMPolicy(asked.server, trained.tokenizer, way, source=source)
    with closing(policy) as servers:
        for temperature in asked.temperatures:
            servers.check_temperature(temperature)
        tolerance = asked.server.tolerance
        gpu = SharedGpu(servers, own) if asked.server.sleep else None
        handing = HandOver(trained, servers, folder / SYNC, tolerance, way, source, gpu)
        with closing(handing) as hand_over:
            yield servers, hand_over


@contextmanager
def own_servers(
    trained: HFPolicy, asked: Serving, folder: Path, say: Callable[[str], None]
) -> Iterator[tuple[VLLMPolicy, HandOver]]:
    """Start servers on this machine, and yield what :func:`named_servers` yields.

    Args:
        trained: The model whose weights are handed over.
        asked: The servers.
        folder: The run's; the servers' logs are in it.
        say: Told what people should know.

    Raises:
        UsageError, ServerError: One does not start, or there are too few GPUs.
    """
    assert asked.serve is not None
    # One more than is sampled, as vLLM samples a token beside what it scores.
    room = min(trained.max_context, asked.max_context + 1)
    base, serve = asked.model, asked.serve
    way = way_of(asked.server.sync, adapter=has_adapter(trained.model))
    if way == "nccl":
        Nccl(trained.model.device)  # refuses what it would refuse after the server's minute
        serve = serve.model_copy(update={"arguments": (*TRANSFER, *serve.arguments)})
    if asked.server.sleep:
        serve = serve.model_copy(update={"arguments": (SLEEPS, *serve.arguments)})
    if way == "disk":
        base = str(folder.absolute() / SYNC / "base")
        shutil.rmtree(base, ignore_errors=True)
        write_weights(trained, Path(base), "disk")
    free_unused()  # a server on the same GPU refuses to begin where it finds too little
    served = Served(
        model=base,
        name=Path(asked.model).name,
        dtype=asked.dtype,
        max_model_len=room,
        lora_rank=asked.lora_rank,
    )
    with ModelServers(served, serve, folder / LOG, say) as servers:
        options = asked.server.of_started(servers.urls, served.name, serve.patience)
        with named_servers(trained, replace(asked, server=options), folder, servers) as both:
            yield both
