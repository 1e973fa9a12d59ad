"""``agentgym serve`` and ``agentgym envs serve``: servers, for this machine unless told otherwise.

The one serves a model for training, the other environments, one command for each kind.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from agentgym.cli_common import Host
from agentgym.console import say
from agentgym.door import LOOPBACK, is_loopback, open_door

app = typer.Typer(
    name="serve",
    help="Serve an environment.",
    epilog="Example: agentgym envs serve webshop",
    no_args_is_help=True,
)

Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes a free port.")
]


@app.command("webshop", epilog="Example: agentgym envs serve webshop --suite webshop/gen-easy-test")
def webshop(
    suite: Annotated[
        str, typer.Option("--suite", help="Set of tasks, as environment/set.")
    ] = "webshop/gen-test",
    task: Annotated[str | None, typer.Option("--task", help="First task; else the first.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Where the published files lie, for their suites.")
    ] = None,
    port: Port = 8000,
    host: Host = LOOPBACK,
) -> None:
    """Serve the shop as web pages, in which a person does the tasks of a suite."""
    from agentgym.envs.webshop import WebShopEnv
    from agentgym.envs.webshop_serve import Shop

    door = open_door(host, port)
    env = WebShopEnv(suite, data=data)
    with Shop(env.catalogue, env.suite.tasks, task, door) as server:
        say(f"the shop is open at {server.address}, {door.told}; ctrl-c closes it")
        server.serve_forever()


@app.command("search", epilog="Example: agentgym envs serve search --corpus wiki.jsonl")
def search(
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus", help="JSONL file of articles, wiki-offline, or a generated set's world."
        ),
    ] = "gen-train",
    port: Port = 8000,
    host: Host = LOOPBACK,
) -> None:
    """Serve a corpus to agents, as Search-R1's /retrieve; its index is made once and kept."""
    from agentgym.envs.search_retrieval import open_corpus
    from agentgym.envs.search_server import RetrievalServer

    door = open_door(host, port)
    retriever = open_corpus(corpus)
    with RetrievalServer(retriever, door) as server:
        say(f"{len(retriever.articles):,} articles at {server.url}, {door.told}")
        say(f"search it: --option retriever={server.url}; ctrl-c stops it")
        server.serve_forever()


def serve(
    model: Annotated[
        str, typer.Argument(help="Hugging Face folder or hub id, or a bundled model.")
    ],
    port: Port = 0,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address; another than this machine's needs $VLLM_API_KEY, and no training.",
        ),
    ] = LOOPBACK,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, help="Servers, each with the whole model.")
    ] = 1,
    tensor_parallel: Annotated[
        int, typer.Option("--tensor-parallel", min=1, help="GPUs of each server.")
    ] = 1,
    lora_rank: Annotated[
        int | None,
        typer.Option("--lora-rank", min=1, help="Take adapters of up to this rank, too."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option("--dtype", help="Of weights and products.")
    ] = "float32",
    max_model_len: Annotated[
        int | None,
        typer.Option("--max-model-len", min=2, help="Longest context; else the model's own."),
    ] = None,
    vllm: Annotated[
        str | None, typer.Option("--vllm", help="vLLM's command, Python or environment.")
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option("--argument", help="One of vLLM's own, as --argument=--seed; repeatable."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="File for its output; under runs/ by default.")
    ] = None,
) -> None:
    """Serve a model with vLLM to training on this machine, watched and started again."""
    from agentgym.policies.bundled import resolve_model
    from agentgym.policies.serve_command import Served, ServeOptions
    from agentgym.policies.serve_many import ModelServers

    folder = resolve_model(model)
    options = ServeOptions(
        vllm=vllm,
        replicas=replicas,
        tensor_parallel=tensor_parallel,
        host=host,
        port=port,
        arguments=tuple(argument or ()),
    )
    options.refuse_open()
    path = log or Path("runs") / f"vllm-{uuid.uuid4().hex[:6]}.log"
    with TemporaryDirectory(prefix="agentgym-") as temporary:
        served = Served(
            model=_with_own_head(folder, Path(temporary) / "model"),
            name=Path(folder).name,
            dtype=dtype,
            max_model_len=max_model_len,
            lora_rank=lora_rank,
        )
        with ModelServers(served, options, path, say) as servers:
            _introduce(model, served.name, servers.urls, host)
            servers.wait()


def _introduce(model: str, name: str, urls: Sequence[str], host: str) -> None:
    from agentgym.policies.serve_command import API_KEY

    where, flags = (glue.join(urls) for glue in (", ", " --server "))
    own = is_loopback(host)
    who = "this machine only" if own else f"who has ${API_KEY}; it takes no weights"
    say(f"{name} is served at {where}, for {who}; ctrl-c ends it")
    say(f"train with it: agentgym train --env ENV --model {model} --server {flags}")


def _with_own_head(model: str, folder: Path) -> str:
    """Return a model that can be loaded again from the disk, linked in ``folder``."""
    from importlib import import_module

    if not Path(model).is_dir():  # of the hub: vLLM brings it
        return model
    # By name: it needs torch, and --help must not wait for that.
    served_folder = import_module("agentgym.policies.served_folder")
    return str(served_folder.link_untied(Path(model), folder))
