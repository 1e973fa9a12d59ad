"""Policies in text: at random, as the expert says, from a list, or as a person says."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agentgym.console import in_columns, say
from agentgym.errors import DataError, EnvFault, EpisodeError, UsageError, unknown
from agentgym.trajectory_line import read_lines
from agentgym.types import TextPolicy, View


class RandomPolicy:
    """Takes one of the admissible actions, each with the same probability.

    Where the environment names templates of actions instead, it takes one of those and puts any
    object in each place. Every turn draws from its own seed, so a turn does not depend on how
    earlier ones were drawn.
    """

    name = "random"
    needs_expert = False

    def __init__(self) -> None:
        self._episode = ""

    def begin(self, task: str, seed: int) -> None:
        """Start an episode."""
        self._episode = f"{seed}:{task}"

    def act(self, view: View) -> str:
        """Return a random admissible action.

        Raises:
            UsageError: The environment names no admissible actions.
        """
        draw = random.Random(f"{self._episode}:{view.turn}")
        if view.admissible_actions:
            return draw.choice(view.admissible_actions)
        if not view.templates:
            raise UsageError(
                "the random policy draws from the admissible actions, and this environment named"
                " none; choose another policy"
            )
        template = draw.choice(view.templates)
        return re.sub(r"\bOBJ\b", lambda _: draw.choice(view.objects), template)


class ExpertPolicy:
    """Does what the environment's expert would do."""

    name = "expert"
    needs_expert = True

    def begin(self, task: str, seed: int) -> None:
        """Start an episode; an expert draws nothing."""

    def act(self, view: View) -> str:
        """Return the expert's action.

        Raises:
            EnvFault: The environment's expert knows none here.
        """
        if view.expert_action is None:
            raise EnvFault(f"the environment's expert knows no action at turn {view.turn + 1}")
        return view.expert_action


class ReplayPolicy:
    """Takes a list of actions: the same in every episode, or one of each task's own.

    Args:
        actions: The list, or lists by task.
    """

    name = "replay"
    needs_expert = False

    def __init__(self, actions: Sequence[str] | Mapping[str, Sequence[str]]) -> None:
        self._of_task = actions if isinstance(actions, Mapping) else None
        self._actions = () if isinstance(actions, Mapping) else tuple(actions)

    def begin(self, task: str, seed: int) -> None:
        """Start the task's list anew; a replay draws nothing.

        Raises:
            UsageError: There is none for the task.
        """
        if self._of_task is None:
            return
        if task not in self._of_task:
            raise UsageError(f"the replay has no actions for task {task}")
        self._actions = tuple(self._of_task[task])

    def act(self, view: View) -> str:
        """Return the action of this turn.

        Raises:
            EpisodeError: The list is at its end and the episode is not.
        """
        if view.turn >= len(self._actions):
            raise EpisodeError(
                f"the replay has {len(self._actions)} actions and the episode wants another"
            )
        return self._actions[view.turn]


class HumanPolicy:
    """Asks a person: shows what is there and takes a line, which is an action or its number.

    Args:
        read: Shows a prompt and returns the next line, None at the end of the input.
        show: Shows a line, or several.
    """

    name = "human"
    needs_expert = False

    def __init__(
        self,
        read: Callable[[str], str | None] | None = None,
        show: Callable[[str], None] = say,
    ) -> None:
        self._read = read or _read_line
        self._show = show

    def begin(self, task: str, seed: int) -> None:
        """Say which task begins; a person draws nothing."""
        self._show(f"task: {task}")

    def act(self, view: View) -> str:
        """Return what the person says; an empty line is asked again.

        Raises:
            UsageError: The input ended.
        """
        if view.turn == 0:
            self._show(f"goal: {view.goal}\n")
        self._show(view.observation)
        listed = view.admissible_actions or ()
        if listed:
            self._show(in_columns([f"{number:4} {a}" for number, a in enumerate(listed, 1)]))
        while (line := self._read(f"[turn {view.turn}] > ")) is not None:
            said = line.strip()
            if said.isdecimal() and said not in listed and 1 <= int(said) <= len(listed):
                return listed[int(said) - 1]
            if said:
                return said
        raise UsageError("the input ended in the middle of an episode, which does not count")


def _read_line(prompt: str) -> str | None:
    if sys.stdin.isatty():
        try:
            return input(prompt)
        except EOFError:
            return None
    line = sys.stdin.readline()
    say(f"{prompt}{line.rstrip()}")  # as if it were typed, so that the output is a transcript
    return line or None


SCRIPTED: Mapping[str, Callable[[], TextPolicy]] = {
    ExpertPolicy.name: ExpertPolicy,
    HumanPolicy.name: HumanPolicy,
    RandomPolicy.name: RandomPolicy,
}
"""The policies that need nothing but their name."""


def make_scripted(name: str) -> TextPolicy:
    """Build the policy called ``name``.

    Raises:
        UsageError: No scripted policy has that name.
    """
    if name not in SCRIPTED:
        raise unknown("policy", name, SCRIPTED)
    return SCRIPTED[name]()


def replay_of(path: Path) -> ReplayPolicy:
    """Return the replay of a file of episodes, one a line of JSON; the first of each task counts.

    Raises:
        DataError: The file cannot be read, or a line is no episode.
    """
    actions: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        try:
            said = [str(turn["action"]) for turn in line["turns"]]
            actions.setdefault(str(line["task"]), said)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number} is no episode: it needs a task, and turns with an action"
                " each"
            ) from error
    return ReplayPolicy(actions)
