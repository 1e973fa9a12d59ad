import re
from pathlib import Path

import pytest

from agentgym.errors import DataError, UsageError
from agentgym.trainers import describe as describing
from agentgym.trainers.describe import describe, describe_all, hooks, page
from agentgym.trainers.epo import EPO
from agentgym.trainers.method import Method, Options
from agentgym.trainers.sft import CloningOptions

PAGES = Path(__file__).parents[2] / "docs" / "methods"


def test_every_option_of_every_method_says_what_it_is() -> None:
    unexplained = [(d.name, o.name) for d in describe_all() for o in d.options if not o.about]
    assert unexplained == []


def test_every_option_says_in_brackets_where_its_value_is_from() -> None:
    uncited = [(d.name, o.name) for d in describe_all() for o in d.options if "(" not in o.about]
    assert uncited == []


def test_a_bound_that_is_off_is_shown_as_toml_has_it() -> None:
    assert {o.name: o.value for o in describe("drbot").options}["dual_clip"] == "inf"


def test_every_method_tells_its_paper_and_what_it_does() -> None:
    for d in describe_all():
        assert d.paper.startswith("arXiv") or d.name == "sft", d.name
        assert len(d.text.splitlines()) > 5, d.name


def test_every_method_names_metrics_to_watch() -> None:
    silent = [d.name for d in describe_all() if not re.search(r"``[a-z_]+/[a-z_]+``", d.text)]
    assert silent == []


def test_the_pages_are_what_the_methods_say_of_themselves() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    told = {f"{d.name}.md": page(d) for d in describe_all()}
    assert written == told, "run python scripts/write_method_pages.py"


def test_a_refused_preset_is_answered_with_its_reason() -> None:
    with pytest.raises(UsageError, match="no empg:released: no official code was released"):
        describe("empg:released")


NEEDY = """
from __future__ import annotations
from typing import ClassVar
from pydantic import Field
from agentgym.trainers.method import Method, Options

class NeedyOptions(Options):
    share: float = Field(ge=0)
    times: tuple[int, ...] = Field(default_factory=lambda: (1, 2))

class Needy(Method[NeedyOptions]):
    name = "needy"
    summary = "wants to be told"
    options_type: ClassVar[type[Options]] = NeedyOptions
    presets = {"half": {"share": 0.5}, "wrong": {"share": -1}}
"""


@pytest.fixture
def needy(tmp_path: Path) -> str:
    """The name of a file with a method that has an option without a default."""
    path = tmp_path / "needy.py"
    path.write_text(NEEDY)
    return str(path)


def test_an_option_without_a_default_is_shown_as_required(needy: str) -> None:
    plain, half = describe(needy), describe(f"{needy}:half")
    assert [(o.name, o.value) for o in plain.options] == [
        ("share", "required"),
        ("times", "[1, 2]"),
    ]
    assert plain.needs == ("what its required options ask for",)
    assert [(o.value, o.of_preset) for o in half.options] == [("0.5", True), ("[1, 2]", False)]
    assert half.needs == ()


def test_a_preset_that_does_not_fit_is_named(needy: str) -> None:
    with pytest.raises(DataError, match=r"needy does not fit its own options: method.share = -1: "):
        describe(f"{needy}:wrong")


def test_what_cannot_be_described_is_skipped_and_named(
    needy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describing, "method_names", lambda: ("grpo", f"{needy}:wrong"))
    skipped: list[str] = []
    assert [d.name for d in describe_all(skipped.append)] == ["grpo", "sft"]
    assert len(skipped) == 1
    assert skipped[0].startswith(f"{needy}:wrong cannot be described: needy does not fit")
    with pytest.raises(DataError, match="does not fit"):
        describe_all()


def test_cloning_is_described_by_its_module_and_its_options() -> None:
    d = describe("sft")
    assert d.text.startswith("Behaviour cloning")
    assert [o.name.removeprefix("sft.") for o in d.options] == list(CloningOptions.model_fields)
    assert "It stands on nothing." in page(d)


def test_hooks_are_those_that_a_method_overrides() -> None:
    class Quiet(Method[Options]):
        name = "quiet"

    assert hooks(Quiet) == ()
    assert hooks(EPO) == ("prepare", "loss", "observe")


def test_a_preset_is_described_with_its_values() -> None:
    released = {o.name: o for o in describe("epo:released").options}
    assert (released["penalty"].value, released["penalty"].of_preset) == ('"indicator"', True)
    assert (released["alpha"].value, released["alpha"].of_preset) == ("0.1", False)
    assert ("kl_coef", "0.01") in describe("epo:released").base_options


def test_a_refused_preset_is_told_with_its_reason() -> None:
    assert "code" in describe("empg").refused["released"]


@pytest.mark.parametrize(("called", "word"), [("epoo", "epo"), ("epo:release", "released")])
def test_an_unknown_name_is_answered_with_the_nearest(called: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        describe(called)
