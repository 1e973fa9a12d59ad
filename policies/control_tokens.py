"""Text that stays text: what an environment says can spell a control token, and is none.

A page or an observation may contain ``<|im_end|>``, by chance or by design. Encoded in one piece
with the chat template around it, it would end the turn, and what follows could speak as anybody.
Here each such spelling is cut after its first character; the pieces are encoded one by one, so
that the same characters become ordinary tokens. All other text is encoded as it always was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SEAMS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # never characters, says Unicode


class ControlTokens:
    """The control tokens of a tokenizer.

    Args:
        spelled: How they are written. One of a single character cannot be cut, and is not.
    """

    def __init__(self, spelled: Iterable[str]) -> None:
        found = "|".join(re.escape(one) for one in sorted(set(spelled)) if len(one) > 1)
        # What stands ahead is not consumed, so that spellings that overlap are all cut.
        self._begun = re.compile(rf"(?=(?:{found}))(.)" if found else r"(?!)", re.DOTALL)

    def occur_in(self, text: str) -> bool:
        """Return whether a text spells one."""
        return self._begun.search(text) is not None

    def seam_for(self, texts: Sequence[str]) -> str | None:
        """Return a character for :meth:`cut` that none of the texts has; None if none needs it."""
        if not any(map(self.occur_in, texts)):
            return None
        return next(one for one in _SEAMS if not any(one in text for text in texts))

    def cut(self, text: str, seam: str) -> str:
        """Return the text with a seam in each spelling."""
        return self._begun.sub(rf"\1{seam}", text)
