"""A model by its name, ready to be evaluated: its policy, its prompt, how it is sampled."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

from agentgym.errors import UsageError
from agentgym.evaluate import Model
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import Prompt, load_prompt
from agentgym.rollout import SamplingOptions


def open_model(
    name: str,
    env: str,
    template: str = "tags",
    context: str | None = None,
    sampling: SamplingOptions | None = None,
) -> Model:
    """Load a model into this process.

    Args:
        name: A Hugging Face folder or hub id, or the name of a bundled model.
        env: Name of the environment, which chooses the prompt of a model that carries none.
        template: ``tags`` or ``plain``, likewise.
        context: ``full`` or ``window(k)``; None takes the one that the model was trained in, or
            ``full``.
        sampling: How turns are sampled; None takes evaluation's defaults: temperature 0.4, at
            most 512 tokens a turn, contexts as long as the model reads.

    Raises:
        UsageError: The model was trained in another context, or reads less than ``sampling``
            wants.
        DataError: The folder misses something, or is broken.
    """
    _refuse_run(Path(name))
    # By name: whoever evaluates without a model in this process must not wait for torch.
    hf = import_module("agentgym.policies.hf")
    policy = hf.HFPolicy.from_pretrained(resolve_model(name))
    hf.spare_threads(policy.model)
    prompt = prompt_of(name, policy.prompt, env, template, context)
    if sampling is None:
        room = policy.max_context
        sampling = SamplingOptions(
            temperature=0.4, max_tokens=min(512, room // 8), max_context=room
        )
    check_context(name, policy, sampling)
    return Model(name, policy, Script(prompt, policy.tokenizer), sampling, _weights(name, policy))


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
    folder = Path(resolve_model(name))
    if not folder.is_dir():
        return getattr(policy.model.config, "_commit_hash", None)
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

    Raises:
        UsageError: The model was trained in another context.
    """
    if saved is None:
        return load_prompt(env, template, context or "full")
    if context not in (None, str(saved.context)):
        raise UsageError(
            f"the model {name} was trained with context {saved.context}, not {context}; take"
            f" {saved.context}"
        )
    return saved


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
