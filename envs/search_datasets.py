r"""Questions in the files that papers publish: Search-R1's and IGPO's parquet, ARPO's both, JSONL.

A row's columns differ from paper to paper; what they have in common is a question and its gold
answers. Prompts are left out: what a model is told is a template's business (and ARPO's parquet
has a backspace character where its prompt should say ``\boxed``).
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from agentgym.envs.search_data import Question
from agentgym.errors import DataError
from agentgym.files import cache_folder, named_folder

ANSWER_SPLIT = "<|answer_split|>"
"""What joins alternatives in IGPO's files; scored unsplit, no answer could ever be right."""

VARIABLE = "AGENTGYM_SEARCH_DATA"
"""The environment variable that names another folder of questions than the default."""

TRAIN = "train"
_SUFFIXES = (".jsonl", ".json", ".parquet")
_SPLITS = ("train", "test", "dev", "val", "valid", "validation")
_OTHER_NAMES = {
    "tq": "triviaqa",
    "2wiki": "2wikimultihopqa",
    "2wikimqa": "2wikimultihopqa",
    "hotpot": "hotpotqa",
}
_QUESTION_FILES = "a .jsonl, .json or .parquet file with a question and an answer a row"


def questions_folder(data: str | None = None) -> Path:
    """Return where questions should lie: ``data``, else ``$AGENTGYM_SEARCH_DATA``, else the cache.

    In the user's cache folder that is ``agentgym/search``.
    """
    return named_folder(data, VARIABLE, lambda: cache_folder() / "search")


def data_folder(data: str | None) -> Path:
    """Return where questions lie (see :func:`questions_folder`).

    Raises:
        DataError: There is no such folder.
    """
    folder = questions_folder(data)
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder} with questions; get some with: agentgym envs download"
            f" search; or put the published files there, or name another with data=… or"
            f" {VARIABLE} (docs/environments/search.md says which files). Generated questions need"
            " none: search/gen-train, gen-test"
        )
    return folder


def is_corpus(path: Path) -> bool:
    """Return whether a file of a data folder holds articles: its name says corpus."""
    return path.suffix == ".jsonl" and "corpus" in path.stem.lower()


def find_corpus(folder: Path) -> Path | None:
    """Return the corpus file of a data folder, or None where it has none.

    Raises:
        DataError: It has more than one.
    """
    found = sorted(path for path in folder.rglob("*.jsonl") if is_corpus(path))
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise DataError(f"{folder} has more than one corpus: {names}; choose one with corpus=…")
    return found[0] if found else None


def load_questions(folder: Path) -> dict[str, tuple[Question, ...]]:
    """Return the questions of all files in a folder, at any depth, by data set.

    The questions of files whose name begins with ``train`` are those of ``train``, whatever data
    set they are from.

    Raises:
        DataError: A file cannot be read, a row has no question or no answer; or there is none.
    """
    return _load(folder, _state(folder))


def _state(folder: Path) -> tuple[tuple[Path, int, int], ...]:
    """Return the question files with size and time of change, sorted."""
    paths = [
        path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES
        and not is_corpus(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]  # hidden is what is still being downloaded
    if not paths:
        raise DataError(f"{folder} has no questions; expected {_QUESTION_FILES}")
    return tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(paths))


@lru_cache(maxsize=4)
def _load(
    folder: Path, state: tuple[tuple[Path, int, int], ...]
) -> dict[str, tuple[Question, ...]]:
    found: dict[str, list[Question]] = {}
    for name, path in _names(folder, [path for path, *_ in state]).items():
        training = path.stem.startswith(TRAIN)
        for number, row in enumerate(read_rows(path)):
            if row.get("ability") == "math":  # in ARPO's files; no search answers it
                continue
            source = str(row.get("data_source") or _source(path))
            question = read_question(row, f"{name}-{number}", _known_as(source))
            found.setdefault(TRAIN if training else _known_as(source), []).append(question)
    return {name: tuple(questions) for name, questions in found.items()}


def _names(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Return files by what their questions' ids begin with.

    That is the path without its suffix, or with it where two differ in nothing else.
    """
    short = [path.relative_to(folder).with_suffix("") for path in paths]
    often = Counter(short)
    return {
        (one if often[one] == 1 else path.relative_to(folder)).as_posix(): path
        for one, path in zip(short, paths, strict=True)
    }


def _source(path: Path) -> str:
    """Return the data set that rows of a file are from when they do not say.

    That is the file's name, or its folder's where a file is called by its split
    (``hotpotqa/test.jsonl``).
    """
    return path.parent.name if path.stem in _SPLITS else path.stem


def _known_as(name: str) -> str:
    plain = name.lower().replace("-", "").replace("_", "")
    return _OTHER_NAMES.get(plain, plain)


def read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file of questions.

    Raises:
        DataError: It cannot be read, or pyarrow is not installed and it is parquet.
    """
    rows = _read_parquet(path) if path.suffix == ".parquet" else _read_json(path)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number} is {str(row)[:40]!r}; expected an object")
        yield row


def _read_parquet(path: Path) -> Iterator[Any]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(
            f"{path} is parquet, which needs pyarrow: pip install 'agentgym[search]'"
        ) from error
    # By their parents: pyarrow, which is optional, has no types to name here.
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; get it again") from error


def _read_json(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; get it again") from error
    if path.suffix == ".json":
        rows = _parse(text, str(path))
        yield from rows if isinstance(rows, list) else [rows]
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parse(line, f"{path}, line {number}")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter: nested without end
        raise DataError(f"cannot read {where}: {error}; get the file again") from error


def read_question(row: Mapping[str, Any], name: str, kind: str) -> Question:
    """Read one row.

    Args:
        row: The row.
        name: What to call the question.
        kind: Its type where the row names none.

    Raises:
        DataError: The row has no question or no answer, or what is no answer in its place.
    """
    text, answers = _text(row), _answers(row, name)
    if not text or not answers:
        missing = "answer" if text else "question"
        raise DataError(
            f"question {name} has no {missing}; expected question and answer among its columns,"
            f" got {', '.join(row) or 'none'}"
        )
    given = row.get("type")
    return Question(name, text, answers, given if isinstance(given, str) and given else kind)


def _text(row: Mapping[str, Any]) -> str:
    """Return the question: its own column, or beside the prompt, or at the prompt's end."""
    prompt = row.get("prompt")
    last = prompt[-1] if isinstance(prompt, list) and prompt else prompt
    said = _inside(last, "content") if isinstance(last, dict) else last
    asked = said.rpartition("Question:")[2] if isinstance(said, str) else None
    for text in (row.get("question"), _inside(row.get("extra_info"), "question"), asked):
        if isinstance(text, str) and text.strip():
            return " ".join(text.split())
    return ""


def _inside(value: object, key: str) -> object:
    """Return what an object has under a key; None where it has nothing, or is none."""
    return value.get(key) if isinstance(value, dict) else None


def _answers(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    truth = _inside(row.get("reward_model"), "ground_truth")
    if isinstance(truth, dict):
        truth = truth.get("target")
    for given in (truth, row.get("golden_answers"), row.get("answers"), row.get("answer")):
        listed = given if isinstance(given, list) else [] if given is None else [given]
        if not all(isinstance(one, str | int | float) for one in listed):
            raise DataError(
                f"question {name} has the answer {str(given)[:60]!r}; expected a text, a number"
                " or a list of these"
            )
        parts = (part.strip() for one in listed for part in str(one).split(ANSWER_SPLIT))
        answers = tuple(dict.fromkeys(part for part in parts if part))
        if answers:
            return answers
    return ()
