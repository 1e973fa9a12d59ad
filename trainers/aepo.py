"""AEPO: ARPO with a budget, a cost of branching in a row, live gradients, credit for entropy.

    m        = n sigmoid(beta (H_root - mean H_tool))             rollouts that begin fresh
    P_t      = clip((alpha + w (H_t - H_0)) (1 - p l), 0, 1)      branch where P_t > tau
    clip     r above 1 + e becomes (1 + e) r / sg(r)              same value, gradient alive
    A'       = A max(0, 1 + a z)                                  z: the token's entropy, in
                                                                  deviations from the batch's mean

G. Dong et al., "Agentic Entropy-Balanced Policy Optimization", arXiv 2510.14545. H_t and the
branching itself are ARPO's (:mod:`agentgym.trainers.arpo`). H_root and H_tool are those of one
pilot rollout of the task, at its first turn and at its others; the pilot is played beside the group
and not trained on. l is on how many turns in a row, just before this one, the rollout or those it
branched off from have branched. The clip is the base's, with ``clip_high_gradient = "keep"``, which
this method sets.

Departures and choices:

- m is cut to a whole number, plus one, as in the released code: the paper leaves the rounding open.
- z is over the policy's tokens of the whole batch, by entropies before the update; the released
  code takes each micro-batch's. The unbiased deviation; without any, nothing changes.
- 1 + a z is never below 0: an advantage keeps its sign. With a = 0.2 that is z < -5.
- The live gradient is for every token above the bound, as the formula has it.

The released configuration trains with little of this, and ``aepo:released`` has what it has: the
penalty in its own form (it falls faster), by turns on which *any* rollout of the task branched;
draws and timing as in ``arpo:released``; the clip. The budget is switched off there, and the
entropy-aware advantage never acts, as it waits for entropies that nobody computes.

What to know: the live gradient takes away what bounds a ratio from above: watch ``actor/ppo_kl``
and ``actor/clip_kept``, the share of tokens that are trained beyond the bound. ``aepo/held`` is the
share of tokens whose factor was held at 0. The pilot costs one rollout a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from agentgym.trainers.arpo import BranchingMethod
from agentgym.trainers.batch import Batch
from agentgym.trainers.branch_plan import Book, BranchOptions, BranchPlan, Path
from agentgym.trainers.branching import (
    fresh_rollouts,
    penalised_probability,
    released_probability,
    run_before,
)
from agentgym.trainers.method import Need, Options
from agentgym.types import PILOT, Key

SAME = 1e-9
"""Nats; a deviation of entropies below it is rounding."""


class AEPOOptions(BranchOptions):
    """The settings of AEPO, named after the paper's symbols."""

    budget: Literal["pilot", "fixed"] = Field(
        "pilot",
        description="how many rollouts begin fresh: by a pilot rollout (equation of the budget) or"
        " as ``initial`` says",
    )
    beta: float = Field(0.5, ge=0, description="of the budget, on entropies (released code)")
    penalty: float = Field(
        0.05, ge=0, description="p, for each turn of a run of branchings (released code)"
    )
    form: Literal["product", "released"] = Field(
        "product", description="how the penalty enters: times P (paper) or times the draw (code)"
    )
    run_of: Literal["rollout", "task"] = Field(
        "rollout", description="whose branchings make a run: the rollout's (paper) or any (code)"
    )
    entropy_weight: float = Field(
        0.2, ge=0, description="a, of the entropy in the advantage (released code)"
    )


class AEPO(BranchingMethod[AEPOOptions]):
    """Agentic entropy-balanced policy optimisation."""

    name = "aepo"
    summary = "ARPO with a budget, a penalty for branching in a row, and credit for entropy"
    paper = "arXiv 2510.14545"
    options_type: ClassVar[type[Options]] = AEPOOptions
    base_defaults: ClassVar[Mapping[str, Any]] = {"clip_high_gradient": "keep"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {
            "budget": "fixed",
            "form": "released",
            "run_of": "task",
            "decision": "draw",
            "timing": "before",
            "top_k": 10,
            "entropy_weight": 0.0,
        }
    }

    def __init__(self, options: AEPOOptions, steps: int) -> None:
        super().__init__(options, steps)
        self._held: dict[str, float] = {}

    @property
    def needs(self) -> Need:
        """What branching needs, and entropies before the update for the advantage."""
        return super().needs | (Need.ENTROPY if self.options.entropy_weight else Need.NOTHING)

    def plan(self, group_size: int, seed: str) -> BranchPlan:
        """Return a plan with a budget and penalties."""
        return AEPOPlan(self.options, group_size, seed)

    def is_flat(self, group_size: int) -> bool:
        """Return whether every rollout of a group begins fresh."""
        o = self.options
        return not o.branches or (o.budget == "fixed" and o.initial == group_size)

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Scale the base's credit by how uncertain each token was."""
        weight = self.options.entropy_weight
        if not weight:
            return batch
        assert batch.advantage_BT is not None
        assert batch.entropy_BT is not None
        factor_BT = entropy_factor(batch.entropy_BT, batch.mask_BT, weight)
        sampled_BT = batch.mask_BT.bool()
        self._held = {
            "aepo/held": (factor_BT[sampled_BT] == 0).double().mean().item(),
            "aepo/factor_max": factor_BT[sampled_BT].max().item(),
        }
        return batch.with_(advantage_BT=batch.advantage_BT * factor_BT.to(batch.advantage_BT))

    def metrics(self, step: int) -> dict[str, float]:
        """Return how the step's rollouts branched and its credit was scaled."""
        return super().metrics(step) | self._held


def entropy_factor(entropy_BT: Tensor, mask_BT: Tensor, weight: float) -> Tensor:
    """Return ``max(0, 1 + weight z)`` in float64, with z over the tokens under the mask.

    It is 1 where the mask is 0, and everywhere if there is one token or all entropies are equal.
    """
    sampled_BT = mask_BT.bool()
    entropy_S = entropy_BT[sampled_BT].double()
    factor_BT = torch.ones_like(entropy_BT, dtype=torch.float64)
    if len(entropy_S) < 2 or (deviation := entropy_S.std()) < SAME:
        return factor_BT
    z_S = (entropy_S - entropy_S.mean()) / deviation
    factor_BT[sampled_BT] = (1 + weight * z_S).clamp(min=0)
    return factor_BT


class AEPOPlan(BranchPlan):
    """AEPO's plan: a pilot says how many rollouts begin fresh, runs of branchings cost."""

    def __init__(self, options: AEPOOptions, group_size: int, seed: str) -> None:
        super().__init__(options, group_size, seed)
        self._aepo = options
        self._pilots: dict[str, list[float]] = {}  # H of each turn, by task

    def fresh(self, task: str) -> Sequence[Key]:
        """Return the pilot, then the first rollouts, then what the branches left."""
        if self._aepo.budget == "pilot" and task not in self._pilots:
            self._pilots[task] = []
            return [Key(task, PILOT)]
        return super().fresh(task)

    def looks(self, key: Key, turn: int) -> bool:
        """Return True for every turn of a pilot."""
        return key.member == PILOT or super().looks(key, turn)

    def branches(self, key: Key, turn: int, entropies: Sequence[float]) -> Sequence[Key]:
        """Note what a pilot is uncertain of; nothing branches off from it."""
        if key.member == PILOT:
            self._pilots[key.task].append(self.measure(entropies))
            return ()
        return super().branches(key, turn, entropies)

    def first(self, task: str) -> int:
        """Return the budget's m, or what is set."""
        if self._aepo.budget == "fixed":
            return super().first(task)
        root, *tool = self._pilots[task] or [0.0]
        mean_tool = fmean(tool) if tool else root
        return fresh_rollouts(self._group_size, root, mean_tool, self._aepo.beta)

    def probability(self, delta: float, path: Path, book: Book, turn: int) -> float:
        """Return how likely a rollout is to branch, after a run of branchings."""
        o = self._aepo
        run = run_before(turn, path.branched if o.run_of == "rollout" else book.branched)
        formula = penalised_probability if o.form == "product" else released_probability
        return formula(delta, run, o.alpha, o.weight, o.penalty)
