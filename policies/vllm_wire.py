"""What is written to ``/v1/completions`` and read from it: token ids in, token ids out.

Everything that a server would fill in by a default of its own, or of the model's folder, is said
outright. An answer is checked before it is believed.
"""

from __future__ import annotations

import hashlib
import math
import reprlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from agentgym.errors import ServerError
from agentgym.policies.vllm_http import Lost
from agentgym.types import Request

# Of logits / temperature, all of them: nothing is cut off or penalised.
_NEUTRAL = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_EXACT = {
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,  # two tokens may have the same text
    "add_special_tokens": False,
    "skip_special_tokens": False,  # stop strings are looked for in this text
    "spaces_between_special_tokens": False,
    "include_stop_str_in_output": True,
}


@dataclass(frozen=True, slots=True)
class Said:
    """One choice of an answer."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...] | None
    finish: Literal["stop", "length"]


def completion(request: Request, model: str, salt: str, n: int = 1) -> dict[str, Any]:
    """Return the body that samples a turn, or a piece of one.

    Args:
        request: The turn. Of its ``begun`` tokens the server only knows that they are there.
        model: The name that the server knows the weights by.
        salt: Prefixes are shared among requests of one salt only.
        n: How many samples; vLLM draws the i-th from the seed plus i.
    """
    return {
        "model": model,
        "prompt": list(request.ids),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": seed_of(request),
        "n": n,
        "stop": list(request.stop),
        "logprobs": request.top_k or 0,  # 0: of the sampled token alone
        "cache_salt": salt,
        **_NEUTRAL,
        **_EXACT,
    }


def scoring(ids: Sequence[int], model: str) -> dict[str, Any]:
    """Return the body that asks how likely each token of a row was; vLLM samples one more.

    vLLM never reads a kept prefix for these.
    """
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": 1,
        "temperature": 0.0,
        "seed": 0,
        "logprobs": 0,
        "prompt_logprobs": 0,
        **_NEUTRAL,
        **_EXACT,
    }


def seed_of(request: Request) -> int:
    """Return the seed of a turn, or of the piece of it that is asked for."""
    said = f"{request.seed}:{request.begun}" if request.begun else request.seed
    # Room above, for the samples of one prompt: vLLM wants 64 bits with a sign.
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") >> 2


def read_choices(answer: Any, request: Request, n: int = 1) -> list[Said]:
    """Return the samples of an answer, in order.

    Raises:
        Lost: The answer is not what vLLM answers, or the server stopped before the turn did.
        ServerError: It is, and something that training needs is missing or does not fit.
    """
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise Lost(f"/v1/completions answered {_short(answer)}; expected choices") from error
    if len(choices) != n:
        raise Lost(f"/v1/completions answered {len(choices)} samples; asked for {n}")
    return [_read_choice(choice, request) for choice in choices]


def _read_choice(choice: dict[str, Any], request: Request) -> Said:
    ids, prompt = choice.get("token_ids"), choice.get("prompt_token_ids")
    if ids is None or prompt is None:
        raise ServerError(
            "the server returns no token ids, without which nothing can be trained on; vLLM does"
            " since 0.10.2 (return_token_ids): put no gateway in between that drops them"
        )
    if not _are_ids(ids) or not _are_ids(prompt) or not 1 <= len(ids) <= request.max_tokens:
        raise Lost(
            f"/v1/completions answered the tokens {_short(ids)} to {_short(prompt)}; expected 1 to"
            f" {request.max_tokens} ids"
        )
    if tuple(prompt) != request.ids:
        raise ServerError(
            f"the server read {len(prompt)} tokens that are not the {len(request.ids)} that were"
            " sent; something in between encodes them again"
        )
    finish = choice.get("finish_reason")
    if finish not in ("stop", "length"):
        raise Lost(f"/v1/completions ended a sample by {_short(finish)}")
    logprobs = _logprobs(choice, ids)
    entropies = None if request.top_k is None else _entropies(choice, ids, request.top_k)
    return Said(tuple(ids), logprobs, entropies, finish)


def _are_ids(found: object) -> TypeGuard[list[int]]:
    return isinstance(found, list) and all(type(one) is int and one >= 0 for one in found)


def _logprobs(choice: dict[str, Any], ids: Sequence[int]) -> tuple[float, ...]:
    found = _of_logprobs(choice, "token_logprobs")
    if len(found) != len(ids) or not all(_is_logprob(value) for value in found):
        raise ServerError(
            f"the server returned {len(found)} log-probabilities for {len(ids)} sampled tokens, or"
            " some that are none; a stock vllm serve returns one for each: put no gateway in"
            " between that drops or rounds them"
        )
    return tuple(map(float, found))


def _of_logprobs(choice: dict[str, Any], name: str) -> list[Any]:
    """Return a list of a choice's ``logprobs``; an empty one where it is left out."""
    whole = choice.get("logprobs")
    found = whole.get(name) if isinstance(whole, dict) else whole
    if found is None:
        return []
    if not isinstance(found, list) or found is whole:
        raise Lost(f"/v1/completions answered the logprobs {_short(whole)}; expected {name}")
    return found


def _is_logprob(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and -sys.float_info.max <= value <= 1e-6  # type: ignore[operator] # one of the two


def _entropies(choice: dict[str, Any], ids: Sequence[int], k: int) -> tuple[float, ...]:
    tops = _of_logprobs(choice, "top_logprobs")
    if not all(_are_named_logprobs(top) for top in tops):
        raise Lost(
            f"/v1/completions answered {_short(tops)}; expected log-probabilities by token for each"
        )
    if any(len(top) < k for top in tops) or len(tops) != len(ids):
        raise ServerError(
            f"the server returned fewer than the {k} likeliest tokens; start it with --max-logprobs"
            f" {k} or more"
        )
    return tuple(lumped_entropy(list(top.values()), k) for top in tops)


def _are_named_logprobs(found: object) -> TypeGuard[dict[str, float]]:
    return isinstance(found, dict) and all(_is_logprob(value) for value in found.values())


def lumped_entropy(logprobs: Sequence[float], k: int) -> float:
    """Return the entropy of the k likeliest tokens and one lumped tail, in nats.

    Args:
        logprobs: Of the likeliest tokens, and possibly of one more, which was sampled.
        k: How many of them count by themselves.
    """
    probs = [math.exp(value) for value in sorted(logprobs, reverse=True)[:k]]
    tail = max(0.0, 1.0 - math.fsum(probs))
    return -math.fsum(p * math.log(p) for p in (*probs, tail) if p > 0)


def read_scores(answer: Any, ids: Sequence[int], start: int) -> list[float]:
    """Return the log-probabilities of a row's tokens from ``start`` on.

    Raises:
        Lost: The answer is not what vLLM answers.
    """
    try:
        entries = answer["choices"][0]["prompt_logprobs"][start:]
        scores = [
            entry[str(token)]["logprob"] for entry, token in zip(entries, ids[start:], strict=True)
        ]
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise Lost(
            f"/v1/completions answered {_short(answer)}; expected prompt_logprobs"
        ) from error
    if not all(_is_logprob(score) for score in scores):
        raise Lost(f"/v1/completions scored {_short(scores)}; expected log-probabilities")
    return [float(score) for score in scores]


def top_logprobs(answer: Any) -> dict[str, float]:
    """Return the log-probabilities of the likeliest first tokens, by name.

    Raises:
        Lost: The answer is not what vLLM answers.
    """
    try:
        found = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    except (TypeError, KeyError, IndexError) as error:
        raise Lost(f"/v1/completions answered {_short(answer)}; expected logprobs") from error
    if not _are_named_logprobs(found):
        raise Lost(f"/v1/completions answered {_short(found)}; expected log-probabilities")
    return found


def _short(answer: Any) -> str:
    text = reprlib.repr(answer)  # whatever its size and depth
    return text if len(text) < 80 else f"{text[:77]}…"
