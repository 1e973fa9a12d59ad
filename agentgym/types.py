"""The values that cross storeys: tasks and suites, what an environment says, how episodes end.

Standard library only. Everything here is frozen: a value that was handed over does not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, TypedDict


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
    templates: tuple[str, ...]  # in place of too many admissible actions: OBJ stands for an object
    objects: tuple[str, ...]  # what OBJ may stand for now
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
        """SHA-256 over the name and the task ids in order, in hexadecimal."""
        return hashlib.sha256("\n".join((self.name, *self.tasks)).encode()).hexdigest()


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
class Request:
    """One turn to be sampled.

    ``session`` names the episode, so that a policy may keep what it computed for the earlier
    turns. ``seed`` is where every draw of this turn comes from, so that the turn is the same in
    whatever order turns are asked for.
    """

    session: str
    ids: tuple[int, ...]  # the whole context
    max_tokens: int
    temperature: float
    seed: str
    stop: tuple[str, ...] = ()  # strings that end the turn; they stay in it
    top_k: int | None = None  # entropies of the k likeliest tokens and one lumped tail
    # A turn may be sampled in pieces: how many of the ids, at their end, are the turn's own. Its
    # draws and its stop strings go on from there, so that the pieces are the turn sampled at once.
    begun: int = 0

    @property
    def said(self) -> tuple[int, ...]:
        """The ids that are the turn's own already."""
        return self.ids[len(self.ids) - self.begun :]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled turn. Log-probabilities and entropies are of logits / temperature, in nats."""

    ids: tuple[int, ...]  # ends with the end-of-turn token unless it was cut
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...] | None  # None where the policy does not know them
    finish: Literal["stop", "length"]
    version: int  # of the weights that sampled it
    faults: int = 0  # outside faults that were healed while it was sampled
    earlier: tuple[int, ...] = ()  # versions of its first tokens, where those were a piece before

    @property
    def versions(self) -> tuple[int, ...]:
        """Of the weights that sampled each token."""
        return self.earlier + (self.version,) * (len(self.ids) - len(self.earlier))


class Policy(Protocol):
    """A language model that acts in tokens.

    ``pacing`` tells the rollout how to ask: a policy in ``rounds`` is asked for the turns of all
    unfinished episodes at once, in a fixed order, so that its batches are a function of seed and
    data; a ``free`` one is asked for each episode's turn as soon as that episode needs it.
    """

    pacing: Literal["rounds", "free"]
    version: int
    max_context: int  # tokens, prompt and sample together

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        """Sample one turn for each request, in the order of the requests.

        A sample that ended by ``length`` may be continued: ask again with its ids appended, and
        say in ``begun`` how many they are.
        """

    async def score(self, ids: Sequence[Sequence[int]], start: Sequence[int]) -> list[list[float]]:
        """Return log-probabilities at temperature 1 of each row's tokens from ``start`` on."""

    def load(self, path: str, version: int) -> None:
        """Take the weights of a model folder; what was kept for older weights is dropped."""

    def fork(self, session: str, copy: str) -> None:
        """Let ``copy`` begin with what is kept for ``session``."""

    def drop(self, session: str) -> None:
        """Forget a session. Dropping one that is not there does nothing."""

    def close(self) -> None:
        """Release what the policy holds. Closing twice is the same as closing once."""


@dataclass(frozen=True, slots=True)
class Row:
    """One unbroken token sequence, as it was sampled.

    All fields have one entry a token. A context that only grows gives one row a trajectory; a
    context rebuilt at each turn gives one row a turn.
    """

    ids: tuple[int, ...]
    turns: tuple[int, ...]  # the turn whose sample the token belongs to; -1 where none does
    logprobs: tuple[float, ...]  # of the behaviour policy; 0 where turns is -1
    versions: tuple[int, ...]  # of the weights that sampled the token; -1 where turns is -1


@dataclass(frozen=True, slots=True)
class Turn:
    """One observation and what was answered."""

    observation: str
    text: str  # what the policy said
    action: str  # what was sent to the environment
    parse_error: str | None  # why the text did not follow the action format
    admissible: bool  # did the environment know the action
    reward: float  # the environment's own
    anchor: str  # of the observation that the policy saw


PILOT = -1
"""The member that is played before a group, to plan it, and is not one of the group."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which trajectory of a step: sorting by it gives the order of the batch."""

    task: str
    member: int
    branch: int = 0  # 0 where the episode began at the task's first observation


class Branching(Protocol):
    """Which episodes the groups of a step have: fresh ones, and others that branch off from them.

    Rollout looks at the first tokens that an episode says after an observation, and asks whether
    others shall branch off *before* those tokens: in the same state, with a turn of their own.
    """

    look_ahead: int  # tokens of a turn that are looked at
    top_k: int  # of whose entropies (see Request.top_k)

    def fresh(self, task: str) -> Sequence[Key]:
        """Return the episodes of a task that begin now, at its first observation.

        Asked at first, and whenever no episode of the task is under way, until there are none.
        """

    def looks(self, key: Key, turn: int) -> bool:
        """Return whether the first tokens of an episode's turn are looked at."""

    def branches(self, key: Key, turn: int, entropies: Sequence[float]) -> Sequence[Key]:
        """Take the entropies of the first tokens of a turn; return the episodes that branch off.

        A policy in rounds is looked at in the order of the keys; a free one as its turns come.
        """


@dataclass(frozen=True, slots=True)
class Usage:
    """What an endpoint counted for an episode, or for several."""

    requests: int = 0  # that were answered
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompts' that the endpoint had kept
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # of the completions'
    cost: float | None = None  # in the currency of the prices; None where there are none


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode, whole."""

    key: Key
    suite: str
    task_type: str
    goal: str
    turns: tuple[Turn, ...]
    rows: tuple[Row, ...]  # empty where the policy acts on text
    stop: Stop
    won: bool
    score: float  # the benchmark's own, in [0, 1]
    error: str | None = None  # why, where stop is error
    faults: int = 0  # outside faults that were healed
    parent: Key | None = None  # of an episode that branched off: from which one
    shared: int = 0  # how many of the turns are the parent's; their tokens are in rows too
    answer: str | None = None  # the gold answer, where the environment has one
    # How likely the gold answer was before each turn: the mean log-probability of its tokens,
    # NaN where a turn had none; empty where nobody scored it.
    answer_logprobs: tuple[float, ...] = ()
    usage: Usage | None = None  # what an endpoint counted


@dataclass(frozen=True, slots=True)
class Group:
    """The trajectories of one task, sorted by key."""

    task: str
    trajectories: tuple[Trajectory, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What a policy that acts on text sees before a turn."""

    observation: str
    goal: str
    turn: int  # 0 at the first
    admissible_actions: tuple[str, ...] | None  # None where the environment names none
    expert_action: str | None  # None unless the policy declared that it needs it
    templates: tuple[str, ...] = ()  # of actions, where the environment names those instead
    objects: tuple[str, ...] = ()  # what OBJ in a template may stand for

    @classmethod
    def of(
        cls, observation: str, info: Mapping[str, Any], turn: int, expert: str | None = None
    ) -> View:
        """Return what an environment shows, from what it said.

        Args:
            observation: After a reset or a step.
            info: Beside it; see :class:`Info`.
            turn: How many turns were taken.
            expert: What its expert would do; None where nobody is to know.
        """
        return cls(
            observation,
            info["goal"],
            turn,
            info.get("admissible_actions"),
            expert,
            info.get("templates", ()),
            info.get("objects", ()),
        )


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
