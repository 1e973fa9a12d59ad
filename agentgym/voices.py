"""What answers in one episode: a policy that acts on text, or one that acts in tokens.

A policy that acts on text is asked directly. One that acts in tokens is asked through a
:class:`Conversation`, which keeps its tokens exactly.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from agentgym.pacing import Sampler
from agentgym.policies.conversation import Conversation
from agentgym.types import Key, Request, Row, Sample, TextPolicy, View


class SamplingOptions(BaseModel):
    """How a policy in tokens is sampled.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        max_tokens: The longest turn, in tokens.
        max_context: The longest context, prompt and samples together, in tokens. An episode
            whose next turn would not fit ends with ``Stop.TOKENS``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    max_context: int = Field(default=4096, ge=2)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of a policy."""

    text: str
    action: str
    parse_error: str | None


class Voice(Protocol):
    """What answers for one episode; ``faults`` are outside ones that were healed meanwhile."""

    needs_expert: bool
    faults: int

    async def answer(self, view: View) -> Said | None:
        """Return the answer, or None when the context has no room for another turn."""

    def rows(self) -> tuple[Row, ...]:
        """Return the token rows of the episode so far; none for a policy that acts on text."""


class TextVoice:
    """A policy that acts on text, as the voice of one episode."""

    faults = 0

    def __init__(self, policy: TextPolicy, key: Key, seed: int) -> None:
        self.policy = policy
        self.needs_expert = policy.needs_expert
        policy.begin(key.task, seed)

    async def answer(self, view: View) -> Said:
        """Ask the policy; what it says is the action."""
        await asyncio.sleep(0)  # neither it nor an inline step waits: an interrupt must get a turn
        action = self.policy.act(view)
        return Said(action, action, None)

    def rows(self) -> tuple[Row, ...]:
        """Return no rows: there are no tokens."""
        return ()


class TokenVoice:
    """A policy that acts in tokens, as the voice of one episode."""

    needs_expert = False

    def __init__(
        self,
        sample: Sampler,
        conversation: Conversation,
        options: SamplingOptions,
        session: str,
    ) -> None:
        self.sample = sample
        self.conversation = conversation
        self.options = options
        self.session = session
        self.faults = 0

    async def answer(self, view: View) -> Said | None:
        """Render the view, sample a turn, parse it."""
        ids = self.conversation.observe(view)
        room = self.options.max_context - len(ids)
        if room < self.options.max_tokens:
            return None
        request = Request(
            session=self.session,
            ids=ids,
            max_tokens=self.options.max_tokens,
            temperature=self.options.temperature,
            seed=f"{self.session}:{view.turn}",
            stop=self.conversation.stop,
        )
        sample = await self.turn(request)
        self.faults += sample.faults
        parsed = self.conversation.say(sample)
        return Said(parsed.text, parsed.action, parsed.error)

    async def turn(self, request: Request) -> Sample:
        """Sample a whole turn."""
        return await self.sample(request)

    def rows(self) -> tuple[Row, ...]:
        """Return what was sampled, exactly."""
        return self.conversation.rows()
