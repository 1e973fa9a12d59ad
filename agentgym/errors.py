"""The errors that agentgym raises, and what each one means to whoever catches it.

Every message says what was found, what was expected and what to do. They are caught at two
boundaries only: the rollout, which turns them into the ending of one episode, and the command
line, which prints them as one line and exits.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AgentGymError(Exception):
    """Anything that agentgym itself finds wrong; the command line exits with ``exit_code``."""

    exit_code = 1


class UsageError(AgentGymError):
    """The caller asked for something that does not exist or does not fit; exit code 2."""

    exit_code = 2


class DataError(AgentGymError):
    """A file or folder is missing, broken, or not what it claims to be."""


class EpisodeError(AgentGymError):
    """The environment was used out of turn: a step before a reset, or after the end."""


class EnvFault(AgentGymError):  # noqa: N818 (a fault of the environment, as the field says)
    """The environment itself failed: an exception in its code, a second hang, a third crash.

    It ends the episode with ``Stop.ERROR``; the message is the reason.
    """


class WorkerError(AgentGymError):
    """A worker process could not be started, or was closed."""


class ContextOverflow(UsageError):  # noqa: N818 (what happened, as the field says)
    """One request does not fit into the model's context; others may.

    It ends an episode with ``Stop.TOKENS``.
    """


class ServerError(AgentGymError):
    """A model server cannot be used: it is not there, is no vLLM, refused, or died too often."""


class StaleWeightsError(ServerError):
    """After weights were handed to a server, it and the trainer do not agree."""


class LostRankError(AgentGymError):
    """Another process of the run is gone, or was never there; the message says which."""


class CollapseError(AgentGymError):
    """The guard ended a training run, as it was told to."""


class DivergedError(AgentGymError):
    """Training left the finite numbers and did not come back."""


def unknown(kind: str, got: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not known, with the nearest names that are.

    Args:
        kind: What is named, in the singular: ``"environment"``, ``"suite"``.
        got: The name that was given.
        known: All names that would have been understood.
    """
    names = sorted(set(known))
    near = get_close_matches(got, names, n=3, cutoff=0.5)
    some = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {some or 'none'}"
    return UsageError(f"unknown {kind} {got!r}; {hint}")
