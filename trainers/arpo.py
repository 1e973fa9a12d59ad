"""ARPO: rollouts branch where the policy becomes uncertain of what it has just been told.

    H_t      sum of the entropies of the first k tokens of turn t, in units of ln |V|
    P_t      = clip(alpha + w (H_t - H_0), 0, 1)
    branch before turn t  where P_t > tau,  while the group has room

A group of n has ``initial`` rollouts that begin fresh; a branch shares its parent's turns before
the branching point; what branches left of the group begins fresh in the end. G. Dong et al.,
"Agentic Reinforced Policy Optimization", arXiv 2507.19849. Advantage and loss are the base's: the
paper's "soft" estimate. Every trajectory of a branching point trains the turns that it shares with
the others, so that those turns earn the mean advantage of their continuations, times their number.

A tool call is any turn of the environment. The released code differs, and ``arpo:released`` has
its formulas:

- It draws: a branch with probability P_t, not where P_t exceeds a threshold.
- It decides after an observation by the first tokens of the turn *before* it, so that at the first
  observation nothing has changed and P_t is alpha.
- Its entropies are sums over the 10 likeliest tokens that leave out all others. Here all others
  are one more token; with 10 of them an entropy is a little higher than there.
- Left out: it never clears H_0 between steps, begins one missing rollout at a time, and fills what
  is still missing with copies of the last one.

What to know: a sum over k tokens grows with their number, so that turns of fewer than k tokens are
compared by their length too; ``pool = "mean"`` compares tokens. How many episodes branched off is
``tree/branches``, the mean of H_t - H_0 at the decisions ``tree/delta``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from agentgym.trainers.batch import Batch
from agentgym.trainers.branch_plan import BranchOptions, BranchPlan, Tally
from agentgym.trainers.method import Method, Need, Options
from agentgym.trainers.ranks import Ranks
from agentgym.types import Branching


class ARPOOptions(BranchOptions):
    """The settings of ARPO, named after the paper's symbols."""


BranchOptionsT = TypeVar("BranchOptionsT", bound=BranchOptions)


class BranchingMethod(Method[BranchOptionsT]):
    """A method whose rollouts branch; subclasses say by which plan."""

    def __init__(self, options: BranchOptionsT, steps: int) -> None:
        super().__init__(options, steps)
        self._tallies: dict[int, list[Tally]] = {}  # by step, one a round of play and process

    @property
    def needs(self) -> Need:
        """Entropies while sampling and episodes that can be restored, where it branches."""
        return Need.TOP_K | Need.SNAPSHOTS if self.options.branches else Need.NOTHING

    def plan(self, group_size: int, seed: str) -> BranchPlan:
        """Return a plan that has decided nothing yet."""
        return BranchPlan(self.options, group_size, seed)

    def is_flat(self, group_size: int) -> bool:
        """Return whether every rollout of a group begins fresh."""
        return not self.options.branches or self.options.initial == group_size

    def collect(
        self, branching: Branching | None, group_size: int, seed: str, step: int
    ) -> Branching | None:
        """Return a fresh plan for this round of play."""
        if self.is_flat(group_size):
            return branching
        plan = self.plan(group_size, seed)
        self._tallies.setdefault(step, []).append(plan.tally)
        return plan

    def gather(self, ranks: Ranks, step: int) -> None:
        """Count what all processes decided."""
        found = [tally for own in ranks.gather(self._tallies.get(step, [])) for tally in own]
        if found:
            self._tallies[step] = found

    def observe(self, batch: Batch, step: int) -> None:
        """Forget the steps that are over; later ones may be played already."""
        self._tallies = {later: own for later, own in self._tallies.items() if later >= step}

    def metrics(self, step: int) -> dict[str, float]:
        """Return how the step's rollouts branched."""
        tallies = self._tallies.get(step)
        if tallies is None:
            return {}
        decisions = sum(tally.decisions for tally in tallies)
        return {
            "tree/fresh": float(sum(tally.fresh for tally in tallies)),
            "tree/branches": float(sum(tally.branches for tally in tallies)),
            "tree/decisions": float(decisions),
            "tree/delta": sum(tally.delta for tally in tallies) / max(1, decisions),
            "tree/probability": sum(tally.probability for tally in tallies) / max(1, decisions),
        }


class ARPO(BranchingMethod[ARPOOptions]):
    """Agentic reinforced policy optimisation."""

    name = "arpo"
    summary = "rollouts branch where entropy rises after an observation"
    paper = "arXiv 2507.19849"
    options_type: ClassVar[type[Options]] = ARPOOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {"decision": "draw", "timing": "before", "top_k": 10}
    }
