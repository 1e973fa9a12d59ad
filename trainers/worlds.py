"""The environments that a run trains in, each with what its episodes need.

A step's tasks come from all of them; a task is played in its own, so a group never mixes two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentgym.policies.conversation import Conversation
from agentgym.trainers.answer_scores import AnswerScorer
from agentgym.trainers.collect import Play
from agentgym.trainers.decks import Deck
from agentgym.types import Group, Trajectory
from agentgym.workers import WorkerPool


@dataclass(frozen=True, slots=True)
class World:
    """An environment of a run.

    Attributes:
        name: The environment's.
        deck: The tasks that are trained on.
        pool: Where episodes are played.
        conversation: Makes the token bookkeeping of an episode, with the environment's prompt.
        answers: Scores gold answers, where the method needs to know how likely they are.
    """

    name: str
    deck: Deck
    pool: WorkerPool
    conversation: Callable[[], Conversation]
    answers: AnswerScorer | None = None


PlayIn = Callable[[World, Sequence[str]], tuple[list[Group], list[Trajectory]]]
"""Plays one group for each task of a world; returns the groups, and the episodes that broke."""


def each_at_home(worlds: Sequence[World], play: PlayIn) -> Play:
    """Return what plays each task in its own world, one world after the other."""

    def everywhere(tasks: Sequence[str]) -> tuple[list[Group], list[Trajectory]]:
        groups: list[Group] = []
        broken: list[Trajectory] = []
        for world in worlds:
            own = sorted(set(world.deck.tasks).intersection(tasks))
            if own:
                found, faults = play(world, own)
                groups += found
                broken += faults
        return groups, broken

    return everywhere


def answers_at_home(worlds: Sequence[World], groups: Sequence[Group], seed: str) -> list[Group]:
    """Return the groups with what each one's world says about gold answers, world by world.

    Args:
        worlds: Those that have no scorer leave their groups as they are.
        groups: In the order in which :func:`each_at_home` returns them.
        seed: Where the environments of their episodes had their seeds from.
    """
    scored: list[Group] = []
    for world in worlds:
        own = [group for group in groups if group.task in world.deck.tasks]
        scored += own if world.answers is None else world.answers(own, world.pool, seed)
    return scored
