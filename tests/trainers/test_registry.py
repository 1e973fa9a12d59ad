import pytest

from agentgym.errors import UsageError
from agentgym.trainers.epo import EPO
from agentgym.trainers.grpo import GRPO
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
    assert options["grpo"]["unit"] == "row"
    assert options["grpo"]["kl_coef"] == 0


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
        ({"name": "epo", "base": "grp"}, "did you mean grpo"),
        ({"name": "grpo", "base": "epo"}, "is a base itself"),
        ({"name": "epo", "aplha": 0.1}, "did you mean alpha"),
        ({"name": "epo", "alpha": -1}, "method.alpha = -1"),
        ({"name": "epo", "penalty": "wall"}, "method.penalty = 'wall'"),
        ({"name": "grpo", "aggregation": "seq-mean-token-sum-norm"}, "sum_norm"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        build_chain(settings, steps=10)
