"""Every metric that trainers log is on the page about metrics."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

CODE = Path(__file__).parents[1] / "trainers"
# What ends in _ is a part of a name.
NAME = re.compile(
    r"(actor|aepo|critic|correction|empg|epo|igpo|optim|rollout|sft|spear|tree)/\w*[a-z]"
)


def constants(path: Path) -> Iterator[str]:
    """Yield the texts of a module, and the parts of those that are put together."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_name_of_a_metric_is_explained(
    unexplained: Callable[[Iterable[str]], list[str]],
) -> None:
    texts = {text for path in CODE.glob("*.py") for text in constants(path)}
    names = {text for text in texts if NAME.fullmatch(text)}
    assert len(names) > 60
    assert unexplained(names) == []


def test_a_name_that_nobody_logs_is_not_explained(
    unexplained: Callable[[Iterable[str]], list[str]],
) -> None:
    assert unexplained(["epo/beta", "epo/delta", "replay/epo/outside"]) == ["epo/delta"]
