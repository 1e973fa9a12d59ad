"""An episode that can be gone back in, gone on with in another way, and kept as a demonstration.

Knows no terminal: what is typed and shown is :mod:`agentgym.play`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from agentgym.envs.base import TextEnv
from agentgym.errors import UsageError
from agentgym.types import Key, Sample, Snapshot, Stop, Trajectory, Turn, View


@dataclass(frozen=True, slots=True)
class Taken:
    """One turn that was taken, and what came of it."""

    view: View
    text: str  # what was said
    action: str
    parse_error: str | None
    admissible: bool
    reward: float
    anchor: str  # of the observation that was answered
    sample: Sample | None  # the model's tokens; None where somebody else acted


@dataclass(frozen=True, slots=True)
class Branch:
    """A way that was taken and left."""

    snapshot: Snapshot
    taken: tuple[Taken, ...]
    truncated: bool
    score: float
    over: bool


class Game:
    """One episode of an environment.

    Args:
        env: What is played; the caller closes it.

    Attributes:
        view: What is seen now.
        info: What the environment said beside it.
        taken: The turns so far.
        over: Whether the episode is over.
        truncated: Whether it is over because it ran out of turns.
        branches: The ways that were left, oldest first.
    """

    def __init__(self, env: TextEnv) -> None:
        self.env = env
        self.info: dict[str, Any] = {}
        self.taken: tuple[Taken, ...] = ()
        self.branches: list[Branch] = []
        self.over = True
        self.truncated = False

    def start(self, task: str | None, seed: int) -> None:
        """Start an episode; None draws a task of the suite.

        Raises:
            UsageError: The suite has no such task.
        """
        options = None if task is None else {"task": task}
        observation, self.info = self.env.reset(seed=seed, options=options)
        self.over = self.truncated = False
        self.taken, self.branches = (), []
        self.view = self._view(observation)

    def act(
        self, action: str, text: str, parse_error: str | None = None, sample: Sample | None = None
    ) -> Taken:
        """Take a turn and return it.

        Args:
            action: What is sent to the environment.
            text: What was said.
            parse_error: Why the text does not follow the action format.
            sample: The tokens of the text, where a model said it.
        """
        before, anchor = self.view, self.info["anchor"]
        observation, reward, terminated, self.truncated, self.info = self.env.step(action)
        self.over = terminated or self.truncated
        admissible = self.info["admissible"]
        taken = Taken(before, text, action, parse_error, admissible, reward, anchor, sample)
        self.taken = (*self.taken, taken)
        self.view = self._view(observation)
        return taken

    def back_to(self, turn: int) -> None:
        """Go back to where so many turns were taken; the way that is left becomes a branch.

        Raises:
            UsageError: There are not so many.
        """
        if not 0 <= turn < len(self.taken):
            raise UsageError(f"there is no turn {turn} to go back to; {len(self.taken)} were taken")
        self._leave()
        snapshot = self.env.snapshot()
        kept = replace(snapshot, actions=snapshot.actions[:turn])
        self._restore(kept, self.taken[:turn], truncated=False, over=False)

    def switch(self, number: int) -> None:
        """Go to the end of a branch, counted from 1; the way that is left becomes one.

        Raises:
            UsageError: There is no such branch.
        """
        if not 1 <= number <= len(self.branches):
            raise UsageError(f"there is no branch {number}; :branches lists {len(self.branches)}")
        branch = self.branches.pop(number - 1)
        self._leave()
        self._restore(branch.snapshot, branch.taken, truncated=branch.truncated, over=branch.over)

    def trajectory(self) -> Trajectory:
        """Return the episode as a demonstration.

        Raises:
            UsageError: It is not over.
        """
        if not self.over:
            raise UsageError("only a whole episode is a demonstration; finish it first")
        return Trajectory(
            key=Key(self.info["task_id"], 0),
            suite=self.env.suite.name,
            task_type=self.info["task_type"],
            goal=self.info["goal"],
            turns=tuple(map(_turn, self.taken)),
            rows=(),
            stop=Stop.TURNS if self.truncated else Stop.TERMINATED,
            won=self.info["won"],
            score=self.info["score"],
            answer=self.info.get("answer"),
        )

    def _leave(self) -> None:
        """Keep the way so far, unless it is the beginning of one that is kept already."""
        actions = self.env.snapshot().actions
        others = (branch.snapshot.actions for branch in self.branches)
        if actions and not any(other[: len(actions)] == actions for other in others):
            snapshot, score = self.env.snapshot(), self.info["score"]
            branch = Branch(snapshot, self.taken, self.truncated, score, self.over)
            self.branches.append(branch)

    def _restore(
        self, snapshot: Snapshot, taken: tuple[Taken, ...], *, truncated: bool, over: bool
    ) -> None:
        observation, self.info = self.env.restore(snapshot)
        self.taken, self.truncated, self.over = taken, truncated, over
        self.view = self._view(observation)

    def _view(self, observation: str) -> View:
        return View.of(observation, self.info, len(self.taken))


def _turn(taken: Taken) -> Turn:
    return Turn(
        observation=taken.view.observation,
        text=taken.text,
        action=taken.action,
        parse_error=taken.parse_error,
        admissible=taken.admissible,
        reward=taken.reward,
        anchor=taken.anchor,
    )
