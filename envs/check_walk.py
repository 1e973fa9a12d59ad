"""What the conformance suite is made of: random walks, comparisons, and demands.

The checks themselves are in :mod:`agentgym.envs.check`.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agentgym.envs.base import TextEnv
from agentgym.errors import AgentGymError
from agentgym.types import Snapshot

Turn = tuple[str, float, bool, bool, dict[str, Any]]
"""What a step returns."""

WEIRD_ACTIONS = (
    "",
    " ",
    "\n\t",
    "xyzzy 7\nplugh",
    "\u5f00\u95e8 \U0001f6aa \u202e\x00",
    "x" * 10_000,
)
"""Texts that no environment knows as an action, and that a model may say all the same."""

ALWAYS = {
    "task_id": str,
    "task_type": str,
    "goal": str,
    "won": bool,
    "score": float,
    "admissible": bool,
    "anchor": str,
}
"""What every info has, and of which type."""

SOMETIMES = {"admissible_actions": tuple, "templates": tuple, "objects": tuple, "answer": str}

_WALK = 10  # turns of a random walk
_TRIED = 3  # admissible actions tried in one state


class Violation(Exception):  # noqa: N818 (a finding about another's code, not an error of ours)
    """An environment does not do what the contract demands."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a check works with."""

    make: Callable[[], TextEnv]
    tasks: tuple[str, ...]  # the sample that is played
    seed: int

    @contextmanager
    def env(self) -> Iterator[TextEnv]:
        """Lend a new copy of the environment and close it."""
        env = self.make()
        try:
            yield env
        finally:
            env.close()

    def rng(self, task: str) -> random.Random:
        """Return the stream that random actions in ``task`` come from."""
        return random.Random(f"{self.seed}:check:{task}")


@dataclass(frozen=True, slots=True)
class Walk:
    """A random walk: ``turns[0]`` is the reset, ``turns[i]`` what ``actions[i - 1]`` did."""

    start: Snapshot
    actions: tuple[str, ...]
    turns: tuple[Turn, ...]

    def snapshot(self, number: int) -> Snapshot:
        """Return the snapshot after ``number`` actions."""
        start = self.start
        return Snapshot(start.suite, start.task, start.seed, self.actions[:number])

    def play(self, env: TextEnv, number: int) -> list[Turn]:
        """Take the first ``number`` actions in ``env``, from the reset on."""
        first = begin(env, self.start.task, self.start.seed)
        return [first, *(env.step(action) for action in self.actions[:number])]

    def again(self, env: TextEnv) -> list[Turn]:
        """Take all actions in ``env``, from the reset on."""
        return self.play(env, len(self.actions))


def begin(env: TextEnv, task: str, seed: int) -> Turn:
    """Reset to a task, in the form of a turn."""
    observation, info = env.reset(seed=seed, options={"task": task})
    return observation, 0.0, False, False, info


def walk(env: TextEnv, trial: Trial, task: str) -> Walk:
    """Walk at random from the start of a task."""
    rng = trial.rng(task)
    turns = [begin(env, task, trial.seed)]
    start = env.snapshot()
    actions: list[str] = []
    while len(actions) < _WALK and not over(turns[-1]):
        actions.append(_choose(env, turns[-1], rng))
        turns.append(env.step(actions[-1]))
    return Walk(start, tuple(actions), tuple(turns))


def _choose(env: TextEnv, turn: Turn, rng: random.Random) -> str:
    """Choose an admissible action, else a template, else the expert's; now and then nonsense."""
    if rng.random() < 0.2:
        return rng.choice(WEIRD_ACTIONS)
    actions = listed(turn)
    if actions:
        return rng.choice(actions)
    templates, objects = turn[4].get("templates"), turn[4].get("objects")
    if not templates or not objects:
        return env.expert() or "help"
    return re.sub(r"\bOBJ\b", lambda _: str(rng.choice(objects)), rng.choice(templates))


def listed(turn: Turn) -> tuple[str, ...]:
    """Return the actions that may be taken after a turn, as far as info names them."""
    return () if over(turn) else turn[4].get("admissible_actions", ())


def try_some(env: TextEnv, state: Snapshot, rng: random.Random, actions: Sequence[str]) -> None:
    """Demand of some actions that they are admissible in a state."""
    for action in rng.sample(actions, min(_TRIED, len(actions))):
        env.restore(state)
        *_, info = env.step(action)
        demand(info["admissible"], f"{action!r} is listed as admissible and then is not")


def check_turn(turn: Turn) -> None:
    """Demand that what a step returned has the types and ranges it should have."""
    said: tuple[Any, ...] = turn  # what it is declared to be is not what it must be
    observation, reward, terminated, truncated, info = said
    demand(isinstance(observation, str), f"the observation is {observation!r}, no string")
    demand(isinstance(reward, float | int) and math.isfinite(reward), f"the reward is {reward!r}")
    for flag in (terminated, truncated):
        demand(isinstance(flag, bool), f"terminated or truncated is {flag!r}, no bool")
    missing = ALWAYS.keys() - info.keys()
    demand(not missing, f"info has no {', '.join(sorted(missing))}")
    kinds = {**ALWAYS, **SOMETIMES}
    for key, value in info.items():
        demand(key in kinds, f"info has {key!r}, which agentgym.types.Info does not know")
        demand(
            isinstance(value, kinds[key]),
            f"info[{key!r}] is a {type(value).__name__}, expected {kinds[key].__name__}",
        )
    demand(0 <= info["score"] <= 1, f"the score is {info['score']}, expected 0 to 1")
    for key in ("admissible_actions", "templates", "objects"):
        named = info.get(key, ())
        demand(all(isinstance(one, str) for one in named), f"{key} has {named!r}")


def finish(env: TextEnv, turn: Turn, choose: Callable[[], str]) -> Turn:
    """Act until the episode is over, which it must be after ``max_turns``; return its last turn."""
    for _ in range(env.max_turns):
        if over(turn):
            return turn
        turn = env.step(choose())
    demand(over(turn), f"the episode goes on after {env.max_turns} turns, which is max_turns")
    return turn


def over(turn: Turn) -> bool:
    """Return whether the episode ended with this turn."""
    return turn[2] or turn[3]


def same(expected: Sequence[Turn], got: Sequence[Turn], where: str) -> None:
    """Demand that two transcripts are alike."""
    names = ("observation", "reward", "terminated", "truncated", "info")
    for number, (first, second) in enumerate(zip(expected, got, strict=True)):
        for name, one, two in zip(names, first, second, strict=True):
            demand(one == two, f"{name} {number} turns on is {two!r} {where}, was {one!r}")


def expect(kind: type[AgentGymError], what: str, act: Callable[[], object]) -> None:
    """Demand that ``act`` raises an error of ``kind``."""
    try:
        act()
    except kind:
        return
    raise Violation(f"{what} is not refused; expected {kind.__name__}")


def demand(holds: bool, otherwise: str) -> None:
    """Raise a violation that says ``otherwise`` unless something holds."""
    if not holds:
        raise Violation(otherwise)
