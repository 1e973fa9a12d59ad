"""What a training method may change: the hooks, and how a base and methods form a chain.

A method is one file with a class that overrides some hooks of :class:`Method`. Each hook receives
what the previous link of the chain returned; a hook that has nothing to change returns its input,
the very object. The base comes first and gives credit and the surrogate loss; the trainer knows
neither the one nor the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Flag, auto
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from agentgym.trainers.aggregate import Aggregation, SequenceUnit, token_weights
from agentgym.trainers.batch import Batch
from agentgym.trainers.ranks import Ranks
from agentgym.trainers.selection import Rewards, Selection
from agentgym.types import Branching, Group


class Need(Flag):
    """What must be there for a method to do what it says."""

    NOTHING = 0
    ENTROPY = auto()  # of each token, before advantages and prepare
    OLD_LOGPROB = auto()  # of each token, before advantages and prepare
    CURRENT_LOGPROB = auto()  # of each token of a mini-batch, before its optimiser step
    ENTROPY_GRADIENT = auto()  # of each token, differentiable, in the loss
    REFERENCE = auto()  # log-probabilities of a frozen reference model
    VALUES = auto()  # of a critic
    TOP_K = auto()  # entropies of the likeliest tokens while sampling
    ANSWER_SCORES = auto()  # how likely the gold answer is after each turn
    SNAPSHOTS = auto()  # episodes that can be brought back and branched
    GROUPS = auto()  # two trajectories or more of each task


class Options(BaseModel):
    """The settings of one method. Each field says what it is and where its default comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RewardOptions(BaseModel):
    """What a trajectory is rewarded for.

    Attributes:
        scale: What the outcome is multiplied by.
        outcome: ``won`` rewards success alone, ``score`` the benchmark's own partial credit.
        format_penalty: Subtracted at each turn that did not follow the action format.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: float = 1.0
    outcome: Literal["won", "score"] = "won"
    format_penalty: float = Field(default=0.1, ge=0)


class AnswerOptions(Options):
    """How the gold answer is scored where a method needs to know how likely it is."""

    answer: Literal["environment", "expert"] = Field(
        "environment",
        description="what the answer is: the environment's (paper), or the expert's remaining plan,"
        " for environments without an answer (ours)",
    )
    answer_template: str | None = Field(
        None,
        description="how an answer is written at the beginning of a turn, with {answer} in it;"
        " by default as the prompt's action format demands (paper: after a sentence that says so)",
    )
    scored_by: Literal["learner", "sampler"] = Field(
        "learner",
        description="where answers are scored; the learner takes one pass a trajectory (ours)",
    )


class MiniBatchWeights:
    """The token weights of one mini-batch, whole; each aggregation is computed once."""

    def __init__(self, mini_batch: Batch) -> None:
        self._batch = mini_batch
        self._known: dict[tuple[object, ...], Tensor] = {}

    def of(self, aggregation: Aggregation, sequence: SequenceUnit, sum_norm: int | None) -> Tensor:
        """Return ``weight_BT`` (see :func:`agentgym.trainers.aggregate.token_weights`)."""
        key = (aggregation, sequence, sum_norm)
        if key not in self._known:
            self._known[key] = token_weights(self._batch, aggregation, sequence, sum_norm)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class Forward:
    """What the current weights say about some rows of a mini-batch, with gradients."""

    batch: Batch  # the rows of this micro-batch
    logprob_BT: Tensor
    entropy_BT: Tensor
    step: int
    weights: MiniBatchWeights
    rows: Tensor  # which rows of the mini-batch these are

    def weight_BT(
        self,
        aggregation: Aggregation,
        sequence: SequenceUnit = "trajectory",
        sum_norm: int | None = None,
    ) -> Tensor:
        """Return the weights of these tokens in the whole mini-batch."""
        weight_BT = self.weights.of(aggregation, sequence, sum_norm)
        width = self.logprob_BT.shape[1]
        return weight_BT[self.rows, :width].to(self.logprob_BT)


@dataclass(frozen=True, slots=True)
class Term:
    """One named part of the loss: a loss and a weight for each token.

    ``watched`` asks for the norm of this term's own gradient, which costs a forward and a backward
    pass more for each such term.
    """

    loss_BT: Tensor
    weight_BT: Tensor
    watched: bool = False

    @property
    def value(self) -> Tensor:
        """The weighted sum."""
        return (self.loss_BT * self.weight_BT).sum()


@dataclass(frozen=True, slots=True)
class Loss:
    """The terms of the loss, and what is worth logging about them.

    Both are sums over the tokens of a micro-batch; the sums of its micro-batches are the
    mini-batch's.
    """

    terms: Mapping[str, Term] = field(default_factory=dict)
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    def with_term(self, name: str, term: Term) -> Loss:
        """Return the loss with a term added or put in another's place."""
        return replace(self, terms={**self.terms, name: term})

    def with_metric(self, name: str, value_BT: Tensor, weight_BT: Tensor) -> Loss:
        """Return the loss with a weighted mean to be logged."""
        total = (value_BT.detach() * weight_BT).sum()
        return replace(self, metrics={**self.metrics, name: total})

    def total(self) -> Tensor:
        """Return the sum of all terms."""
        return torch.stack([term.value for term in self.terms.values()]).sum()


OptionsT = TypeVar("OptionsT", bound=Options)


class Method(Generic[OptionsT]):
    """A link of the chain. Every hook here returns its input: it changes nothing.

    Args:
        options: The method's settings.
        steps: How many steps the run has, for schedules.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for people."""
    paper: ClassVar[str] = ""
    role: ClassVar[Literal["base", "method"]] = "method"
    bases: ClassVar[tuple[str, ...]] = ("grpo",)
    """What the method can stand on, the default first; a base stands on nothing."""
    options_type: ClassVar[type[Options]] = Options
    base_defaults: ClassVar[Mapping[str, Any]] = {}
    """What the method sets of whichever base has it, unless the user says otherwise."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """``name:preset`` sets these options, of the method's or of whichever base has them."""
    refused_presets: ClassVar[Mapping[str, str]] = {}
    """Presets that someone may ask for and that cannot be, with the reason."""

    def __init__(self, options: OptionsT, steps: int) -> None:
        self.options = options
        self.steps = steps

    @property
    def needs(self) -> Need:
        """What must be there, or the run refuses to start."""
        return Need.NOTHING

    @property
    def answers(self) -> AnswerOptions | None:
        """How gold answers are scored, for a method that needs it."""
        return None

    def collect(
        self, branching: Branching | None, group_size: int, seed: str, step: int
    ) -> Branching | None:
        """Return what plans the episodes of a round of play.

        Args:
            branching: A plan, whose rollouts may branch; None plays flat groups.
            group_size: Episodes of each group.
            seed: Where the plan's draws come from.
            step: Counted from 1. A step that refills groups has several rounds of play.
        """
        return branching

    def gather(self, ranks: Ranks, step: int) -> None:
        """Bring together what was noted while each process played its share of a step's tasks.

        All else that a method is told is the same on all processes.
        """

    def turn_rewards(self, groups: Sequence[Group], rewards: Rewards, step: int) -> Rewards:
        """Return the rewards of each turn, as named parts; parts are added, never changed."""
        return rewards

    def select(self, selection: Selection, step: int) -> Selection:
        """Return what stays of the groups played so far, and how many more are wanted.

        Called after each round of play, until nothing more is wanted or no task is left.
        """
        return selection

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Return the batch with the credit of each token."""
        return batch

    def prepare(self, batch: Batch, step: int) -> None:
        """Note what the loss needs to know of the whole step, just before the update."""

    def hold_back(
        self, mini_batch: Batch, logprob_BT: Tensor, held_BT: Tensor, step: int
    ) -> Tensor:
        """Return which tokens of a mini-batch get no gradient of the surrogate, just before it.

        Called only where the chain needs ``CURRENT_LOGPROB``. What is held back beyond the base's
        clip is for :meth:`loss` to leave out, whose rows are :attr:`Forward.rows` of these.

        Args:
            mini_batch: All rows of an optimiser step.
            logprob_BT: Of its tokens, by the weights as they are; no gradient.
            held_BT: Boolean; what the links before hold back.
            step: Counted from 1.
        """
        return held_BT

    def loss(self, forward: Forward, loss: Loss) -> Loss:
        """Return the loss of some rows, with terms added or changed."""
        return loss

    def replay(self, step: int) -> Sequence[tuple[Batch, float]]:
        """Return batches of earlier steps to train on too, each with the weight of its loss."""
        return ()

    def observe(self, batch: Batch, step: int) -> None:
        """Remember what later steps need, after the update."""

    @property
    def demonstrations(self) -> str | None:
        """The file of demonstrations that are remembered before the first step; None for none."""
        return None

    def remember(self, batch: Batch) -> None:
        """Take demonstrations, as a step that was played before the first one."""

    def metrics(self, step: int) -> dict[str, float]:
        """Return what is worth logging once a step."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what is remembered: what JSON holds, and tensors."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` returned."""


class Chain:
    """A base and the methods on it, as one.

    Args:
        name: What the user called it; a checkpoint is resumed under the same name only.
        links: The base first.
        reward: What trajectories are rewarded for.
    """

    def __init__(
        self, name: str, links: Iterable[Method[Any]], reward: RewardOptions | None = None
    ) -> None:
        self.name = name
        self.links = tuple(links)
        self._reward = RewardOptions() if reward is None else reward

    @property
    def needs(self) -> Need:
        """What any link needs."""
        needs = Need.NOTHING
        for link in self.links:
            needs |= link.needs
        return needs

    @property
    def answers(self) -> AnswerOptions | None:
        """How gold answers are scored; None where no link needs it."""
        wanted = (link.answers for link in self.links if Need.ANSWER_SCORES in link.needs)
        return next(wanted, None)

    def collect(self, group_size: int, seed: str, step: int) -> Branching | None:
        """Return what plans the episodes of a round of play; None plays flat groups."""
        branching: Branching | None = None
        for link in self.links:
            branching = link.collect(branching, group_size, seed, step)
        return branching

    def gather(self, ranks: Ranks, step: int) -> None:
        """Let each link bring together what the processes noted while they played."""
        for link in self.links:
            link.gather(ranks, step)

    def turn_rewards(self, groups: Sequence[Group], step: int) -> Rewards:
        """Return the rewards of each turn, as named parts (see :func:`outcome_rewards`)."""
        rewards = outcome_rewards(groups, self._reward)
        for link in self.links:
            rewards = link.turn_rewards(groups, rewards, step)
        return rewards

    def select(self, selection: Selection, step: int) -> Selection:
        """Return what stays of the groups played so far, and how many more are wanted."""
        for link in self.links:
            selection = link.select(selection, step)
        return selection

    def advantages(self, batch: Batch, step: int) -> Batch:
        """Return the batch with the credit of each token."""
        for link in self.links:
            batch = link.advantages(batch, step)
        return batch

    def prepare(self, batch: Batch, step: int) -> None:
        """Let each link note what its loss needs to know of the whole step."""
        for link in self.links:
            link.prepare(batch, step)

    def hold_back(self, mini_batch: Batch, logprob_BT: Tensor, step: int) -> Tensor:
        """Return which tokens of a mini-batch get no gradient of the surrogate, as booleans."""
        held_BT = torch.zeros(mini_batch.mask_BT.shape, dtype=torch.bool)
        for link in self.links:
            held_BT = link.hold_back(mini_batch, logprob_BT, held_BT, step)
        return held_BT

    def loss(self, forward: Forward) -> Loss:
        """Return the loss of some rows."""
        loss = Loss()
        for link in self.links:
            loss = link.loss(forward, loss)
        return loss

    def replay(self, step: int) -> list[tuple[Batch, float]]:
        """Return what the links want to train on too."""
        return [item for link in self.links for item in link.replay(step)]

    def observe(self, batch: Batch, step: int) -> None:
        """Let each link remember what later steps need."""
        for link in self.links:
            link.observe(batch, step)

    def metrics(self, step: int) -> dict[str, float]:
        """Return what the links want logged once a step."""
        metrics: dict[str, float] = {}
        for link in self.links:
            metrics |= link.metrics(step)
        return metrics

    def options(self) -> dict[str, Any]:
        """Return the settings of all links, as JSON holds them, by link."""
        return {link.name: link.options.model_dump(mode="json") for link in self.links}

    def state(self) -> dict[str, Any]:
        """Return what the links remember, by link: what JSON holds, and tensors."""
        return {link.name: link.state() for link in self.links}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        for link in self.links:
            link.load_state(state[link.name])


def outcome_rewards(groups: Sequence[Group], options: RewardOptions) -> Rewards:
    """Return the outcome at each trajectory's last turn, and the format penalty where it falls."""
    outcome: list[list[float]] = []
    penalty: list[list[float]] = []
    for trajectory in (t for group in groups for t in group.trajectories):
        result = float(trajectory.won) if options.outcome == "won" else trajectory.score
        quiet = [0.0] * (len(trajectory.turns) - 1)
        outcome.append([*quiet, options.scale * result] if trajectory.turns else [])
        penalty.append(
            [0.0 if t.parse_error is None else -options.format_penalty for t in trajectory.turns]
        )
    return {"outcome": outcome, "format": penalty}
