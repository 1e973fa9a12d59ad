"""What a forward pass needs: which tokens a session's cache holds, and feeding it more.

Two engines, one interface. :class:`RaggedEngine` takes all sessions in one pass;
:class:`SingleEngine` takes one at a time with the model's own cache, and so knows every model
that transformers knows (sliding windows, state spaces), slowly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from agentgym.errors import UsageError
from agentgym.policies.ragged import (
    ATTENTION,
    Packed,
    SlotMemory,
    Span,
    UnsupportedAttentionError,
    has_plain_attention,
)


class Part(NamedTuple):
    """New tokens of a session."""

    session: str
    ids: Sequence[int]
    logits: int = 1  # for how many of the last tokens logits are wanted


class Engine(Protocol):
    """Feeds tokens to a model and keeps what was computed, by session."""

    def rewind(self, session: str, ids: Sequence[int]) -> int:
        """Cut what is kept back to what it has in common with ``ids``; return its length.

        The last of ``ids`` is never kept: it must be fed, so that there are logits.
        """

    def feed(self, parts: Sequence[Part]) -> Tensor:
        """Append tokens to sessions, each named once; return the logits wanted, part by part.

        Returns:
            ``[sum of the parts' logits, V]``.
        """

    def fork(self, session: str, copy: str) -> None:
        """Let ``copy`` begin with what is kept for ``session``, if anything is."""

    def drop(self, session: str) -> None:
        """Forget a session, if it is known."""

    def clear(self) -> None:
        """Forget all sessions."""

    def release(self) -> None:
        """Forget all sessions and give their memory back."""


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    if list(left) == list(right[: len(left)]):
        return len(left)  # the usual case, at the speed of a memory comparison
    return next(n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)


@dataclass(slots=True)
class _Slot:
    index: int
    ids: list[int] = field(default_factory=list)


class RaggedEngine:
    """All sessions in one pass, without padding; see :mod:`agentgym.policies.ragged`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.release()

    def rewind(self, session: str, ids: Sequence[int]) -> int:
        """Cut the session's slot back; a new session gets the first free slot."""
        slot = self._slot(session)
        kept = common_prefix(slot.ids[: len(ids) - 1], ids)
        del slot.ids[kept:]
        return kept

    def feed(self, parts: Sequence[Part]) -> Tensor:
        """Append tokens to sessions in one forward pass."""
        slots = [self._slot(part.session) for part in parts]
        order = sorted(range(len(parts)), key=lambda n: slots[n].index)
        spans = [Span(slots[n].index, len(slots[n].ids), len(parts[n].ids)) for n in order]
        device = self.model.device
        self._memory.prepare(spans, device)
        # Logits are asked for in the order of the parts, which is the order of the answer.
        ends, end = {}, 0
        for n, span in zip(order, spans, strict=True):
            end += span.length
            ends[n] = end
        wanted = [t for n, part in enumerate(parts) for t in range(ends[n] - part.logits, ends[n])]
        with _attention(self.model):
            logits: Tensor = self.model(
                input_ids=torch.tensor([[i for n in order for i in parts[n].ids]], device=device),
                position_ids=self._memory.position_N[None],
                past_key_values=self._memory,
                use_cache=True,
                logits_to_keep=torch.tensor(wanted, device=device, dtype=torch.long),
                packed=Packed.of(self._memory, spans, device),
            ).logits
        for slot, part in zip(slots, parts, strict=True):
            slot.ids.extend(part.ids)
        return logits[0]

    @torch.inference_mode()
    def fork(self, session: str, copy: str) -> None:
        """Copy a slot."""
        if session in self._slots:
            source, target = self._slots[session], self._slot(copy)
            self._memory.copy(source.index, target.index, len(source.ids))
            target.ids[:] = source.ids

    def drop(self, session: str) -> None:
        """Free the session's slot."""
        slot = self._slots.pop(session, None)
        if slot is not None:
            self._free.append(slot.index)

    def clear(self) -> None:
        """Forget all sessions; their memory is used again."""
        self._slots: dict[str, _Slot] = {}
        self._free: list[int] = []

    def release(self) -> None:
        """Forget all sessions and give their memory back."""
        self.clear()
        self._memory = SlotMemory(int(self.model.config.get_text_config().num_hidden_layers))

    def _slot(self, session: str) -> _Slot:
        if session not in self._slots:
            # The lowest one, so that the slots in use stay neighbours.
            index = min(self._free, default=len(self._slots))
            if self._free:
                self._free.remove(index)
            self._slots[session] = _Slot(index)
        return self._slots[session]


@dataclass(slots=True)
class _Own:
    cache: Any
    ids: list[int] = field(default_factory=list)


class SingleEngine:
    """One session at a time, with the cache that the model itself would make.

    Args:
        model: Any causal language model.
        stepwise: Whether what a cache holds can be extended by single tokens only, as in some
            state-space models.
    """

    def __init__(self, model: PreTrainedModel, stepwise: bool = False) -> None:
        self.model = model
        self._stepwise = stepwise
        state = "cache_params" in signature(model.forward).parameters  # as state spaces call it
        self._cache_name = "cache_params" if state else "past_key_values"
        self._own: dict[str, _Own] = {}

    def rewind(self, session: str, ids: Sequence[int]) -> int:
        """Keep what is extended by ``ids``; start again otherwise: such caches cannot be cut."""
        own = self._own.get(session)
        if own is not None and own.ids == list(ids[: len(own.ids)]) and len(own.ids) < len(ids):
            return len(own.ids)
        self.drop(session)
        return 0

    def feed(self, parts: Sequence[Part]) -> Tensor:
        """Append tokens to sessions, one forward pass for each."""
        return torch.cat([self._feed_one(part) for part in parts])

    def _feed_one(self, part: Part) -> Tensor:
        own = self._own.setdefault(part.session, _Own(DynamicCache(config=self.model.config)))
        ids = torch.tensor([list(part.ids)], device=self.model.device)
        step = 1 if self._stepwise and own.ids else len(part.ids)
        logits = torch.cat(
            [
                self.model(
                    input_ids=ids[:, n : n + step], use_cache=True, **{self._cache_name: own.cache}
                ).logits[0]
                for n in range(0, len(part.ids), step)
            ]
        )
        own.ids.extend(part.ids)
        return logits[len(part.ids) - part.logits :]

    def fork(self, session: str, copy: str) -> None:
        """Copy a session's cache."""
        if session in self._own:
            self._own[copy] = deepcopy(self._own[session])

    def drop(self, session: str) -> None:
        """Forget a session, if it is known."""
        self._own.pop(session, None)

    def clear(self) -> None:
        """Forget all sessions."""
        self._own.clear()

    release = clear


def make_engine(model: PreTrainedModel) -> Engine:
    """Return the fastest engine that gives this model's own logits.

    What a model's attention does is not always written in its configuration, so a few tokens are
    fed both ways and compared.

    Raises:
        UsageError: None of them does.
    """
    if has_plain_attention(model):
        ragged = RaggedEngine(model)
        with suppress(UnsupportedAttentionError):
            if _agrees(ragged, model):
                return ragged
    for single in (SingleEngine(model), SingleEngine(model, stepwise=True)):
        if _agrees(single, model):
            return single
    raise UsageError(
        f"{type(model).__name__} gives other logits when its context is fed in parts than when it"
        " is fed whole; such a model cannot act here, serve it instead"
    )


@torch.inference_mode()
def _agrees(engine: Engine, model: PreTrainedModel) -> bool:
    size = int(model.config.get_text_config().vocab_size)
    rows = {"a": [n * 7 % size for n in range(9)], "b": [n * 5 % size for n in range(4)]}
    training = model.training
    model.train(False)
    engine.feed([Part("a", rows["a"][:5]), Part("b", rows["b"][:3])])
    got = engine.feed([Part("b", rows["b"][3:]), Part("a", rows["a"][5:])])
    want = torch.stack(
        [
            model(input_ids=torch.tensor([rows[name]], device=model.device)).logits[0, -1]
            for name in ("b", "a")
        ]
    )
    model.train(training)
    engine.release()
    tolerance = 0.05 if want.dtype in (torch.bfloat16, torch.float16) else 1e-4
    return bool((got - want).abs().max() <= tolerance * want.abs().max())


@contextmanager
def _attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend through slots; a learner that shares it finds it as it was."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before
