"""Token bookkeeping of one episode: what the model reads, and exactly what it said.

Tokens in, tokens out: what was sampled is never decoded and encoded again. In a context that
grows, the ids of turn n+1 are those of turn n, the sampled ids, the end-of-turn token where the
sample was cut, and the ids of the newly rendered observation.
"""

from __future__ import annotations

from copy import copy

from agentgym.errors import EpisodeError
from agentgym.policies.action_format import Parsed
from agentgym.policies.chat import Chat, Tokenizer
from agentgym.policies.prompt import Past, Prompt
from agentgym.types import Row, Sample, View


class Script:
    """What all episodes of a run share: a prompt and the chat template it goes through.

    Checked here once, so that an episode does not have to.

    Args:
        prompt: What the model is told.
        tokenizer: With a chat template.

    Raises:
        UsageError: The tokenizer has no chat template, or the context grows and the chat
            template does not keep prefixes; the message says what it changes. Or actions are
            tool calls.
    """

    def __init__(self, prompt: Prompt, tokenizer: Tokenizer) -> None:
        prompt.refuse_tools()
        self.prompt = prompt
        self.chat = Chat(tokenizer, prompt.template.format.name)
        if prompt.context.window is None:
            self.chat.check_grows()

    def begin(self) -> Conversation:
        """Start the bookkeeping of an episode."""
        return Conversation(self)


class Conversation:
    """One episode in tokens. Call :meth:`observe` and :meth:`say` in turns.

    What the model reasoned in earlier turns stays in a context that grows, as it was sampled; a
    rebuilt context retells actions only.

    Attributes:
        stop: Strings that end a turn.
    """

    def __init__(self, script: Script) -> None:
        self.stop = script.prompt.template.format.stop
        self._prompt, self._chat = script.prompt, script.chat
        self._grows = script.prompt.context.window is None
        self._rows: list[_GrowingRow] = []
        self._past: list[Past] = []
        self._observation: str | None = None  # seen and not yet answered

    def observe(self, view: View) -> tuple[int, ...]:
        """Return the ids of the whole context from which the next turn is sampled.

        Raises:
            EpisodeError: The last observation was not answered.
        """
        if self._observation is not None:
            raise EpisodeError("an observation is waiting for its answer; call say first")
        self._observation = view.observation
        if not self._grows:
            messages = self._chat.merged(self._prompt.retold(view, self._past))
            self._rows.append(_GrowingRow(self._chat.prompt_ids(messages)))
        elif not self._rows:
            messages = self._chat.merged(self._prompt.opening(view))
            self._rows.append(_GrowingRow(self._chat.prompt_ids(messages)))
        else:
            row = self._rows[-1]
            if row.ids[-1] != self._chat.end_of_turn:
                row.read((self._chat.end_of_turn,))
            row.read(self._chat.reply_ids(self._prompt.reply(view)))
        return tuple(self._rows[-1].ids)

    def say(self, sample: Sample) -> Parsed:
        """Take what was sampled; return its text and the action in it.

        Raises:
            EpisodeError: There is no observation to answer.
        """
        if self._observation is None:
            raise EpisodeError("there is no observation to answer; call observe first")
        self._rows[-1].write(sample, turn=len(self._past))
        parsed = self._prompt.parse(self._chat.text(sample.ids))
        self._past.append(Past(self._observation, parsed.action))
        self._observation = None
        return parsed

    def fork(self) -> Conversation:
        """Return a copy that goes on by itself from here."""
        copied = copy(self)
        copied._rows = [row.fork() for row in self._rows]
        copied._past = list(self._past)
        return copied

    def rows(self) -> tuple[Row, ...]:
        """Return the tokens so far; an observation that was not answered is left out."""
        rows = [row.answered() for row in self._rows]
        return tuple(row for row in rows if row.ids)


class _GrowingRow:
    """A :class:`Row` while it grows."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.ids: list[int] = []
        self.turns: list[int] = []
        self.logprobs: list[float] = []
        self.versions: list[int] = []
        self._answered = 0  # tokens up to the end of the last sample
        self.read(ids)

    def read(self, ids: tuple[int, ...]) -> None:
        """Append ids that the policy did not sample."""
        self._append(ids, -1, (0.0,) * len(ids), (-1,) * len(ids))

    def write(self, sample: Sample, turn: int) -> None:
        """Append what the policy sampled."""
        self._append(sample.ids, turn, sample.logprobs, sample.versions)
        self._answered = len(self.ids)

    def fork(self) -> _GrowingRow:
        """Return a copy that grows by itself."""
        copied = copy(self)
        copied.ids, copied.turns = list(self.ids), list(self.turns)
        copied.logprobs, copied.versions = list(self.logprobs), list(self.versions)
        return copied

    def answered(self) -> Row:
        """Return the row up to the last sample."""
        end = self._answered
        return Row(
            tuple(self.ids[:end]),
            tuple(self.turns[:end]),
            tuple(self.logprobs[:end]),
            tuple(self.versions[:end]),
        )

    def _append(
        self,
        ids: tuple[int, ...],
        turn: int,
        logprobs: tuple[float, ...],
        versions: tuple[int, ...],
    ) -> None:
        self.ids += ids
        self.turns += [turn] * len(ids)
        self.logprobs += logprobs
        self.versions += versions
