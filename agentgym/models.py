"""A model by its name, ready to be evaluated: its policy, its prompt, how it is sampled."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from agentgym.errors import UsageError, unknown
from agentgym.evaluate import Model
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import (
    Prompt,
    is_template_file,
    load_prompt,
    saved_prompt,
    styles,
    template_names,
)
from agentgym.policies.serve_command import Served, ServeOptions
from agentgym.policies.serve_many import ModelServers
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import Refused, ServerOptions
from agentgym.types import Policy, Request
from agentgym.voices import SamplingOptions


def open_model(
    name: str,
    env: str,
    template: str | None = None,
    context: str | None = None,
    sampling: SamplingOptions | None = None,
) -> Model:
    """Load a model into this process.

    Args:
        name: A Hugging Face folder or hub id, or the name of a bundled model.
        env: Name of the environment, which chooses the prompt of a model that carries none.
        template: ``tags`` or ``plain``, or the path of a template file, whose words take the place
            of those that the model was trained with; None takes these, or ``tags``.
        context: ``full`` or ``window(k)``; None takes the one that the model was trained in, or
            ``full``.
        sampling: How turns are sampled; None takes evaluation's defaults: temperature 0.4, at
            most 512 tokens a turn, contexts as long as the model reads.

    Raises:
        UsageError: The model was trained with another template or in another context, or reads
            less than ``sampling`` wants.
        DataError: The folder misses something, or is broken; or the template file is.
    """
    _refuse_run(Path(name))
    # By name: whoever evaluates without a model in this process must not wait for torch.
    hf = import_module("agentgym.policies.hf")
    policy = hf.HFPolicy.from_pretrained(resolve_model(name))
    hf.spare_threads(policy.model)
    prompt = _asked_prompt(name, policy.prompt, env, template, context)
    sampling = _fitting(name, policy, sampling)
    script, told = Script(prompt, policy.tokenizer), tokenizer_digest(policy.tokenizer)
    return Model(name, policy, script, sampling, _weights(name, policy), told)


@contextmanager
def open_served(
    name: str,
    env: str,
    server: ServerOptions,
    template: str | None = None,
    context: str | None = None,
    sampling: SamplingOptions | None = None,
) -> Iterator[Model]:
    """Yield a model that vLLM servers answer for, with the weights that they have.

    Args:
        name: The same model, by its folder, hub id or bundled name: it has the tokenizer and the
            prompt.
        env: As for :func:`open_model`, like the arguments that follow.
        server: Where the servers are.
        template: What it is told.
        context: What of the past it sees.
        sampling: How turns are sampled; contexts are as long as the servers read.

    Raises:
        UsageError, DataError: As for :func:`open_model`.
        ServerError: A server cannot be used; the message says what was found and what to do.
    """
    _refuse_run(Path(name))
    folder = resolve_model(name)
    saved = saved_prompt(Path(folder)) if Path(folder).is_dir() else None
    prompt = _asked_prompt(name, saved, env, template, context)
    tokenizer = import_module("agentgym.policies.hf").load_tokenizer(folder)
    with closing(VLLMPolicy(server, tokenizer, way=None)) as policy:
        sampling = _fitting(name, policy, sampling)
        urls = ", ".join(server.urls)
        told = tokenizer_digest(tokenizer)
        yield Model(name, policy, Script(prompt, tokenizer), sampling, None, told, urls)


@contextmanager
def open_own_server(
    name: str,
    env: str,
    serve: ServeOptions,
    log: Path,
    say: Callable[[str], None],
    template: str | None = None,
    context: str | None = None,
) -> Iterator[Model]:
    """Start a vLLM server of a model on this machine, and yield the model as it answers for it.

    Args:
        name: As for :func:`open_model`.
        env: Likewise.
        serve: How the server is started.
        log: File for what the server says.
        say: Told what people should know.
        template: What the model is told.
        context: What of the past it sees.

    Raises:
        UsageError, DataError, ServerError: As for :func:`open_served`, and where vLLM is not there
            or does not start.
    """
    _refuse_run(Path(name))
    folder = resolve_model(name)
    served = Served(model=folder, name=Path(folder).name)
    with ModelServers(served, serve, log, say) as running:
        server = ServerOptions().of_started(running.urls, served.name, serve.patience)
        with open_served(name, env, server, template, context) as model:
            yield replace(model, weights=folder_digest(folder), endpoint=None)


def _fitting(name: str, policy: Any, sampling: SamplingOptions | None) -> SamplingOptions:
    """Return how turns are sampled, evaluation's defaults where nothing is asked for."""
    if sampling is None:
        room = policy.max_context
        sampling = SamplingOptions(
            temperature=0.4, max_tokens=min(512, room // 8), max_context=room
        )
    check_context(name, policy, sampling)
    return sampling


def _refuse_run(folder: Path) -> None:
    latest = folder / "checkpoints" / "latest"
    if latest.is_file():
        step = latest.read_text(encoding="utf-8").strip()
        raise UsageError(
            f"{folder} is a training run, not a model; the last model that it saved is"
            f" {latest.parent / step / 'hf'}"
        )


def _weights(name: str, policy: Any) -> str | None:
    """Return SHA-256 over what a model folder loads, or the commit of a model of the hub."""
    return folder_digest(resolve_model(name)) or getattr(policy.model.config, "_commit_hash", None)


def tokenizer_digest(tokenizer: Any) -> str:
    """Return SHA-256 over a tokenizer of transformers: its rules, and its chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # one in Python alone has its pieces
    rules = sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str()
    told = json.dumps([rules, tokenizer.chat_template], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def folder_digest(model: str) -> str | None:
    """Return SHA-256 over what a model folder loads; None of a model of the hub."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"):
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()


def prompt_of(
    name: str, saved: Prompt | None, env: str, template: str, context: str | None
) -> Prompt:
    """Return the prompt that a model was trained with, or the environment's own.

    A model that was trained in one environment is told the words of another where those are known
    in its style; one that was trained with a template file keeps its words everywhere. A template
    file takes the place of whatever it was told before.

    Args:
        name: Of the model, for messages.
        saved: What it was trained with, where that is known.
        env: Name of the environment.
        template: A style, for a model that carries no prompt; or the path of a template file.
        context: ``full`` or ``window(k)``; None takes the one that it was trained in, or ``full``.

    Raises:
        UsageError: The model was trained in another context, or there is no such template.
        DataError: The template file cannot be read or breaks a rule.
    """
    if saved is None or is_template_file(template):
        known = "full" if saved is None else str(saved.context)
        return load_prompt(env, template, context or known)
    if template not in styles():  # a slip is said, although the model has its own
        raise unknown("template (or path of a .txt file)", template, styles())
    if context not in (None, str(saved.context)):
        raise UsageError(
            f"the model {name} was trained with context {saved.context}, not {context}; take"
            f" {saved.context}"
        )
    trained_in, style = _packaged(saved)
    if trained_in != env and f"{env}.{style}" in template_names():
        return load_prompt(env, style, str(saved.context))
    return saved


def _packaged(saved: Prompt) -> tuple[str, str]:
    """Return environment and style of a template of the package; of one's own, nothing."""
    name = saved.template.name
    env, _, style = name.partition(".") if name in template_names() else ("", "", "")
    return env, style


def _asked_prompt(
    name: str, saved: Prompt | None, env: str, template: str | None, context: str | None
) -> Prompt:
    """Return what a model is told, where its own is not to be forgotten without a word."""
    named = template is not None and not is_template_file(template)
    if named and saved is not None and _packaged(saved)[1] != template:
        raise UsageError(
            f"the model {name} was trained with the template {saved.template.name}, not {template};"
            " leave it out, or name a template file (.txt), whose words take the place of its own"
        )
    return prompt_of(name, saved, env, template or "tags", context)


def check_context(name: str, policy: Any, sampling: SamplingOptions) -> None:
    """Refuse contexts that the model cannot read.

    Raises:
        UsageError: They are longer.
    """
    if sampling.max_context > policy.max_context:
        raise UsageError(
            f"max_context is {sampling.max_context} tokens, the model {name} reads"
            f" {policy.max_context}; choose at most that"
        )
    if sampling.max_tokens >= sampling.max_context:
        raise UsageError(
            f"a turn of {sampling.max_tokens} tokens does not fit into a context of"
            f" {sampling.max_context}; lower max_tokens or raise max_context"
        )


def check_top_k(method: str, policy: Policy, top_k: int, servers: int = 1) -> None:
    """Refuse servers that do not tell as many of the likeliest tokens, before anything is played.

    Args:
        method: What decides by their entropies where to branch.
        policy: What asks the servers; each is asked for one token.
        top_k: So many.
        servers: How many there are.

    Raises:
        UsageError: A server refuses.
        ServerError: A server stays away.
    """
    asked = [Request(f"top-k-{n}", (0,), 1, 1.0, "top-k", top_k=top_k) for n in range(servers)]
    try:
        asyncio.run(policy.sample(asked))
    except Refused as error:
        raise UsageError(
            f"the hook collect of {method} needs TOP_K, the {top_k} likeliest tokens, and {error};"
            f" start the server with --max-logprobs {top_k}, or lower method.top_k"
        ) from error
    finally:
        for request in asked:
            policy.drop(request.session)
