"""How likely a text is after each of several prefixes of one row, in a single pass.

The obvious way runs the model over each prefix with the text behind it, and so over the beginning
of the row again and again. Here the row is read once and the copies of the text stand behind it,
one for each prefix. Each sees its prefix and itself and no more, and its positions go on from
where the prefix ends::

    token      r0 r1 r2 r3 | a0 a1 | b0 b1        a after 2 tokens of the row, b after 4
    position    0  1  2  3 |  2  3 |  4  5
    a1 sees     x  x       |  x  x |

That needs an attention mask for each pair of tokens, which plain and scaled dot product attention
of transformers take. Where they do not (flash attention, sliding windows), each prefix goes by
itself, as it does where a row has one prefix only.

Axes: **B** rows, **T** tokens of a row with its copies, **M** scored tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agentgym.policies.gold_answer import WrittenAnswer
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.ranks import ALONE, Ranks

_LARGEST_MASK = 2**28
"""Pairs of tokens in one mask, of all its rows: 1 GiB in float32."""


@dataclass(frozen=True, slots=True)
class PrefixCopies:
    """One row, and what is to be scored after its prefixes."""

    ids: tuple[int, ...]
    cuts: tuple[int, ...]  # the length of each prefix, at least 1
    tails: tuple[WrittenAnswer, ...]  # what follows each

    @property
    def length(self) -> int:
        """Return how many tokens a single pass has."""
        return max(self.cuts) + sum(len(tail.ids) for tail in self.tails)

    def apart(self) -> Iterator[PrefixCopies]:
        """Yield each prefix by itself."""
        for cut, tail in zip(self.cuts, self.tails, strict=True):
            yield PrefixCopies(self.ids[:cut], (cut,), (tail,))


class CopyScorer:
    """Mean log-probabilities of texts after prefixes, at temperature 1, in nats.

    Args:
        lm: The model.
        tokens: How many go through the model at once; a longer row goes alone.
        ranks: Among whom rows are dealt.

    Attributes:
        single_pass: Whether all prefixes of a row go together; set it to False to compare.
    """

    def __init__(self, lm: CausalLM, tokens: int, ranks: Ranks = ALONE) -> None:
        self._lm = lm
        self._tokens = tokens
        self._ranks = ranks
        self.single_pass = _takes_masks(lm.config) and self._masks_are_heeded()

    @torch.no_grad()
    def __call__(self, asked: Sequence[PrefixCopies]) -> list[list[float]]:
        """Return for each row the mean log-probability of the scored tokens after each prefix."""
        parts = [
            (n, part)
            for n, copies in enumerate(asked)
            for part in ([copies] if self._together(copies) else copies.apart())
        ]
        found: defaultdict[int, list[float]] = defaultdict(list)
        scores: dict[int, list[float]] = {}
        for batch in self._passes([part for _, part in parts]):
            means = self._score([parts[index][1] for index in batch])
            scores.update(zip(batch, means, strict=True))
        for others in self._ranks.gather(scores):
            scores |= others
        for index, (n, _) in enumerate(parts):
            found[n] += scores[index]
        return [found[n] for n, _ in enumerate(asked)]

    def _passes(self, parts: Sequence[PrefixCopies]) -> list[list[int]]:
        """Return which rows this process takes together; each has as many passes."""
        order = _longest_first(parts)
        size = self._ranks.size
        dealt = [list(_micro_batches(parts, order[r::size], self._tokens)) for r in range(size)]
        mine = dealt[self._ranks.rank]
        # Weights in shards are put together by all at once: what is lacking is done twice.
        return mine + [order[-1:]] * (max(map(len, dealt)) - len(mine))

    def _together(self, copies: PrefixCopies) -> bool:
        return len(copies.cuts) == 1 or (self.single_pass and copies.length**2 <= _LARGEST_MASK)

    def _score(self, batch: Sequence[PrefixCopies]) -> list[list[float]]:
        layout = _Layout.of(batch)
        # One prefix and its text are a plain row: attention without a mask is the fastest.
        plain = all(len(copies.cuts) == 1 for copies in batch)
        logprob_M = self._lm.logprobs_at(
            layout.ids_BT,
            layout.row_M,
            layout.before_M,
            layout.target_M,
            None if plain else layout.position_BT,
            None if plain else self._mask(layout.attended()),
        ).double()
        lengths = [tail.length for copies in batch for tail in copies.tails]
        means = iter([part.mean().item() for part in torch.split(logprob_M.cpu(), lengths)])
        return [[next(means) for _ in copies.cuts] for copies in batch]

    def _mask(self, attended_BTT: Tensor) -> Tensor:
        """Return a mask as the model's attention takes it: what is added to its weights."""
        attended_B1TT = attended_BTT[:, None].to(self._lm.device)
        if _attention(self._lm.config) == "sdpa":
            return attended_B1TT
        least = torch.finfo(self._lm.dtype).min
        return torch.zeros_like(attended_B1TT, dtype=self._lm.dtype).masked_fill(
            ~attended_B1TT, least
        )

    @torch.no_grad()
    def _masks_are_heeded(self) -> bool:
        """Try the single pass on a few tokens: a model may do with masks what it likes."""
        ids = tuple(n % self._lm.vocabulary for n in range(12))
        tails = (
            WrittenAnswer(ids[3:6], 1),
            WrittenAnswer(ids[8:10], 0),
            WrittenAnswer(ids[1:4], 0),
        )
        copies = PrefixCopies(ids, (2, 7, 12), tails)
        together = self._score([copies])[0]
        apart = [self._score([one])[0][0] for one in copies.apart()]
        tolerance = 1e-4 if self._lm.exact else 0.1
        return max(abs(a - b) for a, b in zip(together, apart, strict=True)) < tolerance


@dataclass(frozen=True, slots=True)
class _Layout:
    """Rows with their copies, right-padded, and where the scored tokens are."""

    ids_BT: Tensor  # long
    position_BT: Tensor  # long
    owner_BT: Tensor  # long; 0 in the row, 1 and up in its copies, -1 in padding
    prefix_BT: Tensor  # long; how many tokens of the row the token sees
    row_M: Tensor  # long
    before_M: Tensor  # long; where the token stands that predicts the scored one
    target_M: Tensor  # long; the scored token

    @classmethod
    def of(cls, batch: Sequence[PrefixCopies]) -> _Layout:
        width = max(copies.length for copies in batch)
        ids, position, owner, prefix = (
            torch.full((len(batch), width), fill) for fill in (0, 0, -1, 0)
        )
        scored: list[tuple[int, int, int]] = []
        for b, copies in enumerate(batch):
            end = max(copies.cuts)
            ids[b, :end] = torch.tensor(copies.ids[:end])
            position[b, :end] = torch.arange(end)
            owner[b, :end] = 0
            prefix[b, :end] = torch.arange(1, end + 1)
            for c, (cut, tail) in enumerate(zip(copies.cuts, copies.tails, strict=True), 1):
                begin, end = end, end + len(tail.ids)
                ids[b, begin:end] = torch.tensor(tail.ids)
                position[b, begin:end] = torch.arange(cut, cut + len(tail.ids))
                owner[b, begin:end] = c
                prefix[b, begin:end] = cut
                scored += [
                    (b, begin + n - 1 if n else cut - 1, tail.ids[n])
                    for n in range(tail.start, len(tail.ids))
                ]
        row_M, before_M, target_M = torch.tensor(scored).T
        return cls(ids, position, owner, prefix, row_M, before_M, target_M)

    def attended(self) -> Tensor:
        """Return ``attended_BTT``: whether a token (second axis) sees another (third axis).

        Padding sees itself, so that no token sees nothing.
        """
        index_T = torch.arange(self.ids_BT.shape[1])
        earlier_TT = index_T[:, None] >= index_T
        own_BTT = (self.owner_BT[:, :, None] == self.owner_BT[:, None]) & earlier_TT
        in_row_BT = self.owner_BT == 0
        return own_BTT | (in_row_BT[:, None] & (index_T < self.prefix_BT[:, :, None]))


def _longest_first(parts: Sequence[PrefixCopies]) -> list[int]:
    """Return the order in which rows are taken: those with several prefixes first."""
    return sorted(
        range(len(parts)), key=lambda n: (len(parts[n].cuts) > 1, parts[n].length), reverse=True
    )


def _micro_batches(
    parts: Sequence[PrefixCopies], order: list[int], tokens: int
) -> Iterator[list[int]]:
    """Yield which rows go together: of like length, and masked ones apart from plain ones."""
    while order:
        longest = parts[order[0]]
        masked = len(longest.cuts) > 1
        alike = [n for n in order if (len(parts[n].cuts) > 1) == masked]
        count = max(1, tokens // longest.length)
        if masked:
            count = max(1, min(count, _LARGEST_MASK // longest.length**2))
        yield alike[:count]
        order = order[len(alike[:count]) :]


def _attention(config: Any) -> str:
    return str(config._attn_implementation)


def _takes_masks(config: Any) -> bool:
    """Return whether all layers take a mask for each pair of tokens as it is."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return _attention(config) in ("eager", "sdpa") and kinds == {"full_attention"} and not window
