"""``agentgym envs serve``: servers for this machine, one command for each kind."""

from __future__ import annotations

from typing import Annotated

import typer

from agentgym.console import say

app = typer.Typer(
    name="serve",
    help="Serve an environment on this machine.",
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
) -> None:
    """Serve the shop as web pages, in which a person does the tasks of a suite."""
    from agentgym.envs.webshop import WebShopEnv
    from agentgym.envs.webshop_serve import Shop

    env = WebShopEnv(suite, data=data)
    with Shop(env.catalogue, env.suite.tasks, task, port) as server:
        say(f"the shop is open at {server.address}, for this machine only; ctrl-c closes it")
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
) -> None:
    """Serve a corpus to agents, as Search-R1's /retrieve; its index is made once and kept."""
    from agentgym.envs.search_retrieval import open_corpus
    from agentgym.envs.search_server import RetrievalServer

    retriever = open_corpus(corpus)
    with RetrievalServer(retriever, port) as server:
        say(f"{len(retriever.articles):,} articles at {server.url}, for this machine only")
        say(f"search it: --option retriever={server.url}; ctrl-c stops it")
        server.serve_forever()
