"""A model at the controls of a game: it proposes a turn, token by token, and a person decides.

What a person does in its place it reads as if it had said so itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentgym.game import Taken
from agentgym.policies.action_format import Parsed
from agentgym.policies.conversation import Conversation, Script
from agentgym.types import Policy, Request, Sample, View
from agentgym.voices import SamplingOptions

_HALF = "\ufffd"  # what half a letter is decoded to


@dataclass(frozen=True, slots=True)
class Proposal:
    """A turn that the model said and that was not taken yet."""

    sample: Sample
    parsed: Parsed
    whole: bool  # False where it was paused


class Pilot:
    """Lets a model propose turns.

    Args:
        policy: The model.
        script: What it is told.
        sampling: How it is sampled.
        seed: Where all draws come from, together with the task.
        name: What the model is called.
    """

    def __init__(
        self, policy: Policy, script: Script, sampling: SamplingOptions, seed: int, name: str
    ) -> None:
        self.name = name
        self._policy, self._script, self._sampling = policy, script, sampling
        self._seed = seed

    def propose(
        self,
        task: str,
        view: View,
        taken: Sequence[Taken],
        tell: Callable[[str], None],
        paused: Callable[[], bool],
        begun: Proposal | None = None,
        again: int = 0,
    ) -> Proposal | None:
        """Let the model say a turn; None when its context has no room for another.

        Args:
            task: Whose draws are taken.
            view: What is seen now.
            taken: The turns so far.
            tell: Given each piece of text as it comes.
            paused: Asked after each token; True stops there.
            begun: A proposal that was paused, which goes on.
            again: How often other draws were asked for.
        """
        conversation = self._conversation(taken)
        ids = conversation.observe(view)
        if self._sampling.max_context - len(ids) < self._sampling.max_tokens:
            return None
        session = f"{self._seed}:play:{task}"
        request = Request(
            session=session,
            ids=ids,
            max_tokens=1,
            temperature=self._sampling.temperature,
            seed=f"{session}:{view.turn}:{again}",
            stop=conversation.stop,
        )
        said = None if begun is None else begun.sample
        sample = asyncio.run(self._say(request, tell, paused, said))
        left = self._sampling.max_tokens - len(sample.ids)
        whole = sample.finish == "stop" or left <= 0
        return Proposal(sample, conversation.say(sample), whole)

    def written(self, action: str, instead: Proposal | None = None) -> str:
        """Return an action as the model would have said it, with its thoughts where it had some."""
        form = self._script.prompt.template.format
        return form.write(action, "" if instead is None else instead.parsed.text)

    def parse(self, text: str) -> Parsed:
        """Return the action in what is said."""
        return self._script.prompt.parse(text)

    def _conversation(self, taken: Sequence[Taken]) -> Conversation:
        """Return the conversation so far, the model's own turns in their own tokens."""
        conversation, chat = self._script.begin(), self._script.chat
        for turn in taken:
            conversation.observe(turn.view)
            ids = chat.said_ids(turn.text)
            said = Sample(ids, (0.0,) * len(ids), None, "stop", 0)
            conversation.say(turn.sample or said)
        return conversation

    async def _say(
        self,
        request: Request,
        tell: Callable[[str], None],
        paused: Callable[[], bool],
        begun: Sample | None,
    ) -> Sample:
        said = begun or Sample((), (), None, "length", self._policy.version)
        shown = self._script.chat.text(said.ids).removesuffix(_HALF)
        while said.finish == "length" and len(said.ids) < self._sampling.max_tokens:
            ids = (*request.ids, *said.ids)
            asked = replace(request, ids=ids, begun=len(said.ids))
            (piece,) = await self._policy.sample([asked])
            said = replace(
                piece,
                ids=said.ids + piece.ids,
                logprobs=said.logprobs + piece.logprobs,
                entropies=None,
            )
            text = self._script.chat.text(said.ids).removesuffix(_HALF)
            tell(text[len(shown) :])
            shown = text
            if paused():
                break
        return said
