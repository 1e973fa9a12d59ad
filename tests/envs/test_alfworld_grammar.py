"""The text grammar reads as TextWorld reads it and says what the facts make of it."""

from __future__ import annotations

import pytest

from agentgym.envs.alfworld_grammar import read_grammar, read_phrase
from agentgym.envs.alfworld_logic import Facts
from agentgym.envs.alfworld_phrases import Grammar, Scene
from agentgym.errors import DataError

FACTS = {
    "inreceptacle": {("cup_b", "shelf"), ("cup_a", "shelf"), ("mug", "shelf")},
    "clean": {("mug",)},
}
MEMBERS = {"object": {"cup_a", "cup_b", "mug", "shelf"}, "receptacle": {"shelf"}}
NAMES = {"cup_a": "cup 2", "cup_b": "cup 1", "mug": "mug 1", "shelf": "shelf 1"}
RULES = """
grammar :: \"\"\"{
    "list_empty": [{"rhs": "nothing"}],
    "list_separator": [{"rhs": ", "}],
    "list_last_separator": [{"rhs": ", and "}],
    "state(o)": [
        {"condition": "clean(o:object)", "rhs": "a clean {o.name}"},
        {"rhs": "{o.indefinite} {o.name}"}
    ],
    "never": [{"condition": "dirty(o:object)", "rhs": "dirty"}]
}\"\"\";
"""


@pytest.fixture
def scene() -> Scene:
    return Scene(Facts(FACTS, MEMBERS), NAMES)


@pytest.fixture
def grammar() -> Grammar:
    return read_grammar(RULES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{o.name}", "mug 1"),
        ("{o}", "mug 1"),
        ("{o.id}", "mug"),
        ("{o.definite + ' ' + o.name}", "the mug 1"),
        ("{o.name or o.id}", "mug 1"),
        ("#state(o)#.", "a clean mug 1."),
        ("[{x.name | inreceptacle(x:object, r:receptacle)}]", "cup 2, and cup 1"),
        ("{x.name | inreceptacle(x:object, r:receptacle)}", "cup 2cup 1"),
        ("[{#state(o)# | inreceptacle(o:object, r:receptacle)}]", "a clean mug 1"),
        ("[{x.name | inreceptacle(x:object, y:receptacle) & dirty(x:object)}]", "nothing"),
    ],
)
def test_a_phrase_is_said_of_what_its_variables_stand_for(
    grammar: Grammar, scene: Scene, text: str, said: str
) -> None:
    # Different variables stand for different things: x is never the mug, which o is.
    binding = {"?o": "mug", "?r": "shelf"}
    assert grammar.say(read_phrase(text), scene, binding) == said


def test_a_list_of_three_has_one_last_separator(grammar: Grammar, scene: Scene) -> None:
    listing = read_phrase("[{x.name | inreceptacle(x:object, r:receptacle)}]")
    assert grammar.say(listing, scene, {"?r": "shelf"}) == "cup 2, cup 1, and mug 1"


@pytest.mark.parametrize(
    ("text", "said"),
    [  # all as TextWorld 1.7.0 reads them
        ("\nAvailable", "Available"),
        ("  lead", "lead"),
        ("// note\nlead", "lead"),
        ("a\tb", "a\tb"),
        ("{o}\t{o}", "mug 1mug 1"),
        ("{o}\n\n{o}", "mug 1\n\nmug 1"),
        ('say "hi" x', "say hi x"),
        ("a;b", "a"),
        ("a<b", "a"),
        ("a|b", "a"),
        ("a{", "a"),
        ("{o} in {o})}", "mug 1 in mug 1)"),
        ("", ""),
    ],
)
def test_reading_drops_what_textworld_drops(
    grammar: Grammar, scene: Scene, text: str, said: str
) -> None:
    assert grammar.say(read_phrase(text), scene, {"?o": "mug"}) == said


def test_a_rule_without_an_alternative_that_applies_is_an_error(
    grammar: Grammar, scene: Scene
) -> None:
    with pytest.raises(DataError, match="'never' has no alternative"):
        grammar.say(read_phrase("#never#"), scene, {})


def test_a_variable_that_stands_for_nothing_is_an_error(grammar: Grammar, scene: Scene) -> None:
    with pytest.raises(DataError, match="'o', which stands for nothing"):
        grammar.say(read_phrase("{o.name}"), scene, {})


@pytest.mark.parametrize(
    "expression", ["__import__('os').system('true')", "o.__class__", "o.name * 9", "1", "o.name +"]
)
def test_nothing_of_a_game_file_is_executed(expression: str) -> None:
    with pytest.raises(DataError, match=r"expression|asks for"):
        read_phrase(f"{{{expression}}}")


def test_an_action_needs_a_template_and_a_feedback() -> None:
    with pytest.raises(DataError, match="action look of the grammar needs"):
        read_grammar('action look { template :: "look"; }')


def test_a_later_rule_of_the_same_name_replaces_the_earlier(scene: Scene) -> None:
    grammar = read_grammar(RULES + 'grammar :: """{"never": [{"rhs": "ever"}]}""";')
    assert grammar.say(read_phrase("#never#"), scene, {}) == "ever"
