"""How a vLLM server is started: where vLLM is, its command line, its environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agentgym.door import LOOPBACK, is_loopback
from agentgym.errors import UsageError
from agentgym.policies.serve_devices import VISIBLE, has_gpu

VLLM = "AGENTGYM_VLLM"
"""The environment variable that says where vLLM is."""

API_KEY = "VLLM_API_KEY"
"""The environment variable that has the key, which vLLM reads by itself."""

_MODULE = "vllm.entrypoints.openai.api_server"
_LAST_PORT = 65535
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # for which vLLM makes room
_GET = (
    "pip install 'agentgym[vllm]', or install vLLM into an environment of its own and name that:"
    f" --vllm FOLDER, or {VLLM}=FOLDER"
)


class ServeOptions(BaseModel):
    """vLLM servers that are started for the run and end with it.

    Attributes:
        vllm: Where vLLM is: its command, a Python that has it, or a virtual environment; None takes
            ``$AGENTGYM_VLLM``, then ``vllm`` on the PATH.
        replicas: How many servers; each has the whole model, and episodes are shared out.
        tensor_parallel: GPUs that the model is split over in each.
        devices: GPUs that they may have, as in CUDA_VISIBLE_DEVICES; none named are all visible.
        host: Where they listen. On another address than this machine's own they ask for the key in
            ``$VLLM_API_KEY``, and take no weights: what takes them is not behind the key.
        port: Where the first listens, the others behind it; 0 takes free ones.
        patience: Seconds that each may take to become ready.
        arguments: More of vLLM's own arguments, as on its command line.

    Raises:
        UsageError: There are fewer ports behind ``port`` than servers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vllm: str | None = None
    replicas: int = Field(default=1, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    devices: tuple[str, ...] = ()
    host: str = LOOPBACK
    port: int = Field(default=0, ge=0, le=_LAST_PORT)
    patience: float = Field(default=900.0, gt=0)
    arguments: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_ports_for_all(self) -> Self:
        last = self.port + self.replicas - 1
        if self.port and last > _LAST_PORT:
            raise UsageError(  # no ValueError: not only configurations are made of these
                f"{self.replicas} servers from port {self.port} on need those up to {last}, and the"
                f" last there is is {_LAST_PORT}; choose at most {_LAST_PORT + 1 - self.replicas}"
                " with --port (policy.serve.port), or 0, which takes free ones"
            )
        return self

    def refuse_open(self) -> None:
        """Refuse to listen for everybody, and to write a key down.

        Raises:
            UsageError: ``host`` is open to other machines and there is no key, or ``arguments``
                name an address or a key.
        """
        for argument in self.arguments:
            if argument.partition("=")[0].replace("_", "-") in ("--api-key", "--host"):
                raise UsageError(
                    f"{argument.partition('=')[0]} is none of vLLM's arguments that are passed on:"
                    f" keys are written nowhere, set ${API_KEY}; the address is --host"
                )
        if not is_loopback(self.host) and not os.environ.get(API_KEY):
            raise UsageError(
                f"--host {self.host} is open to other machines, which needs a key in ${API_KEY}:"
                f" export {API_KEY}=$(openssl rand -hex 16), for who asks it, too"
            )

    @property
    def flags(self) -> tuple[str, ...]:
        """What is on the command line of each server because of these."""
        if self.tensor_parallel == 1:
            return self.arguments
        return "--tensor-parallel-size", str(self.tensor_parallel), *self.arguments


class Served(BaseModel):
    """What is served.

    Attributes:
        model: A folder or hub id.
        name: By which it is asked for.
        dtype: Of weights and products.
        max_model_len: Tokens, prompt and sample together; None takes the model's own.
        lora_rank: Of the adapters that it shall take; None takes none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    name: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_model_len: int | None = Field(default=None, ge=2)
    lora_rank: int | None = Field(default=None, ge=1)


def find_vllm(asked: str | None) -> tuple[str, ...]:
    """Return the beginning of the command that serves; the arguments follow.

    Args:
        asked: The command, a Python or a virtual environment; None looks at ``$AGENTGYM_VLLM``
            and then for ``vllm`` on the PATH.

    Raises:
        UsageError: It is not there.
    """
    where = asked or os.environ.get(VLLM)
    if not where:
        found = shutil.which("vllm")
        if found is None:
            raise UsageError(f"vLLM was not found: there is no vllm on the PATH; {_GET}")
        return found, "serve"
    path = Path(where).expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    command = shutil.which(str(path))
    if command is None:
        said = "--vllm" if asked else f"${VLLM}"
        raise UsageError(f"vLLM was not found: {said} is {where!r}, no program; {_GET}")
    # The `vllm` command of some builds does not start; their Python does.
    return (command, "-m", _MODULE) if path.name.startswith("python") else (command, "serve")


def command_line(
    launcher: tuple[str, ...],
    served: Served,
    port: int,
    arguments: tuple[str, ...],
    host: str = LOOPBACK,
) -> list[str]:
    """Return the whole command.

    Log-probabilities are those after the temperature, as everywhere in this package.
    """
    line = [*launcher, *([served.model] if launcher[-1] == "serve" else ["--model", served.model])]
    line += ["--served-model-name", served.name, "--host", host, "--port", str(port)]
    line += ["--dtype", served.dtype, "--logprobs-mode", "processed_logprobs"]
    if served.max_model_len is not None:
        line += ["--max-model-len", str(served.max_model_len)]
    if served.lora_rank is not None:
        room = next((rank for rank in _RANKS if rank >= served.lora_rank), _RANKS[-1])
        # Two: the adapter of the next version is loaded before that of the last one leaves.
        line += ["--enable-lora", "--max-lora-rank", str(room), "--max-loras", "2"]
    if not has_gpu():
        # A prompt with a seed that it reads in pieces is the end of vLLM 0.32 on a CPU.
        line.append("--no-enable-chunked-prefill")
    return [*line, *arguments]


def environment(
    served: Served, devices: tuple[str, ...] = (), host: str = LOOPBACK
) -> Mapping[str, str]:
    """Return the environment: this one, leave to take weights, and GPUs, where any are named.

    vLLM's key guards the addresses below ``/v1`` alone, so who listens for others takes no weights.
    """
    more = {"VLLM_SERVER_DEV_MODE": "1" if is_loopback(host) else "0"}
    if devices:
        more[VISIBLE] = ",".join(devices)
    if served.lora_rank is not None:
        more["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    return {**os.environ, **more}
