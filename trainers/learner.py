"""The learner: scores a batch before the update, and updates the weights.

It owns optimisers and counters, no weights: the model is the very module that the in-process
sampler uses. It knows no method; a chain tells it the loss of some rows.
"""

from __future__ import annotations

import copy
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from agentgym.errors import DivergedError, UsageError
from agentgym.trainers.batch import Batch
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.method import Chain, Forward, Loss, MiniBatchWeights, Need
from agentgym.trainers.optim import OptimOptions, build_optimizers, learning_rate

SKIPS_IN_A_ROW = 3


class Learner:
    """Scores rows and updates the weights of a causal language model.

    Args:
        model: The model that is trained, in place.
        options: How.
        steps: How many steps the run has, for the learning rate's schedule.
        needs: What the chain needs (:attr:`Chain.needs`).
        seed: Where the draw of mini-batches comes from.
        reference: The frozen model that divergences are measured from, where they are needed;
            None takes a copy of the model as it is now. A resumed run must give the model that
            it began with.

    Raises:
        UsageError: The learner cannot meet a need, or the model's logits are unusual.
    """

    def __init__(
        self,
        model: nn.Module,
        options: OptimOptions,
        steps: int,
        needs: Need = Need.NOTHING,
        seed: int = 0,
        reference: nn.Module | None = None,
    ) -> None:
        if Need.VALUES in needs:
            raise UsageError("the method needs values, and this learner has no critic")
        self._lm = CausalLM(model)
        self._options, self._steps, self._seed = options, steps, seed
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizers = build_optimizers(model, options)
        self._reference: CausalLM | None = None
        if Need.REFERENCE in needs:
            frozen = copy.deepcopy(model) if reference is None else reference
            self._reference = CausalLM(frozen.requires_grad_(False))
        self._updates = 0
        self._skipped = 0
        self._skipped_in_a_row = 0

    # Before the update ------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, batch: Batch, temperature: float) -> Batch:
        """Return the batch with log-probabilities and entropies of the weights as they are.

        Args:
            batch: All rows of a step.
            temperature: At which it was sampled; the update is at the same.

        Raises:
            UsageError: A row begins with a sampled token, which nothing predicts.
        """
        if batch.mask_BT.numel() and batch.mask_BT[:, 0].any():
            row = int(batch.mask_BT[:, 0].nonzero()[0, 0])
            raise UsageError(f"row {row} begins with a sampled token; a row begins with a prompt")
        batch = batch.with_(temperature=temperature)
        logprob_BT, entropy_BT = self._score_with(self._lm, batch)
        batch = batch.with_(old_logprob_BT=logprob_BT, entropy_BT=entropy_BT)
        if self._reference is None:
            return batch
        return batch.with_(ref_logprob_BT=self._score_with(self._reference, batch)[0])

    def _score_with(self, lm: CausalLM, batch: Batch) -> tuple[Tensor, Tensor]:
        logprob_BT = torch.zeros(batch.mask_BT.shape, dtype=lm.dtype)
        entropy_BT = torch.zeros_like(logprob_BT)
        for index in self._micro_batches(batch):
            rows = batch.rows(index)
            width = rows.ids_BT.shape[1]
            scored = lm.score(rows.ids_BT, rows.mask_BT, batch.temperature)
            logprob_BT[index, :width] = scored[0].cpu()
            entropy_BT[index, :width] = scored[1].cpu()
        return logprob_BT, entropy_BT

    # The update -------------------------------------------------------------------------------

    def update(self, batch: Batch, method: Chain, step: int) -> dict[str, float]:
        """Update the weights with a step's batch, and with what the method replays.

        Args:
            batch: Scored, with advantages.
            method: What the loss is.
            step: Counted from 1.

        Returns:
            Metrics, each the mean over the optimiser steps taken; those of replayed batches
            begin with ``replay/``.

        Raises:
            DivergedError: The loss or its gradient was not finite three times in a row.
            UsageError: The method needs a reference, and the learner was built without.
        """
        if Need.REFERENCE in method.needs and self._reference is None:
            raise UsageError("the method needs a reference; build the learner with its needs")
        rate = learning_rate(self._options, step, self._steps)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        method.prepare(batch, step)
        seen: defaultdict[str, list[float]] = defaultdict(list)
        sources = [("", batch, 1.0), *(("replay/", *item) for item in method.replay(step))]
        for prefix, source, weight in sources:
            for mini_batch in self._mini_batches(source, step) if weight else ():
                for name, value in self._step(mini_batch, method, step, weight).items():
                    seen[prefix + name].append(value)
        return {
            **{name: fmean(values) for name, values in seen.items()},
            **method.metrics(step),
            "optim/lr": rate,
            "optim/updates": float(self._updates),
            "optim/skipped": float(self._skipped),
        }

    def _step(self, mini_batch: Batch, method: Chain, step: int, weight: float) -> dict[str, float]:
        """Take one optimiser step; skip it where loss or gradient are not finite.

        Returns:
            Metrics of the step; none where it was skipped.
        """
        sums: defaultdict[str, float] = defaultdict(float)
        watched: dict[str, list[Tensor]] = {}
        for forward in self._forwards(mini_batch, step):
            loss = method.loss(forward)
            self._watch(loss, watched)
            for name, term in loss.terms.items():
                sums[f"loss/{name}"] += term.value.item()
            for name, value in loss.metrics.items():
                sums[name] += value.item()
            total = loss.total()
            if not torch.isfinite(total):
                sums["loss/total"] = math.nan
                break
            sums["loss/total"] += total.item()
            (total * weight).backward()  # type: ignore[no-untyped-call]
        for name, gradients in watched.items():
            sums[f"optim/grad_norm/{name}"] = _norm(gradients)
        return sums if self._apply(sums, step) else {}

    def _forwards(self, mini_batch: Batch, step: int) -> Iterator[Forward]:
        """Run the model over a mini-batch, a micro-batch at a time."""
        weights = MiniBatchWeights(mini_batch)
        for index in self._micro_batches(mini_batch):
            rows = mini_batch.rows(index)
            logprob_BT, entropy_BT = self._lm.score(
                rows.ids_BT, rows.mask_BT, mini_batch.temperature
            )
            yield Forward(rows.to(logprob_BT.device), logprob_BT, entropy_BT, step, weights, index)

    def _watch(self, loss: Loss, watched: dict[str, list[Tensor]]) -> None:
        """Add the gradients of the terms that are watched, each for itself."""
        for name, term in loss.terms.items():
            if not term.watched:
                continue
            totals = watched.setdefault(name, [torch.zeros_like(p) for p in self._parameters])
            if not term.loss_BT.requires_grad:
                continue
            gradients = torch.autograd.grad(
                term.value, self._parameters, retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total += gradient

    def _apply(self, sums: dict[str, float], step: int) -> bool:
        """Step the optimisers if loss and gradient are finite; return whether they are."""
        limit = self._options.clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit).item()
        sums["optim/grad_norm"] = norm
        finite = math.isfinite(norm) and math.isfinite(sums["loss/total"])
        if finite:
            for optimizer in self._optimizers:
                optimizer.step()
            self._updates += 1
            self._skipped_in_a_row = 0
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        if not finite:
            self._skip(sums, step)
        return finite

    def _skip(self, sums: dict[str, float], step: int) -> None:
        """Count an update that was not made.

        Raises:
            DivergedError: It was the third in a row.
        """
        self._skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row < SKIPS_IN_A_ROW:
            return
        terms = ", ".join(f"{name} {value:g}" for name, value in sums.items())
        raise DivergedError(
            f"step {step}: loss or gradient was not finite {SKIPS_IN_A_ROW} times in a row"
            f" ({terms}); {self._updates} updates were made before, the"
            f" learning rate is {self._optimizers[0].param_groups[0]['lr']:g}; resume from the last"
            " checkpoint with a lower optim.lr or optim.clip"
        )

    # How rows are divided ---------------------------------------------------------------------

    def _mini_batches(self, batch: Batch, step: int) -> Iterator[Batch]:
        """Yield the batches of the optimiser steps, dealt anew in each epoch."""
        unit_B = batch.trajectory_B
        if self._options.mini_batch_of == "row":
            unit_B = torch.arange(len(batch.trajectory_B))
        units = torch.unique(unit_B).tolist()
        for epoch in range(self._options.epochs):
            if self._options.mini_batch is None or len(units) <= self._options.mini_batch:
                yield batch
                continue
            dealt = list(units)
            random.Random(f"{self._seed}:{step}:{epoch}:mini-batches").shuffle(dealt)
            for part in _parts(dealt, self._options.mini_batch):
                yield batch.rows(torch.isin(unit_B, torch.tensor(part)).nonzero()[:, 0])

    def _micro_batches(self, batch: Batch) -> list[Tensor]:
        """Divide the rows that have something to train on, rows of like length together."""
        trained = batch.mask_BT.any(-1).nonzero()[:, 0]
        order = trained[batch.length_B[trained].argsort(descending=True, stable=True)]
        micro_batches: list[Tensor] = []
        while len(order):
            longest = int(batch.length_B[order[0]])
            count = max(1, self._options.micro_batch_tokens // longest)
            micro_batches.append(order[:count])
            order = order[count:]
        return micro_batches

    # Checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return optimisers and counters; the weights are saved with the model."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "updates": self._updates,
            "skipped": self._skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._updates = state["updates"]
        self._skipped = state["skipped"]
        self._skipped_in_a_row = state["skipped_in_a_row"]


def _parts(units: list[int], size: int) -> list[list[int]]:
    """Cut a list into parts of at most ``size``, as equal as can be."""
    count = -(-len(units) // size)
    bounds = [len(units) * i // count for i in range(count + 1)]
    return [units[a:b] for a, b in pairwise(bounds)]


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors]).norm())
