"""The values that cross storeys: tasks and suites, what an environment says, how episodes end.

Standard library only. Everything here is frozen: a value that was handed over does not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypedDict


class Stop(StrEnum):
    """Why an episode ended. Every episode has exactly one."""

    TERMINATED = "terminated"  # the environment ended it: won, lost or bought
    TURNS = "turns"  # out of turns
    TOKENS = "tokens"  # the context has no room for another turn
    INVALID = "invalid"  # the protocol ends on bad format
    ERROR = "error"  # a fault of the environment's own; never counted as a reward of 0


class Info(TypedDict, total=False):
    """What an environment says beside the observation, after every reset and step.

    ``task_id``, ``task_type``, ``goal``, ``won``, ``score``, ``admissible`` and ``anchor`` are
    always there; the others only where the environment has them.
    """

    task_id: str
    task_type: str
    goal: str  # the task in one sentence
    won: bool
    score: float  # the benchmark's own, in [0, 1]
    admissible: bool  # did the environment know the last action; True after a reset
    admissible_actions: tuple[str, ...]
    anchor: str  # the observation without history, the same in the same state
    answer: str  # the gold answer; never shown to the policy


@dataclass(frozen=True, slots=True)
class Suite:
    """One fixed set of tasks under one name, each task exactly once.

    ``name`` is ``environment/set``. ``official`` tells the published test sets from generated
    ones, whose scores are not comparable with published numbers.
    """

    name: str
    tasks: tuple[str, ...]
    official: bool
    held_out: bool  # never trained on
    about: str

    @property
    def digest(self) -> str:
        """SHA-256 over the task ids in order, in hexadecimal."""
        return hashlib.sha256("\n".join(self.tasks).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Enough to bring an episode back: what it was started with and every action since."""

    suite: str
    task: str
    seed: int
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """How to build an environment anywhere: its registered name and its options.

    Picklable, so that a worker process can build its own copy.
    """

    name: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What a policy that acts on text sees before a turn."""

    observation: str
    goal: str
    turn: int  # 0 at the first
    admissible_actions: tuple[str, ...] | None  # None where the environment names none
    expert_action: str | None  # None unless the policy declared that it needs it


class TextPolicy(Protocol):
    """A policy that answers with an action in text: random, expert, replay, a person.

    ``needs_expert`` declares that :attr:`View.expert_action` must be there, so that policies
    know no environment.
    """

    name: str
    needs_expert: bool

    def begin(self, task: str, seed: int) -> None:
        """Start an episode; every random draw of it comes from ``seed`` and ``task``."""

    def act(self, view: View) -> str:
        """Return the next action."""
