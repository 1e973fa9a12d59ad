"""A tokenizer's chat template, used so that nothing sampled is ever tokenised again.

A template renders whole conversations; an episode needs the tokens that a new message adds. They
are what stands between the end of the last answer and the next one. That this is the same text
in every conversation is proved once, when a :class:`Chat` is built for conversations that grow.

Control tokens come from the template alone: what a message says is text, whatever it spells.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Protocol

from jinja2 import TemplateError

from agentgym.blocks import whole
from agentgym.errors import UsageError
from agentgym.policies.control_tokens import ControlTokens
from agentgym.policies.prompt import Message

# Stand-ins for what is said. Some templates cut reasoning out of earlier answers, so one reasons.
_USER = "¿question {}?"
_ANSWERS = {
    "tags": "<think>¿because {}?</think><action>¿answer {}?</action>",
    "blocks": "<think>¿because {}?</think><answer>¿answer {}?</answer>",
    "plain": "¿answer {}?",
}


class Tokenizer(Protocol):
    """What is needed of a tokenizer; those of transformers have it."""

    chat_template: Any
    all_special_ids: list[int]
    added_tokens_decoder: dict[int, Any]

    def apply_chat_template(
        self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool
    ) -> Any:
        """Render a conversation."""

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        """Return the ids of ``text``."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> Any:
        """Return the text of ids."""


class Chat:
    """The chat template of one tokenizer.

    Args:
        tokenizer: With a chat template.
        answers: ``tags``, ``blocks`` or ``plain``: how answers will look, as templates may treat
            reasoning in a way of their own.

    Attributes:
        end_of_turn: The token that ends an answer.

    Raises:
        UsageError: There is no chat template, or it ends an answer with no special token.
    """

    def __init__(self, tokenizer: Tokenizer, answers: str = "plain") -> None:
        if not tokenizer.chat_template:
            raise UsageError(
                "the tokenizer has no chat template; choose an instruct model, or put a"
                " chat_template.jinja into the model folder"
            )
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._control = ControlTokens(token.content for token in added if token.special)
        self._answer = _ANSWERS[answers]
        self._system_apart = self._renders_system()
        self._probe = self._conversation(2)
        self.end_of_turn, self._end = self._find_end()

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the ids of a conversation up to where the next answer begins."""
        messages, seam = self._cut(messages)
        return self._encode(self._render(messages, answer_next=True), seam)

    def reply_ids(self, message: Message) -> tuple[int, ...]:
        """Return the ids from after the end of an answer up to where the next one begins.

        The end-of-turn token is not among them: it was sampled, or is added by the caller.
        """
        (message,), seam = self._cut([message])
        return self._encode(self._suffix(self._probe, message), seam)

    def said_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of an answer that was not sampled, and its end of turn."""
        (said,), seam = self._cut([Message(role="assistant", content=text)])
        return (*self._encode(said["content"], seam), self.end_of_turn)

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of an answer, without the end-of-turn token."""
        end = len(ids) - 1 if ids and ids[-1] == self.end_of_turn else len(ids)
        return str(self.tokenizer.decode(list(ids[:end]), skip_special_tokens=False))

    def check_grows(self) -> None:
        """Prove that the template keeps prefixes, so that a conversation can grow by its suffix.

        Raises:
            UsageError: It does not; the message says what it changes.
        """
        before = self._render(self._conversation(1)[:-1], answer_next=True)
        for turns in (1, 2, 3):
            said = self._conversation(turns)
            ask = Message(role="user", content=_USER.format(turns))
            before += said[-1]["content"] + self._end + self._suffix(self._probe, ask)
            whole = self._render([*said, ask], answer_next=True)
            if whole != before:
                raise self._breaks(before, whole)

    def merged(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with a system message put into the first user message.

        Only where the template knows no system messages; else they are returned as they are.
        """
        if self._system_apart or messages[0]["role"] != "system":
            return list(messages)
        system, first, *others = messages
        content = f"{system['content']}\n\n{first['content']}"
        return [Message(role="user", content=content), *others]

    def _renders_system(self) -> bool:
        words = "¿rule?"
        system = Message(role="system", content=words)
        ask = Message(role="user", content=_USER.format(0))
        try:
            return words in self._render([system, ask])
        except TemplateError:  # how a template says that it knows no system messages
            return False

    def _conversation(self, turns: int) -> list[Message]:
        messages = []
        for n in range(turns):
            messages.append(Message(role="user", content=_USER.format(n)))
            messages.append(Message(role="assistant", content=self._answer.format(n, n)))
        return messages

    def _find_end(self) -> tuple[int, str]:
        """Return the token and the text that end an answer."""
        said = self._conversation(1)
        tail = self._render(said).rpartition(_after_reasoning(said[-1]))[2]
        ids = self._encode(tail)
        if not ids or ids[0] not in self.tokenizer.all_special_ids:
            raise UsageError(
                f"the chat template ends an answer with {tail!r}; expected a special token of the"
                " tokenizer, by which a model can end its turn"
            )
        return ids[0], str(self.tokenizer.decode([ids[0]], skip_special_tokens=False))

    def _suffix(self, said: Sequence[Message], ask: Message) -> str:
        whole = self._render([*said, ask], answer_next=True)
        marker = _after_reasoning(said[-1]) + self._end
        _, found, suffix = whole.partition(marker)
        if not found:
            raise self._breaks(marker, whole)
        return suffix

    def _render(self, messages: Sequence[Message], *, answer_next: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=answer_next
            )
        )

    def _cut(self, messages: Sequence[Message]) -> tuple[Sequence[Message], str | None]:
        """Return the messages with a seam in what would be read as a control token; the seam."""
        seam = self._control.seam_for([one["content"] for one in messages])
        if seam is None:
            return messages, None
        cut = [
            Message(role=one["role"], content=self._control.cut(one["content"], seam))
            for one in messages
        ]
        return cut, seam

    def _encode(self, text: str, seam: str | None = None) -> tuple[int, ...]:
        pieces = [text] if seam is None else text.split(seam)
        return tuple(
            token
            for piece in pieces
            for token in self.tokenizer.encode(whole(piece), add_special_tokens=False)
        )

    @staticmethod
    def _breaks(expected: str, got: str) -> UsageError:
        same = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(expected, got, strict=False))
        )
        return UsageError(
            "the chat template does not keep prefixes: with the next message it renders"
            f" {got[same : same + 40]!r} where {expected[same : same + 40]!r} stood; use the"
            " context window(k), or a chat template that leaves earlier messages as they were"
        )


def _after_reasoning(answer: Message) -> str:
    """Return the part of an answer that every template leaves as it is."""
    return answer["content"].rpartition("</think>")[2]
