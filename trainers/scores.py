"""Log-probabilities and entropies of a batch, gathered a micro-batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agentgym.errors import UsageError
from agentgym.trainers.batch import Batch
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.ranks import ALONE, Ranks
from agentgym.trainers.rows import passes


@dataclass(slots=True)
class Scores:
    """What a model says about the tokens of a batch, as far as it was asked."""

    logprob_BT: Tensor
    entropy_BT: Tensor

    @classmethod
    def empty(cls, batch: Batch, dtype: torch.dtype) -> Scores:
        """Return room for the scores of a batch."""
        zeros_BT = torch.zeros(batch.mask_BT.shape, dtype=dtype)
        return cls(zeros_BT, zeros_BT.clone())

    @classmethod
    @torch.no_grad()
    def by(cls, lm: CausalLM, batch: Batch, tokens: int, ranks: Ranks = ALONE) -> Scores:
        """Return a model's scores of a batch, in passes of so many tokens at most."""
        scores = cls.empty(batch, lm.dtype)
        for part in passes(batch, tokens, ranks):
            rows = batch.rows(part.rows)
            found = lm.score(rows.ids_BT, rows.mask_BT, batch.temperature)
            if part.counts:
                scores.put(part.rows, *found)
        return scores.gathered(ranks)

    def put(self, index: Tensor, logprob_BT: Tensor, entropy_BT: Tensor) -> None:
        """Take the scores of some rows."""
        width = logprob_BT.shape[1]
        self.logprob_BT[index, :width] = logprob_BT.cpu()
        self.entropy_BT[index, :width] = entropy_BT.cpu()

    def gathered(self, ranks: Ranks) -> Scores:
        """Take what the other processes have of the rows that they scored; each row has one."""
        ranks.sum_(self.logprob_BT, self.entropy_BT)
        return self

    def into(self, batch: Batch) -> Batch:
        """Return the batch with the scores."""
        return batch.with_(old_logprob_BT=self.logprob_BT, entropy_BT=self.entropy_BT)


def at_temperature(batch: Batch, temperature: float) -> Batch:
    """Return the batch, to be scored at the temperature that it was sampled at.

    Raises:
        UsageError: A row begins with a sampled token, which nothing predicts.
    """
    if batch.mask_BT.numel() and batch.mask_BT[:, 0].any():
        row = int(batch.mask_BT[:, 0].nonzero()[0, 0])
        raise UsageError(f"row {row} begins with a sampled token; a row begins with a prompt")
    return batch.with_(temperature=temperature)
