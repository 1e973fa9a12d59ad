"""Whether a vLLM server is one that can be used, and what its refusals mean."""

from __future__ import annotations

import re
from typing import Any

from agentgym.errors import ContextOverflow, ServerError
from agentgym.policies.vllm_http import Refused

OLDEST = (0, 16)
"""The oldest vLLM that takes weights from a folder while it runs."""

OLDEST_NCCL = (0, 30)
"""The oldest vLLM that takes weights over NCCL from a program without vLLM."""


def check_version(url: str, version: str, *, nccl: bool = False) -> None:
    """Refuse a vLLM that is too old.

    Args:
        url: Where it is.
        version: What it says.
        nccl: Whether it shall take weights over NCCL.

    Raises:
        ServerError: It is.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    built_from_source = ".dev" in version  # its numbers say nothing
    if numbers is None or built_from_source:
        return
    found = int(numbers[1]), int(numbers[2])
    if found < OLDEST:
        raise ServerError(
            f"the server at {url} is vLLM {version}; {OLDEST[0]}.{OLDEST[1]} or later is needed, to"
            " take weights while it runs: pip install -U vllm"
        )
    if nccl and found < OLDEST_NCCL:
        raise ServerError(
            f"the server at {url} is vLLM {version}; {OLDEST_NCCL[0]}.{OLDEST_NCCL[1]} or later"
            " takes weights over NCCL: pip install -U vllm, or set policy.server.sync to disk"
        )


def model_of(url: str, answer: Any, wanted: str | None) -> tuple[str, int]:
    """Return the name and the context, in tokens, of the model that is asked for.

    Args:
        url: Where the server is.
        answer: Which models it has.
        wanted: The name; None takes the only one, by the first of its names.

    Raises:
        ServerError: There is none of that name, or several and none was named.
    """
    try:
        cards = [card for card in answer["data"] if not card.get("parent")]  # no adapters
        found = [(str(card["id"]), int(card["max_model_len"])) for card in cards]
        several = len({card.get("root") or card["id"] for card in cards}) > 1
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise ServerError(f"{url}/v1/models answered no list of vLLM's models") from error
    names = ", ".join(name for name, _ in found)
    if wanted is None and several:
        raise ServerError(
            f"the server at {url} has several models: {names}. Set policy.server.model to one of"
            " these"
        )
    chosen = [one for one in found if wanted in (None, one[0])]
    if not chosen:
        raise ServerError(
            f"the server at {url} has no model {wanted!r}; it has: {names}. Set policy.server.model"
            " to one of these, or start the server with the model"
        )
    return chosen[0]


def refusal(error: Refused) -> ServerError | ContextOverflow:
    """Return the error that a refusal is: a prompt that does not fit is one of its own."""
    said = str(error)
    if error.status == 400 and (error.param == "input_tokens" or "context length" in said):
        return ContextOverflow(
            f"{said}; lower policy.sampling.max_context, or start the server with a greater"
            " --max-model-len"
        )
    return error
