"""A suite as a verifiers taskset, and the environment that plays its tasks with an agent.

Imported only by what ``agentgym export env --to verifiers`` writes; it needs the extra
``verifiers``. The prompt is the environment's own, and the conversation only grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf
from openai import AsyncOpenAI
from pydantic import Field
from verifiers.v1.dialects.chat import message_to_wire

from agentgym.envs.registry import env_of_suite, make_env
from agentgym.policies.prompt import Prompt, load_prompt
from agentgym.types import EnvSpec, View
from agentgym.workers import Worker, WorkerPool


class SuiteConfig(vf.TasksetConfig):
    """Which tasks, and how they are told; set as ``--env.taskset.suite …``.

    Attributes:
        suite: Environment and set of tasks, as ``alfworld/gen-unseen``.
        options: Of the environment, max_turns among them.
        template: Style of the prompt, as ``tags``.
        seed: Of the environment's draws.
    """

    suite: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    template: str = "tags"
    seed: int = 0

    def spec(self) -> EnvSpec:
        """Return the environment."""
        return EnvSpec(env_of_suite(self.suite), {"suite": self.suite, **self.options})

    def prompt(self) -> Prompt:
        """Return what an agent is told.

        Raises:
            UsageError: There is no such template, or its actions are tool calls.
        """
        prompt = load_prompt(env_of_suite(self.suite), self.template, "full")
        prompt.refuse_tools()
        return prompt


class SuiteTask(vf.Task[vf.TaskData]):
    """One task; its id is the suite's. What it is worth is said by the environment."""

    @property
    def key(self) -> str:
        """The id, whatever the prompt."""
        return str(self.data.id)


class SuiteTaskset(vf.Taskset[SuiteTask, SuiteConfig]):
    """The tasks of a suite, in its order."""

    def load(self) -> Iterator[SuiteTask]:
        """Yield every task once; the environment opens each conversation."""
        system = self.config.prompt().template.texts.get("system")
        env = make_env(self.config.spec())
        tasks, suite = env.suite.tasks, env.suite.name
        env.close()
        for task in tasks:
            data = vf.TaskData(id=task, name=f"{suite}/{task}", system_prompt=system)
            yield SuiteTask(data, self.config.task)


class SuiteEnvConfig(vf.EnvConfig):
    """Who plays, and where the environments are.

    Attributes:
        player: The model.
        workers: Processes that the environments share.
    """

    player: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    workers: int = 1


class ReplyHarness(vf.Harness[vf.HarnessConfig]):
    """Asks the model for one reply a turn, in this process and without tools.

    verifiers' own ``null`` does the same by a program that is started anew for each turn.
    """

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Send the conversation; verifiers, which stands between, keeps the reply."""
        system, said = self.resolve_prompt(data)
        messages = [message_to_wire(message) for message in said or ()]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, max_retries=0) as client:
            await client.chat.completions.create(model=ctx.model, messages=messages)
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


class SuiteEnv(vf.Env[SuiteEnvConfig]):
    """Plays tasks: each observation is a message of the user, each reply an action."""

    taskset: SuiteTaskset
    _pool: WorkerPool | None = None

    async def start(self) -> None:
        """Start the environments."""
        self._pool = WorkerPool(self.taskset.config.spec(), self.config.workers)

    async def stop(self) -> None:
        """End them."""
        if self._pool is not None:
            self._pool.close()

    async def run(self, task: SuiteTask, agents: vf.Agents) -> None:
        """Play one task, and record the benchmark's reward with what else is known."""
        assert self._pool is not None
        prompt, seed = self.taskset.config.prompt(), self.taskset.config.seed
        async with self._pool.worker() as worker:
            seen = await worker.reset(str(task.data.id), seed)
            async with agents.player.interaction(task) as talk:
                told = await _play(worker, prompt, seen, talk)
            talk.trace.record_reward("reward", told.pop("reward"))
            talk.trace.record_metrics(told)


async def _play(
    worker: Worker, prompt: Prompt, seen: tuple[str, Any], talk: vf.Interaction
) -> dict[str, float]:
    """Play until the environment or the agent ends it; return the reward and the metrics."""
    (observation, info), turn, parsed, reward, over = seen, 0, 0, 0.0, False
    while not over:
        view = View.of(observation, info, turn)
        message = prompt.reply(view) if turn else prompt.opening(view)[-1]
        segment = await talk.turn(message["content"])
        if segment.terminated:
            break
        answer = prompt.parse(segment.last_reply)
        observation, gained, terminated, truncated, info = await worker.step(answer.action)
        turn, parsed, reward = turn + 1, parsed + (answer.error is None), reward + gained
        over = terminated or truncated
    won, score = float(info["won"]), float(info["score"])
    rate = parsed / turn if turn else 0.0
    return {"reward": reward, "won": won, "score": score, "turns": turn, "valid_actions": rate}
