"""``agentgym eval``: run a policy over a suite and show how well it did."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym.cli_common import (
    EnvName,
    EnvOptions,
    MaxTurns,
    SuiteName,
    Template,
    env_spec,
    parse_options,
)
from agentgym.cli_report import show_evaluation
from agentgym.console import progress, say, warn
from agentgym.errors import UsageError

if TYPE_CHECKING:
    from agentgym.evaluate import EvalOptions, Model
    from agentgym.results import Evaluation
    from agentgym.types import EnvSpec

    Tell = Callable[[int, int], None]
    Play = Callable[[EnvSpec, EvalOptions, Tell, Path | None], Evaluation]

ENDPOINT = "openai"
"""The policy that an endpoint answers for."""
BATCH = 64
"""Episodes that a model plays at the same time; one in this process samples them together."""


PolicyName = Annotated[
    str | None, typer.Option("--policy", help="expert, random, replay, human or openai.")
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="Hugging Face folder or hub id, or a bundled model; with --policy openai the name"
        " that the endpoint knows.",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url", help="OpenAI-compatible endpoint; the key is read from OPENAI_API_KEY."
    ),
]
Request = Annotated[
    list[str] | None,
    typer.Option(
        "--request",
        metavar="KEY=VALUE",
        help="Field of a request to the endpoint; none leaves it out; repeatable.",
    ),
]
Prices = Annotated[
    str | None,
    typer.Option("--prices", metavar="IN,OUT", help="Of a million tokens, to count the cost."),
]
Temperature = Annotated[
    float, typer.Option("--temperature", min=0, help="Of a model; 0 is greedy.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Longest turn of a model, in tokens.")
]
Server = Annotated[
    list[str] | None,
    typer.Option("--server", metavar="URL", help="A vLLM server that has the model; repeatable."),
]
Serve = Annotated[bool, typer.Option("--serve", help="Start a vLLM server of the model.")]
Vllm = Annotated[
    str | None, typer.Option("--vllm", help="For --serve: vLLM's command, Python or environment.")
]
Context = Annotated[
    str | None, typer.Option("--context", help="full or window(k); what of the past a model sees.")
]
Actions = Annotated[
    Path | None, typer.Option("--actions", help="For --policy replay: episodes, one a JSON line.")
]
Tasks = Annotated[
    int | None, typer.Option("-n", "--tasks", min=1, help="Only the first tasks of the suite.")
]
Workers = Annotated[
    str,
    typer.Option("--workers", help="Environment processes; 0 uses this one; ray:8 are on Ray."),
]
AtOnce = Annotated[
    int | None, typer.Option("--at-once", min=1, help="Episodes played at the same time.")
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder for results.json; goes on where it ended."),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Show the table as Markdown.")]


@dataclass(frozen=True, slots=True)
class _Sampling:
    """How a model is sampled and what it is told; None leaves it to the model."""

    temperature: float
    max_tokens: int | None
    template: str | None
    context: str | None


@dataclass(frozen=True, slots=True)
class _Where:
    """What samples a model: servers that are there, one to be started, or else this process."""

    urls: tuple[str, ...]
    serve: bool
    vllm: str | None

    def __post_init__(self) -> None:
        if self.urls and self.serve:
            raise UsageError("--serve starts a server, and --server names one; choose one")


def eval_(
    suite: SuiteName = None,
    env: EnvName = None,
    policy: PolicyName = None,
    model: ModelName = None,
    base_url: BaseUrl = None,
    request: Request = None,
    prices: Prices = None,
    server: Server = None,
    serve: Serve = False,
    vllm: Vllm = None,
    temperature: Temperature = 0.4,
    max_tokens: MaxTokens = None,
    template: Template = None,
    context: Context = None,
    actions: Actions = None,
    tasks: Tasks = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Episodes a task.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Every random draw comes from it.")] = 0,
    max_turns: MaxTurns = None,
    workers: Workers = "0",
    at_once: AtOnce = None,
    output: Output = None,
    markdown: Markdown = False,
    option: EnvOptions = None,
) -> None:
    """Run a policy over a suite, every task exactly once a sample.

    With --output each finished episode is kept, and the same command goes on after an interrupt.
    """
    from agentgym.evaluate import EvalOptions

    remote = policy == ENDPOINT
    if not remote and (base_url or request or prices):
        raise UsageError("--base-url, --request and --prices belong to --policy openai")
    if remote and model is None:
        raise UsageError("say which model of the endpoint plays: --policy openai --model NAME")
    if not remote and (policy is None) == (model is None):
        raise UsageError("say who plays: --policy expert or random, or --model NAME")
    where = _Where(tuple(server or ()), serve or vllm is not None, vllm)
    if policy is not None and (where.urls or where.serve):
        raise UsageError("--server, --serve and --vllm are for --model NAME without --policy")
    if template is not None and model is None:
        raise UsageError(f"--template is what a model is told, and {policy} is none; leave it out")
    spec = env_spec(env, suite, option or (), max_turns)
    options = EvalOptions(tasks, samples, seed, workers, at_once=at_once)
    sampling = _Sampling(temperature, max_tokens, template, context)
    player: AbstractContextManager[Play]
    if remote:
        player = nullcontext(_remote(spec, str(model), sampling, base_url, request or [], prices))
    elif policy is not None:
        player = nullcontext(_scripted(policy, actions))
    else:
        player = _modelled(str(model), spec, sampling, where, output)
        options = replace(options, at_once=at_once or BATCH)
    with player as play, _resumable(output), _progress(policy) as tell:
        evaluation = play(spec, options, tell, output)
    show_evaluation(evaluation, markdown=markdown)
    if output is not None:
        say(f"written: {output / 'results.json'}")


@contextmanager
def _progress(policy: str | None) -> Iterator[Tell]:
    if policy == "human":  # a bar would write over what the person reads
        yield lambda _done, _all: None
        return
    with progress("episodes") as tell:
        yield tell


@contextmanager
def _resumable(output: Path | None) -> Iterator[None]:
    """Say how an evaluation that is interrupted goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if output is not None:
            warn(f"finished episodes are kept in {output}; the same command goes on after them")
        raise


def _scripted(name: str, actions: Path | None) -> Play:
    from agentgym.evaluate import evaluate
    from agentgym.policies.scripted import ReplayPolicy, make_scripted, replay_of

    if (name == ReplayPolicy.name) != (actions is not None):
        raise UsageError("--policy replay and --actions FILE belong together")
    if actions is None:
        make_scripted(name)  # an unknown name is said before anything is made
        return lambda spec, options, tell, folder: evaluate(
            spec, lambda: make_scripted(name), options, tell, folder
        )
    lists = replay_of(actions)
    return lambda spec, options, tell, folder: evaluate(
        spec, lambda: copy(lists), options, tell, folder
    )


@contextmanager
def _modelled(
    name: str, spec: EnvSpec, asked: _Sampling, where: _Where, output: Path | None
) -> Iterator[Play]:
    from agentgym.evaluate import evaluate_model
    from agentgym.models import check_context

    with _opened(name, spec.name, asked, where, output) as model:
        tokens = asked.max_tokens or model.sampling.max_tokens
        changed = {"temperature": asked.temperature, "max_tokens": tokens}
        sampling = model.sampling.model_copy(update=changed)
        check_context(name, model.policy, sampling)
        cooled = replace(model, sampling=sampling)
        yield lambda spec, options, tell, folder: evaluate_model(
            spec, cooled, options, tell=tell, folder=folder
        )


def _opened(
    name: str, env: str, asked: _Sampling, where: _Where, output: Path | None
) -> AbstractContextManager[Model]:
    from agentgym.models import open_model, open_own_server, open_served
    from agentgym.policies.serve_command import ServeOptions
    from agentgym.policies.vllm_http import ServerOptions

    told = asked.template, asked.context
    if where.serve:
        log = (output or Path("runs")) / f"vllm-{uuid.uuid4().hex[:6]}.log"
        # The table alone goes to standard output.
        return open_own_server(name, env, ServeOptions(vllm=where.vllm), log, warn, *told)
    if where.urls:
        return open_served(name, env, ServerOptions(urls=where.urls), *told)
    return nullcontext(open_model(name, env, *told))


def _remote(
    spec: EnvSpec,
    model: str,
    asked: _Sampling,
    url: str | None,
    request: list[str],
    prices: str | None,
) -> Play:
    from agentgym.evaluate import evaluate_endpoint
    from agentgym.policies.openai import Endpoint, EndpointOptions
    from agentgym.policies.prompt import load_prompt

    sampling = EndpointOptions(
        model=model,
        url=url,
        temperature=asked.temperature,
        **({} if asked.max_tokens is None else {"max_tokens": asked.max_tokens}),
        request={
            name: None if value == "none" else value
            for name, value in parse_options(request).items()
        },
        prices=None if prices is None else _prices(prices),
    )
    endpoint = Endpoint(sampling)
    prompt = load_prompt(spec.name, asked.template or "tags", asked.context or "full")
    return lambda spec, options, tell, folder: evaluate_endpoint(
        spec, endpoint, prompt, options, tell, folder
    )


def _prices(text: str) -> tuple[float, float]:
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--prices takes two numbers, as 0.15,0.60; got {text!r}") from None
    return prompt, completion
