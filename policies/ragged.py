"""Keys and values of many episodes at once, of unequal lengths and without padding.

A batch is one packed sequence: the new tokens of all rows behind one another, each with its own
position. Linear layers then see no padding, and attention reads each row's past where it lies:
in the row's slot of one memory. Works with every model of transformers whose layers are plain
causal attention and go through its attention interface; :func:`has_plain_attention` and a trial
find out which do.

Axes: **S** slots, **H** heads, **C** heads of keys and values, **N** packed tokens, **T** tokens of
a slot, **D** size of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from agentgym.errors import UsageError

ATTENTION = "agentgym_ragged"
_SCORES_AT_ONCE = 2**22  # entries of one span's attention scores: 16 MB in float32
_RUN = 8  # slots decoded in one product; more of them share the length of the longest
_HARMLESS = frozenset({"position_ids", "use_cache", "is_causal", "output_attentions"})


class UnsupportedAttentionError(UsageError):
    """The model's attention is more than causal attention over the whole past."""


class Span(NamedTuple):
    """New tokens of one row."""

    slot: int
    start: int  # tokens that the slot holds already
    length: int


class _Piece(NamedTuple):
    """A part of the packed tokens whose attention is one product."""

    tokens: slice
    slots: slice
    width: int  # tokens of the past and the new ones, of the longest row
    hidden: Tensor  # bool; what may not be seen. [slots, 1, 1, T]; of one slot [new tokens, T]
    single: bool  # one new token for each slot


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call] # transformers' own hook
    """The keys and values of one layer for all slots.

    Tokens are the last axis: with one query a row, both products of attention then run along
    memory, several times faster on a CPU than with the head's axis last.
    """

    is_sliding = False

    def __init__(self, memory: SlotMemory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory = memory
        self.key_SCDT = self.value_SCDT = torch.empty(0, 0, 0, 0)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for as many slots and tokens as the memory says, and keep what is there."""
        self.key_SCDT = self._grown(self.key_SCDT, key_states)
        self.value_SCDT = self._grown(self.value_SCDT, value_states)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the keys and values of the packed tokens, ``[1, C, N, D]``, into their slots."""
        memory = self.memory
        if self.key_SCDT.shape[0] < memory.slots or self.key_SCDT.shape[3] < memory.width:
            self.lazy_initialization(key_states, value_states)
        self.key_SCDT[memory.slot_N, :, :, memory.position_N] = key_states[0].transpose(0, 1)
        self.value_SCDT[memory.slot_N, :, :, memory.position_N] = value_states[0].transpose(0, 1)
        return key_states, value_states

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of one slot to another."""
        self.lazy_initialization(self.key_SCDT.mT, self.value_SCDT.mT)
        for kept in (self.key_SCDT, self.value_SCDT):
            kept[target, ..., :tokens] = kept[source, ..., :tokens]

    def _grown(self, old: Tensor, like: Tensor) -> Tensor:
        shape = (self.memory.slots, like.shape[1], like.shape[3], self.memory.width)
        if old.shape == shape:
            return old
        new = like.new_zeros(shape)  # not empty: what is masked is still multiplied, by 0
        if old.numel():
            new[: old.shape[0], ..., : old.shape[3]] = old
        return new

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the new tokens only: the mask is made by the attention itself."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Return 0: rows differ, so positions are always given."""
        return 0

    def get_max_length(self) -> int:
        """Return that there is no maximum."""
        return -1


class SlotMemory(Cache):
    """The keys and values of all layers and slots.

    Growing doubles, so that an episode that gets longer is copied a few times only.

    Attributes:
        slots: Slots there is room for.
        width: Tokens a slot has room for.
        slot_N: The slot of each packed token of the next forward pass.
        position_N: Its position.
    """

    def __init__(self, layers: int) -> None:
        self.by_layer = [SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self.by_layer))
        self.slots, self.width = 16, 256
        self.slot_N = self.position_N = torch.empty(0, dtype=torch.long)

    def prepare(self, spans: Sequence[Span], device: torch.device) -> None:
        """Say where the tokens of the next forward pass go, and make room for them."""
        self._reserve(max(s.slot for s in spans) + 1, max(s.start + s.length for s in spans))
        slots = [s.slot for s in spans for _ in range(s.length)]
        positions = [t for s in spans for t in range(s.start, s.start + s.length)]
        self.slot_N = torch.tensor(slots, device=device)
        self.position_N = torch.tensor(positions, device=device)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of one slot to another."""
        if not tokens:
            return
        self._reserve(target + 1, tokens)
        for layer in self.by_layer:
            layer.copy(source, target, tokens)

    def _reserve(self, slots: int, width: int) -> None:
        while self.slots < slots:
            self.slots *= 2
        while self.width < width:
            self.width *= 2


@dataclass(frozen=True, slots=True)
class Packed:
    """How the attention of one forward pass is cut into products."""

    memory: SlotMemory
    pieces: tuple[_Piece, ...]

    @classmethod
    def of(cls, memory: SlotMemory, spans: Sequence[Span], device: torch.device) -> Packed:
        """Cut the packed tokens of ``spans``, which are sorted by slot.

        Single tokens of neighbouring slots go into one product, which reads their memory where it
        lies; longer spans go one by one.
        """
        pieces: list[_Piece] = []
        token = n = 0
        while n < len(spans):
            run = 1
            while (
                run < _RUN and n + run < len(spans) and _neighbours(spans[n], spans[n + run], run)
            ):
                run += 1
            pieces.append(_piece(spans[n : n + run], token, device))
            token = pieces[-1].tokens.stop
            n += run
        return cls(memory, tuple(pieces))


def _neighbours(first: Span, other: Span, distance: int) -> bool:
    return first.length == 1 == other.length and other.slot == first.slot + distance


def _piece(run: Sequence[Span], token: int, device: torch.device) -> _Piece:
    first = run[0]
    tokens = slice(token, token + sum(span.length for span in run))
    slots = slice(first.slot, first.slot + len(run))
    width = max(span.start + span.length for span in run)
    column = torch.arange(width, device=device)
    if first.length == 1:
        last = torch.tensor([span.start for span in run], device=device)
        return _Piece(tokens, slots, width, (column > last[:, None])[:, None, None], True)
    row = torch.arange(first.start, width, device=device)
    return _Piece(tokens, slots, width, column > row[:, None], False)


def ragged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: Packed | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend from the packed tokens ``[1, H, N, D]`` to each one's own slot.

    Raises:
        UnsupportedAttentionError: The model asks for something beyond causal attention.
    """
    extra = sorted(k for k, v in others.items() if v is not None and k not in _HARMLESS)
    if extra or packed is None or attention_mask is not None or dropout:
        raise UnsupportedAttentionError(
            f"the model's attention also takes {', '.join(extra) or 'a mask'}"
        )
    layer = packed.memory.by_layer[int(module.layer_idx)]  # type: ignore[arg-type]
    _, heads, tokens, size = query.shape
    groups = layer.key_SCDT.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    query = query[0].transpose(0, 1).reshape(tokens, groups, heads // groups, size)
    parts = []
    for piece in packed.pieces:
        keys = layer.key_SCDT[piece.slots, ..., : piece.width]
        values = layer.value_SCDT[piece.slots, ..., : piece.width]
        attend = _attend_one if piece.single else _attend_span
        parts.append(attend(query[piece.tokens], keys, values, piece.hidden, scale))
    return torch.cat(parts).reshape(1, tokens, heads, -1), None


def _attend_one(
    query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, scale: float
) -> Tensor:
    """Attend from one token a slot, ``[slots, C, H/C, D]``.

    Plain batched products: for one token a row they take a fraction of the time of the fused
    kernel, which is made for long queries.
    """
    return _weights((query * scale) @ keys, hidden, values.dtype) @ values.mT


def _attend_span(
    query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, scale: float
) -> Tensor:
    """Attend from several tokens of one slot, ``[tokens, C, H/C, D]``."""
    tokens, groups, each, size = query.shape
    query = query.permute(1, 2, 0, 3).reshape(groups, each * tokens, size)
    keys, values = keys[0], values[0]
    if query.shape[0] * query.shape[1] * keys.shape[-1] <= _SCORES_AT_ONCE:
        score = ((query * scale) @ keys).view(groups, each, tokens, -1)
        out = _weights(score, hidden, values.dtype).view(groups, each * tokens, -1) @ values.mT
    else:  # the fused kernel never holds all scores
        out = functional.scaled_dot_product_attention(
            query.view(1, groups * each, tokens, size),
            keys.mT[None],
            values.mT[None],
            attn_mask=~hidden,
            scale=scale,
            enable_gqa=each > 1,
        )
    return out.reshape(groups, each, tokens, -1).permute(2, 0, 1, 3)


def _weights(score: Tensor, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return score.masked_fill_(hidden, -torch.inf).softmax(-1, dtype=torch.float32).to(dtype)


AttentionInterface.register(ATTENTION, ragged_attention)


def has_plain_attention(model: PreTrainedModel) -> bool:
    """Return whether all that is known of a model says that its past is plain attention."""
    config = model.config
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        # These rotate by the longest length in the batch, so that rows are not independent.
        and rope.get("rope_type", "default") not in ("dynamic", "longrope")
    )
