"""Demonstrations: a demonstrator's episodes as the tokens that a policy reads and writes.

A demonstrator that is never wrong teaches nothing about what to do after a mistake: a model that
copied only such episodes takes one wrong step and never finds back. So some of its actions are
replaced by *slips*. Their true consequences are in the transcript and the demonstrator goes on
from there, but they are never to be learnt.

Prompt and tokens come from the same conversation as in a rollout, so that what is cloned is
token by token what will be read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

from agentgym.envs.base import TextEnv
from agentgym.errors import UsageError
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import Prompt
from agentgym.types import Row, Sample, View

KNOWN_SLIPS = 1 / 3
"""The share of slips that the environment knows: a detour, not a mistake."""


class Player(Protocol):
    """Plays one episode, knowing no more than a policy could know."""

    def act(self, observation: str, admissible: tuple[str, ...]) -> str:
        """Return the next action."""


@runtime_checkable
class Slipping(Protocol):
    """A player that knows what mistakes look like, where no list of actions tells."""

    def slip(self) -> str:
        """Return a mistake that somebody in its place could make."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One turn of a demonstration."""

    view: View
    action: str
    slip: bool  # not the demonstrator's action; not to be learnt


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode, whole."""

    task: str
    turns: tuple[Shown, ...]
    won: bool


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """An endless, numbered sequence of demonstrations, each a function of its number alone.

    Every ``len(env.suite.tasks)`` of them go once through all tasks, in an order of their own; a
    task that comes again is played again, with other draws.

    Args:
        env: Where to play; its suite is what there is to learn from.
        demonstrator: Makes the player of one episode from its goal.
        tasks: Tasks of the suite.
        seed: Where all draws come from, together with the number.
        slips: Chances of an action being a slip. Each episode draws one, so that there are
            clean episodes and bad ones.

    Raises:
        UsageError: The suite is held out.
    """

    env: TextEnv
    demonstrator: Callable[[str, random.Random], Player]
    tasks: tuple[str, ...]
    seed: int
    slips: tuple[float, ...] = (0.0, 0.1, 0.25)

    def __post_init__(self) -> None:
        if self.env.suite.held_out:
            raise UsageError(f"{self.env.suite.name} is held out: nothing is learnt from it")

    def __getitem__(self, number: int) -> Demonstration:
        """Play the demonstration of that number."""
        again, position = divmod(number, len(self.tasks))
        task = _order(self.tasks, f"{self.seed}:order:{again}")[position]
        return self._play(task, random.Random(f"{self.seed}:{number}"))

    def _play(self, task: str, rng: random.Random) -> Demonstration:
        chance = rng.choice(self.slips)
        observation, info = self.env.reset(seed=rng.randrange(2**31), options={"task": task})
        player = self.demonstrator(info["goal"], rng)
        known: set[str] = set()  # everything that was admissible at some time
        turns: list[Shown] = []
        over = False
        while not over:
            can = info.get("admissible_actions")
            known.update(can or ())
            action = player.act(observation, can or ())
            slip = rng.random() < chance
            if slip:
                action = _mistake(player, rng, can, sorted(known))
            view = View(observation, info["goal"], len(turns), can, None)
            turns.append(Shown(view, action, slip))
            observation, _, terminated, truncated, info = self.env.step(action)
            over = terminated or truncated
        return Demonstration(task, tuple(turns), info["won"])


def row_of(demonstration: Demonstration, script: Script) -> Row:
    """Return a demonstration as the tokens of a rollout.

    In the row, ``turns`` is -1 on slips as it is on what the environment said.

    Raises:
        UsageError: The script is not that of a model that answers with an action only and keeps
            the whole conversation.
    """
    template, context = script.prompt.template, script.prompt.context
    if template.format.name != "plain" or context.window is not None:
        raise UsageError(
            f"demonstrations need a plain template and the context full, got {template.name} and"
            f" {context}"
        )
    conversation = script.begin()
    for shown in demonstration.turns:
        conversation.observe(shown.view)
        conversation.say(_said(script, shown.action))
    (row,) = conversation.rows()
    slips = {number for number, shown in enumerate(demonstration.turns) if shown.slip}
    return replace(row, turns=tuple(-1 if turn in slips else turn for turn in row.turns))


def texts_of(demonstration: Demonstration, prompt: Prompt) -> Iterator[str]:
    """Yield what is read and written in a demonstration, for a tokenizer to be trained on."""
    for shown in demonstration.turns:
        messages = prompt.reply(shown.view) if shown.view.turn else prompt.opening(shown.view)[-1]
        yield messages["content"]
        yield shown.action


@lru_cache(maxsize=2)
def _order(tasks: tuple[str, ...], seed: str) -> list[str]:
    order = list(tasks)
    random.Random(seed).shuffle(order)
    return order


def _said(script: Script, action: str) -> Sample:
    ids = script.chat.said_ids(action)
    return Sample(ids, (0.0,) * len(ids), None, "stop", 0)


def _mistake(
    player: Player, rng: random.Random, admissible: Sequence[str] | None, known: Sequence[str]
) -> str:
    """Return what the player would do wrong, or something wrong with actions that were named."""
    if isinstance(player, Slipping):
        return player.slip()
    if not admissible:
        raise UsageError(
            "the environment names no actions to draw slips from, and its demonstrator has none;"
            " demonstrate without slips: 0"
        )
    return _slip(rng, admissible, known)


def _slip(rng: random.Random, admissible: Sequence[str], known: Sequence[str]) -> str:
    """Return an action that the environment knows now, or one that it knew or might know."""
    if rng.random() < KNOWN_SLIPS:
        return rng.choice(admissible)
    stale = [action for action in known if action not in admissible]
    if stale and rng.random() < 0.5:
        return rng.choice(stale)
    return _mixed(rng, known)


def _mixed(rng: random.Random, known: Sequence[str]) -> str:
    """Return a mixture of two known actions that begin alike, word by word."""
    one = rng.choice(known).split()
    alike = [two for two in map(str.split, known) if two[0] == one[0] and len(two) == len(one)]
    return " ".join(rng.choice(words) for words in zip(one, rng.choice(alike), strict=True))
