"""The contract of a text environment: a Gymnasium environment whose language is text.

A new environment subclasses :class:`TextEnv`, names its suites, and says how an episode begins
and what an action does. Everything that all environments must do alike lives here: choosing the
task, counting turns, telling *terminated* from *truncated*, refusing steps out of turn, snapshot
and restore, closing twice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import gymnasium
from gymnasium import spaces

from agentgym.download import DataSet
from agentgym.errors import EpisodeError, UsageError, unknown
from agentgym.types import Info, Snapshot, Suite


class TextSpace(spaces.Space[str]):
    """Every string; Gymnasium's own ``Text`` has a length limit and rejects spaces."""

    def __init__(self) -> None:
        super().__init__(shape=None, dtype=None)

    @property
    def is_np_flattenable(self) -> bool:
        """Text has no fixed-size array form."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Return a short random string, which is hardly ever an action that means something."""
        if mask is not None or probability is not None:
            raise UsageError("TextSpace.sample takes no mask or probability: text has no support")
        letters = "abcdefghijklmnopqrstuvwxyz "
        size = int(self.np_random.integers(1, 12))
        return "".join(letters[i] for i in self.np_random.integers(0, len(letters), size))

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is a string."""
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace)

    def __hash__(self) -> int:
        return hash(TextSpace)

    def __repr__(self) -> str:
        return "TextSpace()"


def check_text(name: str, value: object) -> None:
    """Refuse an option that should be a text and is none: a command line reads 2024 as a number.

    Raises:
        UsageError: It is neither a text nor None.
    """
    if not isinstance(value, str | None):
        raise UsageError(f"{name} is a text, got {value!r}; write a path as ./{value}")


class Outcome(NamedTuple):
    """What one action did, before turns are counted."""

    observation: str
    reward: float
    terminated: bool
    info: Info


class TextEnv(gymnasium.Env[str, str]):
    """A text environment.

    Args:
        suite: Which set of tasks episodes are drawn from, ``environment/set``; None takes
            :attr:`default_suite`.
        max_turns: Actions an episode may take before it is truncated; None takes
            :attr:`default_max_turns`.

    Raises:
        UsageError: An unknown suite or task, or ``max_turns`` below 1.
        DataError: The suite's data is not there.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium declares it so)

    name: ClassVar[str]
    """The registered name, and what suite names begin with."""
    default_suite: ClassVar[str]
    default_max_turns: ClassVar[int]
    needs_process: bool = False
    """Whether each copy must live in a process of its own (it keeps global state, or leaks)."""
    copies_per_process: ClassVar[int | None] = None
    """How many copies a process should hold at once, where each is heavy; None is any number."""
    has_expert: ClassVar[bool] = False
    has_answer: ClassVar[bool] = False
    """Whether every info has the gold ``answer``."""

    def __init__(self, suite: str | None = None, max_turns: int | None = None) -> None:
        if max_turns is not None and max_turns < 1:
            raise UsageError(f"max_turns is {max_turns}; an episode needs at least 1 turn")
        self.observation_space = TextSpace()
        self.action_space = TextSpace()
        self.max_turns = self.default_max_turns if max_turns is None else max_turns
        self.suite = self.load_suite(self.default_suite if suite is None else suite)
        self._tasks = frozenset(self.suite.tasks)
        self._task: str | None = None
        self._seed = 0
        self._actions: list[str] = []
        self._over = True
        self._closed = False

    # What an environment must say -------------------------------------------------------------

    @classmethod
    @abstractmethod
    def suite_names(cls) -> tuple[str, ...]:
        """Return the name of every suite, whether or not its data is there."""

    @classmethod
    def data_sets(cls) -> Mapping[str, DataSet]:
        """Return what ``agentgym envs download`` can fetch, by name, the default first."""
        return {}

    @abstractmethod
    def load_suite(self, name: str) -> Suite:
        """Return a suite of this environment.

        Raises:
            UsageError: No such suite (see :meth:`unknown_suite`).
            DataError: The suite's data is not there; the message says how to get it.
        """

    @abstractmethod
    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        """Start ``task`` and return its first observation.

        Args:
            task: A task id of the suite.
            seed: Where every random draw of the episode comes from.
        """

    @abstractmethod
    def act(self, action: str) -> Outcome:
        """Do ``action``. An action that the environment does not know is an outcome too."""

    def task_type(self, task: str) -> str:
        """Return the type of a task of the suite, known without starting it.

        The same as ``info["task_type"]``; the name of the environment where all tasks are alike.
        """
        return self.name

    def expert(self) -> str | None:
        """Return the action an expert takes now, or None when it knows none."""
        return None

    # What all environments do alike -----------------------------------------------------------

    @classmethod
    def unknown_suite(cls, name: str) -> UsageError:
        """Return the error for a suite name that this environment does not have."""
        return unknown("suite", name, cls.suite_names())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seeds the draw of a task and every draw of the episode. None draws from the
                generator that an earlier seed set.
            options: ``{"task": id}`` asks for one task; without it a task of the suite is drawn.

        Returns:
            The first observation and the info (see :class:`agentgym.types.Info`).

        Raises:
            UsageError: An unknown option or task.
            EpisodeError: The environment is closed.
        """
        self._refuse_closed()
        super().reset(seed=seed)
        wanted = dict(options or {})
        task = wanted.pop("task", None)
        if wanted:
            raise unknown("reset option", next(iter(wanted)), ["task"])
        if task is None:
            task = self.suite.tasks[int(self.np_random.integers(len(self.suite.tasks)))]
        episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        return self._start(task, episode_seed)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise EpisodeError(f"{self.name} is closed; make a new environment")

    def _start(self, task: object, seed: int) -> tuple[str, dict[str, Any]]:
        if not isinstance(task, str) or task not in self._tasks:
            raise unknown(f"task of suite {self.suite.name}", str(task), self.suite.tasks)
        self._over = True  # a begin that fails leaves no half-started episode behind
        observation, info = self.begin(task, seed)
        self._task, self._seed = task, seed
        self._actions.clear()
        self._over = False
        return observation, dict(info)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one turn.

        Returns:
            Observation, the benchmark's own reward, terminated (the task is over), truncated
            (out of turns, and not terminated), info.

        Raises:
            EpisodeError: No episode is running.
        """
        if self._over:
            raise EpisodeError(f"no episode of {self.name} is running; call reset first")
        if not isinstance(action, str):
            raise EpisodeError(f"an action is a string, got {type(action).__name__}")
        outcome = self.act(action)
        self._actions.append(action)
        truncated = not outcome.terminated and len(self._actions) >= self.max_turns
        self._over = outcome.terminated or truncated
        return (
            outcome.observation,
            outcome.reward,
            outcome.terminated,
            truncated,
            dict(outcome.info),
        )

    def snapshot(self) -> Snapshot:
        """Return what brings this episode back, here or in another copy.

        Raises:
            EpisodeError: No episode was started.
        """
        if self._task is None:
            raise EpisodeError(f"no episode of {self.name} was started; call reset first")
        return Snapshot(self.suite.name, self._task, self._seed, tuple(self._actions))

    def restore(self, snapshot: Snapshot) -> tuple[str, dict[str, Any]]:
        """Bring an episode back by its seed and actions; return the last observation and info.

        Raises:
            UsageError: The snapshot is of another suite, or of a task that the suite has not.
            EpisodeError: The environment is closed, or the episode had already ended.
        """
        self._refuse_closed()
        if snapshot.suite != self.suite.name:
            raise UsageError(
                f"the snapshot is of suite {snapshot.suite}, this environment plays"
                f" {self.suite.name}; make one with suite={snapshot.suite!r}"
            )
        observation, info = self._start(snapshot.task, snapshot.seed)
        for action in snapshot.actions:
            observation, _, _, _, info = self.step(action)
        return observation, info

    def close(self) -> None:
        """Release what the environment holds. Closing twice is the same as closing once."""
        self._over = True
        self._closed = True
