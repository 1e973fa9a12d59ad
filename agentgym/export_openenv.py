"""A suite behind an OpenEnv server: every session plays episodes of its own.

Imported only by what ``agentgym export env --to openenv`` writes; it needs the extra ``openenv``.
"""

from __future__ import annotations

import random
import uuid
from contextlib import AsyncExitStack
from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult
from openenv.core.env_server import Action, Environment, Observation, State, create_app
from openenv.core.env_server.types import EnvironmentMetadata

from agentgym import __version__
from agentgym.envs.registry import env_class, make_env
from agentgym.policies.vllm_loop import LoopThread
from agentgym.types import EnvSpec
from agentgym.workers import Worker, WorkerPool

_SESSIONS = 64


class TextAction(Action):
    """What is done, in the environment's own words; no prompt's tags around it."""

    text: str


class TextObservation(Observation):
    """What is seen, and what may be told of it. The gold answer is left out."""

    text: str
    task: str
    goal: str
    admissible: bool = True  # did the environment know the last action
    admissible_actions: tuple[str, ...] | None = None
    templates: tuple[str, ...] = ()  # in place of too many actions: OBJ stands for an object
    objects: tuple[str, ...] = ()
    won: bool = False
    score: float = 0.0  # the benchmark's own, in [0, 1]
    truncated: bool = False  # out of turns; done is True then, too


class TextState(State):
    """Where an episode is."""

    suite: str = ""
    task: str | None = None


class Stage:
    """The environments of all sessions, which play in processes of their own.

    Args:
        spec: The environment.
        workers: How many processes share them.
    """

    def __init__(self, spec: EnvSpec, workers: int = 1) -> None:
        self.about = (env_class(spec.name).__doc__ or spec.name).partition("\n")[0]
        env = make_env(spec)
        self.tasks = env.suite.tasks
        env.close()
        self.pool = WorkerPool(spec, workers)
        self.loop = LoopThread()


class SuiteEnvironment(Environment[TextAction, TextObservation, TextState]):
    """One session of a suite. Rewards are the benchmark's own."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self._lent = AsyncExitStack()
        lending = self._lent.enter_async_context(stage.pool.worker())
        self._worker: Worker = stage.loop.run(lending)
        self._state = TextState(suite=self._worker.suite)

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, task: str | None = None
    ) -> TextObservation:
        """Start an episode.

        Args:
            seed: Of its draws, and of the task where none is named; None takes a random one.
            episode_id: Told again in the state.
            task: One of the suite's.
        """
        seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        task = random.Random(f"task:{seed}").choice(self._stage.tasks) if task is None else task
        seen, info = self._stage.loop.run(self._worker.reset(task, seed))
        self._state = TextState(
            suite=self._worker.suite, episode_id=episode_id or uuid.uuid4().hex, task=task
        )
        return _observation(seen, info)

    def step(self, action: TextAction, timeout_s: float | None = None) -> TextObservation:
        """Take one turn; how long it may take is the worker's to say."""
        answer = self._stage.loop.run(self._worker.step(action.text))
        seen, reward, terminated, truncated, info = answer
        self._state.step_count += 1
        observation = _observation(seen, info)
        observation.reward, observation.truncated = reward, truncated
        observation.done = terminated or truncated
        return observation

    @property
    def state(self) -> TextState:
        """Where the episode is."""
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        """Return what the server tells of itself."""
        name, about = self._worker.suite, self._stage.about
        return EnvironmentMetadata(name=name, description=about, version=__version__)

    def close(self) -> None:
        """Hand the worker back, for another session."""
        self._stage.loop.run(self._lent.aclose())


def _observation(seen: str, info: Any) -> TextObservation:
    can = info.get("admissible_actions")
    return TextObservation(
        text=seen,
        task=info["task_id"],
        goal=info["goal"],
        admissible=info["admissible"],
        admissible_actions=None if can is None else tuple(can),
        templates=tuple(info.get("templates", ())),
        objects=tuple(info.get("objects", ())),
        won=info["won"],
        score=info["score"],
    )


def make_app(spec: EnvSpec, workers: int = 1) -> Any:
    """Return the application that serves a suite, as uvicorn takes it.

    Args:
        spec: The environment.
        workers: How many processes its sessions share.

    Raises:
        AgentGymError: The suite cannot be played here.
    """
    stage = Stage(spec, workers)
    return create_app(
        lambda: SuiteEnvironment(stage),
        TextAction,
        TextObservation,
        env_name=spec.name,
        max_concurrent_envs=stage.pool.capacity or _SESSIONS,
        state_cls=TextState,
    )


class SuiteClient(EnvClient[TextAction, TextObservation, TextState]):
    """A session with the server."""

    def _step_payload(self, action: TextAction) -> dict[str, Any]:
        return {"text": action.text}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[TextObservation]:
        reward, done = payload.get("reward"), payload.get("done", False)
        seen = TextObservation(**payload["observation"], reward=reward, done=done)
        return StepResult(observation=seen, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> TextState:
        return TextState(**payload)
