"""How long a process of a run may have to wait for another, where nobody said it."""

from __future__ import annotations

from math import ceil

from agentgym.config import Config
from agentgym.trainers.sharding import LEAST_WAIT_S

STEP_S = 60.0
"""Seconds that a step of an environment may take, as workers have it."""

MOST_TURNS = 100
"""Of an episode in an environment that is left to its own limit."""


def longest_wait(config: Config) -> float:
    """Return the seconds after which a process may count another as lost.

    One may play all episodes of a step, or all held-out ones, while the others wait: so many turns,
    each of them as long as an answer and a step of the environment may take, for as many rounds
    as the servers need for all episodes, and the time for a server to come back, once.
    Turns that are asked again are left out: where servers fail often, set ``parallel.timeout``.
    Never less than an hour, for what has no limit of its own, as a checkpoint.
    """
    rollout, server, serve = config.rollout, config.policy.server, config.policy.serve
    played = rollout.tasks_per_step * rollout.group_size
    asked = server.in_flight * (len(server.urls) if serve is None else serve.replicas)
    rounds = [ceil(episodes / (asked or episodes)) for episodes in (played, config.eval.tasks)]
    turns = max(env.max_turns or MOST_TURNS for env in config.envs.values())
    longest = max(rounds[0], rounds[1] * len(config.eval.suites))
    patience = server.patience if serve is None else server.patience_of_started(serve.patience)
    return max(LEAST_WAIT_S, longest * turns * (server.timeout + STEP_S) + patience)
