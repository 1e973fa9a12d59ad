"""The trajectories of a training step as lines of JSON, for people and for later tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from agentgym.trainers.batch import Batch
from agentgym.trainers.token_text import token_texts
from agentgym.trajectory_line import trajectory_line

Decode = Callable[[Sequence[int]], str]


def trajectory_lines(
    batch: Batch, token_fields: int, decode: Decode | None = None
) -> list[dict[str, Any]]:
    """Return the trajectories of a step, the first ``token_fields`` with their per-token fields.

    A row of tokens is an object of lists with one entry a token: ids, turn (-1 where the token
    was not sampled), the sampler's log-probability, and log-probability before the update,
    advantage and entropy where known, in nats; and the text that a sampled token adds, empty for
    others, where ``decode`` tells it.
    """
    return_N = batch.return_N.tolist()
    lines = []
    for n, trajectory in enumerate(batch.trajectories):
        line = trajectory_line(trajectory) | {"return": return_N[n]}
        if n < token_fields:
            line["rows"] = [
                _token_fields(batch, b, decode)
                for b in (batch.trajectory_B == n).nonzero()[:, 0].tolist()
            ]
        lines.append(line)
    return lines


def _token_fields(batch: Batch, b: int, decode: Decode | None) -> dict[str, list[Any]]:
    length = int(batch.length_B[b])
    tensors = {
        "ids": batch.ids_BT,
        "turn": batch.turn_BT,
        "behaviour_logprob": batch.behaviour_logprob_BT,
        "logprob": batch.old_logprob_BT,
        "advantage": batch.advantage_BT,
        "entropy": batch.entropy_BT,
    }
    fields: dict[str, list[Any]] = {
        name: [round(value, 6) for value in tensor[b, :length].tolist()]
        for name, tensor in tensors.items()
        if tensor is not None
    }
    return fields if decode is None else fields | {"text": _texts(fields, decode)}


def _texts(fields: dict[str, list[Any]], decode: Decode) -> list[str]:
    texts: list[str] = []
    tokens = zip(fields["turn"], fields["ids"], strict=True)
    for turn, some in groupby(tokens, key=lambda token: token[0]):
        ids = [token for _, token in some]
        texts += token_texts(ids, decode) if turn >= 0 else [""] * len(ids)
    return texts
