"""A plan of which episodes the groups of a step have: how many begin fresh, which branch, where.

One plan serves one round of play and remembers nothing of others. What it decides is a function of
its seed and of what it is told, in the order in which it is told.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import Field

from agentgym.errors import UsageError
from agentgym.trainers.branching import Pool, branch_probability, uncertainty
from agentgym.trainers.method import Options
from agentgym.types import Key


class BranchOptions(Options):
    """Where rollouts branch."""

    initial: int | None = Field(
        None, ge=1, description="fresh rollouts of a group; None: half of it (ARPO: 8 of 16)"
    )
    beam: int = Field(
        2, ge=1, description="paths from a branching point, its own included (both papers: 2)"
    )
    alpha: float = Field(
        0.5, ge=0, le=1, description="alpha, the probability where nothing changed (both papers)"
    )
    weight: float = Field(
        0.2, description="beta of ARPO, gamma of AEPO: of the change in entropy (both papers)"
    )
    decision: Literal["threshold", "draw"] = Field(
        "threshold",
        description="branch where P exceeds the threshold (papers) or with probability P (code)",
    )
    threshold: float = Field(0.5, ge=0, le=1, description="tau (ARPO, section 3.1)")
    look_ahead: int = Field(20, ge=1, description="k, the first tokens of a turn (released code)")
    top_k: int = Field(
        20,
        ge=1,
        description="likeliest tokens in an entropy; all others are lumped into one more (ours;"
        " released code: 10, without the others)",
    )
    pool: Pool = Field("sum", description="of the entropies of the first tokens (ARPO: their sum)")
    vocabulary: int = Field(
        151_936,
        ge=2,
        description="its logarithm divides entropies (that of Qwen2.5, the papers' model)",
    )
    timing: Literal["after", "before"] = Field(
        "after",
        description="which turn decides after an observation: the next (papers), the last (code)",
    )

    @property
    def branches(self) -> bool:
        """Whether a rollout can ever branch."""
        reached = self.alpha > (self.threshold if self.decision == "threshold" else 0)
        return self.beam > 1 and (self.weight != 0 or reached)


@dataclass(frozen=True, slots=True)
class Path:
    """What is remembered of an episode."""

    began: int = 0  # its first turn of its own
    root: float | None = None  # H_0; None until its first turn was looked at
    before: float | None = None  # H of the turn before this one, where it was looked at
    branched: frozenset[int] = frozenset()  # turns, its ancestors' included


@dataclass(slots=True)
class Book:
    """The episodes of one task."""

    fresh: int = 0
    branches: Counter[int] = field(default_factory=Counter)  # of each fresh one
    branched: set[int] = field(default_factory=set)  # turns, of any episode

    @property
    def size(self) -> int:
        """How many episodes there are."""
        return self.fresh + self.branches.total()


@dataclass(slots=True)
class Tally:
    """What a plan decided, summed over its groups."""

    fresh: int = 0  # episodes that began at a task's first observation
    branches: int = 0  # episodes that branched off
    decisions: int = 0
    delta: float = 0.0  # sum over the decisions
    probability: float = 0.0  # likewise


class BranchPlan:
    """ARPO's plan: some rollouts begin fresh, branch where entropy rises, the rest begin fresh.

    Implements :class:`agentgym.types.Branching`.

    Args:
        options: Where rollouts branch.
        group_size: Episodes of each group, branches included.
        seed: Where draws come from.

    Raises:
        UsageError: More rollouts shall begin than a group has.
    """

    def __init__(self, options: BranchOptions, group_size: int, seed: str) -> None:
        if options.initial is not None and options.initial > group_size:
            raise UsageError(
                f"method.initial is {options.initial} and rollout.group_size {group_size}; fresh"
                " rollouts are a part of the group"
            )
        self.look_ahead, self.top_k = options.look_ahead, options.top_k
        self.tally = Tally()
        self._options, self._group_size, self._seed = options, group_size, seed
        self._books: dict[str, Book] = {}
        self._paths: dict[Key, Path] = {}

    # What rollout asks ------------------------------------------------------------------------

    def fresh(self, task: str) -> Sequence[Key]:
        """Return the first rollouts of a group; later, what the branches left of it."""
        wanted = self._group_size if task in self._books else self.first(task)
        book = self._books.setdefault(task, Book())
        count = min(wanted, self._group_size - book.size)
        keys = [Key(task, book.fresh + n) for n in range(count)]
        self._paths.update((key, Path()) for key in keys)
        book.fresh += count
        self.tally.fresh += count
        return keys

    def looks(self, key: Key, turn: int) -> bool:
        """Return whether a place is left in the group, and this turn is needed to decide."""
        if self._free(key.task) == 0:
            return False
        own_first = 0 < turn == self._paths[key].began
        return not own_first or self._options.timing == "before"

    def branches(self, key: Key, turn: int, entropies: Sequence[float]) -> Sequence[Key]:
        """Decide whether others branch off before a turn, and name them.

        The first turn of a rollout is no place to branch: it is what others are compared with, and
        to branch there is to begin fresh. Nor is the turn that a rollout branched off with.
        """
        now, path = self.measure(entropies), self._paths[key]
        root = now if path.root is None else path.root
        known = now if self._options.timing == "after" else path.before
        path = self._paths[key] = replace(path, root=root, before=now)
        if turn == path.began or known is None or not self._free(key.task):
            return ()
        if not self._decide(key, turn, known - root):
            return ()
        return self._branch(key, turn, min(self._options.beam - 1, self._free(key.task)))

    # What it decides by -----------------------------------------------------------------------

    def first(self, task: str) -> int:
        """Return how many rollouts of a group begin fresh at first."""
        initial = self._options.initial
        return max(1, self._group_size // 2) if initial is None else initial

    def measure(self, entropies: Sequence[float]) -> float:
        """Return H, what the entropies of the first tokens of a turn amount to."""
        return uncertainty(entropies, self._options.pool, self._options.vocabulary)

    def probability(self, delta: float, path: Path, book: Book, turn: int) -> float:
        """Return how likely a rollout is to branch at a turn."""
        return branch_probability(delta, self._options.alpha, self._options.weight)

    def _free(self, task: str) -> int:
        return self._group_size - self._books[task].size

    def _decide(self, key: Key, turn: int, delta: float) -> bool:
        probability = self.probability(delta, self._paths[key], self._books[key.task], turn)
        self.tally.decisions += 1
        self.tally.delta += delta
        self.tally.probability += probability
        if self._options.decision == "threshold":
            return probability > self._options.threshold
        stream = f"{self._seed}:{key.task}:{key.member}:{key.branch}:{turn}:branch"
        return random.Random(stream).random() < probability

    def _branch(self, key: Key, turn: int, count: int) -> list[Key]:
        book = self._books[key.task]
        book.branched.add(turn)
        path = self._paths[key]
        path = self._paths[key] = replace(path, branched=path.branched | {turn})
        taken = book.branches[key.member]
        keys = [Key(key.task, key.member, taken + 1 + n) for n in range(count)]
        self._paths.update((copy, replace(path, began=turn, before=None)) for copy in keys)
        book.branches[key.member] += count
        self.tally.branches += count
        return keys
