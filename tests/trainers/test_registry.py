from collections.abc import Callable
from pathlib import Path

import pytest

from agentgym.errors import DataError, UsageError
from agentgym.trainers.epo import EPO
from agentgym.trainers.grpo import GRPO
from agentgym.trainers.policy_gradient import refuse_groups_of_one
from agentgym.trainers.registry import build_chain, method_class, method_names


@pytest.mark.parametrize("name", method_names())
def test_every_registered_method_can_be_built_and_says_what_it_is(name) -> None:
    chain = build_chain({"name": name}, steps=10)
    cls = method_class(name)
    assert chain.name == cls.name == name
    assert isinstance(chain.links[-1], cls)
    assert cls.summary
    assert cls.__doc__
    assert all(field.description for field in cls.options_type.model_fields.values())


def test_without_a_name_it_is_grpo() -> None:
    assert [type(link) for link in build_chain({}, steps=10).links] == [GRPO]


def test_a_method_stands_on_its_base_and_both_take_their_options() -> None:
    chain = build_chain({"name": "epo", "alpha": 0.05, "clip_high": 0.28}, steps=10)
    assert [type(link) for link in chain.links] == [GRPO, EPO]
    assert chain.options()["epo"]["alpha"] == 0.05
    assert chain.options()["grpo"]["clip_high"] == 0.28


def test_an_option_that_both_have_is_the_methods() -> None:
    options = build_chain({"name": "epo", "entropy_coef": 0.01}, steps=10).options()
    assert options["epo"]["entropy_coef"] == 0.01
    assert options["grpo"]["entropy_coef"] == 0


def test_a_preset_sets_options_that_can_still_be_overridden() -> None:
    chain = build_chain({"name": "epo:released", "kl_coef": 0.0}, steps=10)
    options = chain.options()
    assert chain.name == "epo:released"
    assert options["epo"]["penalty"] == "indicator"
    assert options["grpo"]["unit"] == "turn"
    assert options["grpo"]["kl_coef"] == 0


@pytest.mark.parametrize("layout", ["full", "window"])
@pytest.mark.parametrize(
    ("name", "long", "short"),
    [
        ("epo:released", 0.447212, -1.788850),
        ("drbot:released", 0.2, -0.8),
        ("spear:released", 0.2, -0.8),
    ],
)
def test_as_released_each_turn_counts_in_the_groups_statistics_whatever_a_row_is(
    name, long, short, layout, make_trajectory, make_batch
) -> None:
    # Four turns and a return of 1, one turn and 0: mean .8, deviation sqrt(.2)
    won = make_trajectory("t", 0, (1, 1, 1, 1), won=True, layout=layout)
    lost = make_trajectory("t", 1, (1,), won=False, layout=layout)
    batch = make_batch([won, lost])
    advantage_BT = build_chain({"name": name}, steps=10).links[0].advantages(batch, 1).advantage_BT
    found = advantage_BT[batch.mask_BT > 0].tolist()
    assert found == pytest.approx([long] * 4 + [short], abs=1e-5)


@pytest.mark.parametrize("name", method_names())
def test_every_option_of_a_preset_is_the_methods_or_that_of_a_base(name) -> None:
    cls = method_class(name)
    known = set(cls.options_type.model_fields)
    for base in cls.bases if cls.role == "method" else ():
        known |= set(method_class(base).options_type.model_fields)
    for preset in cls.presets.values():
        assert set(preset) <= known


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "epoo"}, "did you mean epo"),
        ({"name": "epo:relased"}, "did you mean released"),
        ({"name": "epo:"}, "preset of epo ''; known: released"),
        ({"name": "spear", "base": "gigop"}, "did you mean gigpo"),
        ({"name": "epo", "base": "grp"}, "did you mean grpo"),
        ({"name": "grpo", "base": "epo"}, "is a base itself"),
        ({"name": "epo", "aplha": 0.1}, "did you mean alpha"),
        ({"name": "epo", "alpha": -1}, "method.alpha = -1"),
        ({"name": "epo", "penalty": "wall"}, "method.penalty = 'wall'"),
        (
            {"name": "grpo", "aggregation": "seq-mean-token-sum-norm"},
            "^method: seq-mean-token-sum-norm needs sum_norm",
        ),
        ({"name": "spear", "tool_action": "("}, r"^method.tool_action = '\(': no regular"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        build_chain(settings, steps=10)


RELATIVE = {"arpo", "aepo", "dapo", "drbot", "drgrpo", "empg", "epo", "gigpo", "grpo", "igpo"} | {
    "rloo",
    "spear",
    "reinforce++:baseline",
}


@pytest.mark.parametrize("name", [*method_names(), "reinforce++:baseline"])
def test_groups_of_one_are_refused_where_members_are_compared_and_there_only(name) -> None:
    chain = build_chain({"name": name}, steps=10)
    refuse_groups_of_one(chain, 2)
    if name not in RELATIVE:
        refuse_groups_of_one(chain, 1)
        return
    with pytest.raises(UsageError, match=r"hook advantages of \S+ needs GROUPS, .* is 1; set it"):
        refuse_groups_of_one(chain, 1)


# Methods in a file of their own ---------------------------------------------------------------

HALVING = """
from __future__ import annotations
from typing import ClassVar, Optional
from agentgym.trainers.grpo import GRPO
from agentgym.trainers.method import Method, Options

class HalvingOptions(Options):
    share: Optional[float] = 0.5

class Halving(Method[HalvingOptions]):
    name = "halving"
    summary = "halves"
    options_type: ClassVar[type[Options]] = HalvingOptions
    presets = {"hard": {"share": 0.1}}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Write a Python file and return its name."""

    def write(text: str) -> str:
        path = tmp_path / "halving.py"
        path.write_text(text)
        return str(path)

    return write


def test_a_method_is_found_by_its_file_wherever_it_is(write) -> None:
    name = write(HALVING)
    chain = build_chain({"name": name, "share": 0.25, "clip_high": 0.3}, steps=10)
    assert chain.name == "halving"
    assert chain.options()["halving"] == {"share": 0.25}
    assert chain.options()["grpo"]["clip_high"] == 0.3
    assert method_class(name) is method_class(name)


def test_a_method_in_a_file_has_presets_as_any_other(write) -> None:
    chain = build_chain({"name": f"{write(HALVING)}:hard"}, steps=10)
    assert chain.name == "halving:hard"
    assert chain.options()["halving"] == {"share": 0.1}


SETTING = 'presets = {"hard": {"share": 0.1}}'
SETTINGS = ["presets = {'hard': %s}", "base_defaults = %s; presets = {'hard': {}}"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_method_sets_is_an_option_of_its_own_or_of_a_base(write, setting) -> None:
    on_two = HALVING.replace(SETTING, f'bases = ("grpo", "ppo"); {setting}')
    name = f"{write(on_two % {'share': 0.1, 'gae': 'row'})}:hard"
    assert "gae" not in build_chain({"name": name}, steps=10).options()["grpo"]
    assert build_chain({"name": name, "base": "ppo"}, steps=10).options()["ppo"]["gae"] == "row"


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_method_sets_and_nothing_has_is_refused_with_the_nearest(write, setting) -> None:
    name = write(HALVING.replace(SETTING, setting % {"shair": 0.1}))
    with pytest.raises(
        DataError, match=r"halving sets .* unknown option 'shair'; did you mean share"
    ):
        build_chain({"name": f"{name}:hard"}, steps=10)


def test_an_option_without_a_default_is_asked_for(write) -> None:
    name = write(HALVING.replace("Optional[float] = 0.5", "float"))
    assert build_chain({"name": f"{name}:hard"}, steps=10).options()["halving"] == {"share": 0.1}
    with pytest.raises(UsageError, match=r"^method.share: Field required$"):
        build_chain({"name": name}, steps=10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:", "cannot import"),
        ("import no_such_module_anywhere", "cannot import"),
        ("x = 1\ny = z", "line 2: NameError: name 'z' is not defined"),
        ("from agentgym.trainers.grpo import GRPO", "one Method of its own; it has none"),
        (HALVING + "class Other(Halving): ...", "it has Halving, Other"),
    ],
)
def test_a_file_without_one_method_of_its_own_is_refused(write, text, message) -> None:
    with pytest.raises(DataError, match=message):
        method_class(write(text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        method_class(str(tmp_path / "nothing.py"))
