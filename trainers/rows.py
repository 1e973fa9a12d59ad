"""How the rows of a step are divided: into mini-batches, each an optimiser step, and micro-batches.

A mini-batch is what the loss is a mean over. A micro-batch is what goes through the model at once;
it bounds the memory and changes nothing else. The rows of a mini-batch are dealt to the processes
of a run, which take equally many passes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from agentgym.trainers.batch import Batch
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.ranks import ALONE, Ranks


def mini_batches(batch: Batch, options: OptimOptions, draw: str) -> Iterator[Batch]:
    """Yield the batches of the optimiser steps, dealt anew in each epoch.

    Args:
        batch: All rows of a step.
        options: How many trajectories or rows share an optimiser step, and how many epochs.
        draw: Where the order of each epoch is drawn from.
    """
    unit_B = _units(batch, options)
    units = torch.unique(unit_B).tolist()
    for epoch in range(options.epochs):
        if options.mini_batch is None or len(units) <= options.mini_batch:
            yield batch
            continue
        dealt = list(units)
        random.Random(f"{draw}:{epoch}:mini-batches").shuffle(dealt)
        for part in _parts(dealt, options.mini_batch):
            yield batch.rows(torch.isin(unit_B, torch.tensor(part)).nonzero()[:, 0])


def is_one_step(batch: Batch, options: OptimOptions) -> bool:
    """Return whether the batch is learnt from in one optimiser step."""
    units = len(torch.unique(_units(batch, options)))
    return options.epochs == 1 and (options.mini_batch is None or units <= options.mini_batch)


@dataclass(frozen=True, slots=True)
class Pass:
    """A micro-batch that a process takes."""

    rows: Tensor  # by their index
    counts: bool  # False: another process has them; this one only keeps step with it
    last: bool  # whether no other follows


def passes(batch: Batch, tokens: int, ranks: Ranks = ALONE) -> list[Pass]:
    """Divide the rows that have something to train on, rows of like length together.

    The rows are dealt in the order of their lengths. A process that has fewer micro-batches than
    another makes up for it with a row that does not count, as weights in shards are put together by
    all processes at once; so nothing need be divisible by their number.

    Args:
        batch: The rows.
        tokens: Of one micro-batch at most, with padding; a longer row goes alone.
        ranks: Among whom they are dealt.

    Returns:
        What this process takes; as many on each.
    """
    trained = batch.mask_BT.any(-1).nonzero()[:, 0]
    order = trained[batch.length_B[trained].argsort(descending=True, stable=True)]
    dealt = [_micro_batches(batch, order[rank :: ranks.size], tokens) for rank in range(ranks.size)]
    mine = [(rows, True) for rows in dealt[ranks.rank]]
    mine += [(order[-1:], False)] * (max(map(len, dealt)) - len(mine))
    return [Pass(rows, counts, n == len(mine)) for n, (rows, counts) in enumerate(mine, 1)]


def _micro_batches(batch: Batch, order: Tensor, tokens: int) -> list[Tensor]:
    divided: list[Tensor] = []
    while len(order):
        count = max(1, tokens // int(batch.length_B[order[0]]))
        divided.append(order[:count])
        order = order[count:]
    return divided


def _units(batch: Batch, options: OptimOptions) -> Tensor:
    if options.mini_batch_of == "trajectory":
        return batch.trajectory_B
    return torch.arange(len(batch.trajectory_B))


def _parts(units: list[int], size: int) -> list[list[int]]:
    """Cut a list into parts of at most ``size``, as equal as can be."""
    count = -(-len(units) // size)
    bounds = [len(units) * i // count for i in range(count + 1)]
    return [units[a:b] for a, b in pairwise(bounds)]
