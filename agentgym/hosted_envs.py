"""The environments that a process holds for another one: each is asked by number.

What an environment answers goes back as bytes, made in the process of the environment: what cannot
be sent is then its own fault.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentgym.envs.base import TextEnv
from agentgym.envs.registry import make_env
from agentgym.errors import (
    AgentGymError,
    DataError,
    EnvFault,
    EpisodeError,
    UsageError,
    WorkerError,
)
from agentgym.types import EnvSpec

Act = Callable[[TextEnv], Any]
"""What an environment is asked for; picklable, as ``operator.methodcaller`` is."""

_KINDS = (UsageError, DataError, EpisodeError, WorkerError, EnvFault)


class HostedEnvs:
    """Environments of one kind, by number.

    Args:
        spec: How they are built.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self._spec = spec
        self._envs: dict[int, TextEnv] = {}

    def answer(self, number: int, act: Act | None) -> bytes:
        """Let an environment act, or build it where ``act`` is None; for :func:`opened`."""
        try:
            if act is not None:
                return pickle.dumps((None, act(self._envs[number])))
            self._discard(number)
            self._envs[number] = make_env(self._spec)
            return pickle.dumps((None, None))
        except AgentGymError as error:
            kind = next((kind for kind in _KINDS if isinstance(error, kind)), AgentGymError)
            return pickle.dumps((kind, str(error)))
        except (Exception, SystemExit) as error:  # environment code raises what it likes
            self._discard(number)
            return pickle.dumps((EnvFault, str(fault_of(error))))

    def close(self) -> None:
        """Release all of them."""
        for number in list(self._envs):
            self._discard(number)

    def _discard(self, number: int) -> None:
        env = self._envs.pop(number, None)
        if env is not None:
            with suppress(Exception):  # it may be broken already; nobody will use it again
                env.close()


def opened(answer: bytes) -> Any:
    """Return what an environment answered.

    Raises:
        AgentGymError: What the environment raised, with its type and message.
        EnvFault: The environment raised anything else; it is not held any more.
    """
    kind, value = pickle.loads(answer)  # noqa: S301 (from a process of our own)
    if kind is not None:
        raise kind(value)
    return value


def fault_of(error: BaseException) -> EnvFault:
    """Return the fault that an exception in environment code is, with its place."""
    frames = traceback.extract_tb(error.__traceback__)
    file = "/".join(Path(frames[-1].filename).parts[-2:]) if frames else ""
    place = f" ({file}, line {frames[-1].lineno})" if frames else ""
    return EnvFault(f"the environment raised {type(error).__name__}: {error}{place}")
