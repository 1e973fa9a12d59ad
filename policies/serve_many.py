"""Several vLLM servers of one model on this machine, each with its own GPUs and its own watcher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from agentgym.errors import ServerError
from agentgym.policies.serve import ModelServer
from agentgym.policies.serve_command import Served, ServeOptions
from agentgym.policies.serve_devices import slices


class ModelServers:
    """Servers that are started at once and end together. A context manager.

    Args:
        served: What each serves.
        options: How each is started; ``replicas`` says how many.
        log: File that the output of one server is appended to; of several, each has its own, with
            its number in the name.
        say: Told what people should know.

    Attributes:
        servers: Each of them.

    Raises:
        UsageError: vLLM is not there, or there are too few GPUs.
        DataError: A log cannot be written.
    """

    def __init__(
        self, served: Served, options: ServeOptions, log: Path, say: Callable[[str], None]
    ) -> None:
        count = options.replicas
        devices = slices(options.devices, count, options.tensor_parallel)
        self._say = say
        self.servers = [
            ModelServer(
                served,
                options.model_copy(
                    update={"port": options.port and options.port + n, "devices": devices[n]}
                ),
                log if count == 1 else log.with_name(f"{log.stem}-{n}{log.suffix}"),
                say,
                "vLLM" if count == 1 else f"vLLM {n + 1} of {count}",
            )
            for n in range(count)
        ]

    @property
    def urls(self) -> tuple[str, ...]:
        """Where they are."""
        return tuple(server.url for server in self.servers)

    def __enter__(self) -> ModelServers:
        """Start all of them, and then wait until all are ready.

        Raises:
            UsageError: A port is taken; none is left.
            ServerError: One ended, or took too long; the others are ended.
        """
        with ExitStack() as stack:
            stack.push(self.__exit__)
            for server in self.servers:
                server.start()
            for server in self.servers:
                server.wait_until_ready()
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them, with all processes that they started; all at once, as each takes its time."""
        with ExitStack() as stack:
            for server in self.servers:
                stack.push(server.__exit__)
            for server in self.servers:
                server.let_go()

    def be_asleep(self, asleep: bool) -> None:
        """Take note that they were sent to sleep, or shall wake (:attr:`ModelServer.asleep`)."""
        for server in self.servers:
            server.asleep = asleep

    def wait(self) -> None:
        """Wait until all are given up; what becomes of one is said when it happens.

        Raises:
            ServerError: They were: each died again and again.
        """
        given_up: ServerError | None = None
        for server in self.servers:
            try:
                server.wait()
            except ServerError as error:
                given_up = error
        if given_up is not None:
            raise given_up
