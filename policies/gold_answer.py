"""A gold answer in tokens, as if the policy gave it where its turn begins.

How likely a policy finds the right answer can be asked after any turn, long before it answers:
write the answer for it and read its log-probability. What stands before the answer (that there
is enough to answer now, the opening tag) is no part of it and is not scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentgym.errors import UsageError
from agentgym.policies.action_format import ActionFormat

_SLOT = "{answer}"
_READY = "Now there is enough to give the answer."
_FORMS = {
    "plain": _SLOT,
    "tags": f"<think>\n{_READY}\n</think>\n<action>{_SLOT}</action>",
    "blocks": f"<think>\n{_READY}\n</think>\n<answer>\n{_SLOT}\n</answer>",
}


@dataclass(frozen=True, slots=True)
class WrittenAnswer:
    """What follows the prompt of a turn, up to the last token of the answer."""

    ids: tuple[int, ...]
    start: int  # the first token that has a character of the answer

    @property
    def length(self) -> int:
        """Return how many tokens the answer itself has."""
        return len(self.ids) - self.start


class AnswerForm:
    """Writes gold answers.

    Args:
        format: How the policy writes actions; it decides how an answer is written.
        tokenizer: One of transformers that knows where in the text each token stands.
        template: What to write instead, with ``{answer}`` in it once.

    Raises:
        UsageError: The template has not exactly one slot, the format has no tag for an answer,
            or the tokenizer does not know where its tokens stand.
    """

    def __init__(self, format: ActionFormat, tokenizer: Any, template: str | None = None) -> None:  # noqa: A002
        if not tokenizer.is_fast:
            raise UsageError(
                f"the tokenizer {type(tokenizer).__name__} does not know where in the text its"
                " tokens stand, which an answer's tokens are found by; take one with tokenizer.json"
            )
        if template is None and format.name == "blocks" and "answer" not in format.tags:
            raise UsageError(
                f"actions are blocks of {', '.join(format.tags)}, and none is called answer; say"
                " how an answer is written, as in answer_template = '<reply>{answer}</reply>'"
            )
        template = _FORMS[format.name] if template is None else template
        if template.count(_SLOT) != 1:
            raise UsageError(f"answer_template is {template!r}; expected {_SLOT} in it, once")
        self._tokenizer = tokenizer
        self._before, _, self._after = template.partition(_SLOT)

    def write(self, answer: str) -> WrittenAnswer | None:
        """Return an answer in tokens; None where it is empty.

        The whole text is tokenised at once, as a policy would write it. A token that has
        characters of the answer and others is the answer's.
        """
        answer = answer.strip()
        text = f"{self._before}{answer}{self._after}"
        first, last = len(self._before), len(self._before) + len(answer)
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        own = [n for n, (a, b) in enumerate(found["offset_mapping"]) if a < last and b > first]
        if not own:
            return None
        return WrittenAnswer(tuple(found["input_ids"][: own[-1] + 1]), own[0])
