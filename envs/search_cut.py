"""Cutting results to a number of tokens, by an estimate or by the tokenizer that counts.

An environment knows no model, so by default a token counts as four characters, the rule of thumb
for English prose; other scripts may have fewer. Where the number must be exact, the environment is
handed the model's ``tokenizer.json``.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from agentgym.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 4


def cut_by_estimate(text: str, tokens: int) -> str:
    """Return the beginning of a text, at most four characters a token, ending with a whole word.

    A first word that is longer than that is cut.
    """
    room = tokens * CHARACTERS_PER_TOKEN
    if len(text) <= room:
        return text
    # With one character more: a word that ends exactly here is whole.
    end = max((space.start() for space in re.finditer(r"\s", text[: room + 1])), default=0)
    return text[: end or room].rstrip()


def cut_by_tokenizer(text: str, tokens: int, path: str) -> str:
    """Return the beginning of a text that is the tokenizer's first ``tokens`` of it.

    Args:
        text: What to cut.
        tokens: How many may stay.
        path: A ``tokenizer.json``, or the model folder with it.

    Raises:
        DataError: There is no tokenizer.
    """
    encoding = _tokenizer(path).encode(text, add_special_tokens=False)
    return text if len(encoding.ids) <= tokens else text[: encoding.offsets[tokens - 1][1]]


@cache
def _tokenizer(path: str) -> Tokenizer:
    from tokenizers import Tokenizer  # only who needs exact numbers waits for it

    file = Path(path).expanduser()
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise DataError(f"there is no tokenizer {file}; name a tokenizer.json or a model folder")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"cannot read the tokenizer {file}: {error}") from error
