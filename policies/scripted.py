"""Policies that act by a rule: at random, as the expert says, or from a list."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from agentgym.errors import EnvFault, EpisodeError, UsageError, unknown
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
    """Takes the same list of actions in every episode."""

    name = "replay"
    needs_expert = False

    def __init__(self, actions: Sequence[str]) -> None:
        self._actions = tuple(actions)

    def begin(self, task: str, seed: int) -> None:
        """Start the list anew; a replay draws nothing."""

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


SCRIPTED: Mapping[str, Callable[[], TextPolicy]] = {
    ExpertPolicy.name: ExpertPolicy,
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
