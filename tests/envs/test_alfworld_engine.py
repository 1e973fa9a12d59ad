"""The native engine plays a game file as TextWorld does, quirks included."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agentgym.envs.alfworld_engine import Engine, entity_names, task_sentence
from agentgym.envs.alfworld_files import GameFiles
from agentgym.errors import DataError

Quirks = Callable[..., GameFiles]
TRANSCRIPT = Path(__file__).parent / "alfworld_quirks.txt"  # of TextWorld 1.7.0


@pytest.fixture
def engine(quirks: Quirks) -> Engine:
    return Engine(quirks())


def play(engine: Engine, *commands: str) -> str:
    """Do commands that must all be known; return what is said to the last."""
    engine.reset()
    for command in commands:
        assert command in engine.admissible, command
        said = engine.step(command)
    return said


# As TextWorld ---------------------------------------------------------------------------------


def test_a_tour_of_every_command_reads_as_in_textworld(engine: Engine) -> None:
    turns = re.findall(r"> (.*)\n((?:(?!> ).*\n)*)", TRANSCRIPT.read_text())
    (_, opening), *rest = turns
    assert len(rest) > 80
    assert engine.reset() == opening.removesuffix("\n")
    for command, said in rest:
        assert (command, engine.step(command)) == (command, said.removesuffix("\n"))


def test_the_opening_lists_all_receptacles_by_falling_number_and_the_task(engine: Engine) -> None:
    assert engine.reset() == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are in the middle of a room. Looking quickly around you, you see a bathtubbasin 1, a"
        " cabinet 2, a cabinet 1, a countertop 2, a countertop 1, a fridge 1, a microwave 1, and"
        " a sinkbasin 1.\n\nYour task is to: put two apple in cabinet."
    )
    assert engine.goal == "put two apple in cabinet."


def test_look_before_the_first_go_to_sees_nothing(engine: Engine) -> None:
    assert play(engine, "look") == (
        "You are in the middle of a room. Looking quickly around you, you see nothing."
    )


def test_receptacles_that_share_a_place_are_all_within_reach(engine: Engine) -> None:
    play(engine, "go to countertop 1")
    assert "take apple 2 from countertop 2" in engine.admissible
    assert "examine countertop 2" in engine.admissible


def test_going_where_one_stands_is_no_action(engine: Engine) -> None:
    play(engine, "go to countertop 1")
    assert not {"go to countertop 1", "go to countertop 2"} & set(engine.admissible)
    before = engine.admissible
    assert engine.step("go to countertop 2") == "Nothing happens."
    assert engine.admissible == before


def test_next_to_it_names_only_what_was_moved_between_receptacles_at_one_place(
    engine: Engine,
) -> None:
    moved = ["go to countertop 1", "take apple 2 from countertop 2"]
    assert play(engine, *moved, "look").endswith("Next to it, you see nothing.")
    moved += ["move apple 2 to countertop 1"]
    assert play(engine, *moved, "look") == (
        "You are facing the countertop 2, and countertop 1. Next to it, you see a apple 2."
    )


def test_only_what_is_held_can_be_examined(engine: Engine) -> None:
    play(engine, "go to countertop 1")
    assert "examine apple 2" not in engine.admissible
    engine.step("take apple 2 from countertop 2")
    assert engine.step("examine apple 2") == "There's nothing special about apple 2."


def test_hands_hold_one_thing(engine: Engine) -> None:
    play(engine, "go to countertop 1", "take apple 2 from countertop 2")
    assert not [command for command in engine.admissible if command.startswith("take")]
    assert engine.step("inventory") == "You are carrying: a apple 2."


def test_a_closed_receptacle_takes_and_gives_nothing(engine: Engine) -> None:
    play(engine, "go to cabinet 1")
    assert "take apple 1 from cabinet 1" not in engine.admissible
    assert engine.step("open cabinet 1") == (
        "You open the cabinet 1. The cabinet 1 is open. In it, you see a apple 1."
    )
    assert "take apple 1 from cabinet 1" in engine.admissible
    engine.step("close cabinet 1")
    assert "take apple 1 from cabinet 1" not in engine.admissible


def test_heating_and_cooling_ask_for_no_open_door_and_undo_each_other(engine: Engine) -> None:
    held = ["go to countertop 1", "take apple 2 from countertop 2", "go to microwave 1"]
    held += ["heat apple 2 with microwave 1"]
    assert play(engine, *held, "examine apple 2") == "This is a hot apple 2."
    held += ["go to fridge 1", "cool apple 2 with fridge 1"]
    assert play(engine, *held, "examine apple 2") == "This is a cold apple 2."


def test_a_sink_cleans_and_a_bathtub_does_not(engine: Engine) -> None:
    held = ["go to countertop 1", "take cup 1 from countertop 1"]
    play(engine, *held, "go to bathtubbasin 1")
    assert not [command for command in engine.admissible if command.startswith("clean")]
    play(engine, *held, "go to sinkbasin 1")
    assert "clean cup 1 with sinkbasin 1" in engine.admissible


def test_a_lamp_is_turned_on_and_never_off(engine: Engine) -> None:
    on = "You turn on the desklamp 1."
    assert play(engine, "go to countertop 1", "use desklamp 1") == on
    assert engine.step("use desklamp 1") == on


def test_a_knife_slices_what_lies_at_its_place_and_the_name_stays(engine: Engine) -> None:
    said = play(
        engine, "go to countertop 1", "take knife 1 from countertop 1", "slice apple 2 with knife 1"
    )
    assert said == "You sliced the apple 2 with the knife 1."
    assert "slice apple 1 with knife 1" not in engine.admissible


def test_commands_are_compared_to_the_letter_but_for_white_space_around(engine: Engine) -> None:
    engine.reset()
    assert engine.step("LOOK") == "Nothing happens."
    assert engine.step("look at cabinet 1") == "Nothing happens."
    assert engine.step("\t go to cabinet 1 \n").startswith("You arrive at cabinet 1.")


def test_admissible_commands_are_sorted_each_once_with_help(engine: Engine) -> None:
    engine.reset()
    assert list(engine.admissible) == sorted(set(engine.admissible))
    assert {"help", "look", "inventory"} <= set(engine.admissible)


def test_the_game_is_won_while_the_goal_holds(engine: Engine) -> None:
    winning = ["go to countertop 1", "take apple 2 from countertop 2", "go to cabinet 1"]
    winning += ["open cabinet 1", "move apple 2 to cabinet 1"]
    assert not engine.won
    play(engine, *winning)
    assert engine.won
    engine.step("take apple 1 from cabinet 1")
    assert not engine.won


def test_a_reset_forgets_everything(engine: Engine) -> None:
    opening, first = engine.reset(), engine.admissible
    play(engine, "go to cabinet 1", "open cabinet 1", "take apple 1 from cabinet 1")
    assert engine.reset() == opening
    assert engine.admissible == first


# Wording --------------------------------------------------------------------------------------


def test_older_games_put_arrive_at_numbered_places_and_have_no_help(quirks: Quirks) -> None:
    engine = Engine(quirks(older=True))
    engine.reset()
    assert "help" not in engine.admissible
    assert engine.step("go to countertop 1").startswith("You arrive at loc 6. On the countertop 1")
    engine.step("take apple 2 from countertop 2")
    assert engine.step("move apple 2 to countertop 1") == "Nothing happens."
    assert engine.step("put apple 2 in/on countertop 1") == (
        "You put the apple 2 in/on the countertop 1."
    )


def test_wording_is_the_game_files_own(quirks: Quirks) -> None:
    grammar = quirks().game["grammar"].replace("You are not carrying anything.", "Empty hands.")
    engine = Engine(quirks(grammar=grammar))
    assert play(engine, "inventory") == "Empty hands."


def test_a_command_whose_words_depend_on_what_holds_changes_with_it(quirks: Quirks) -> None:
    grammar = (
        quirks()
        .game["grammar"]
        .replace(
            'template :: "examine {r}"',
            "template :: \"examine {r}{' again' | not_opened(r:receptacle)}\"",
        )
    )
    engine = Engine(quirks(grammar=grammar))
    play(engine, "go to cabinet 1", "open cabinet 1")
    assert "examine cabinet 1" in engine.admissible
    engine.step("close cabinet 1")
    assert "examine cabinet 1 again" in engine.admissible


def test_the_first_of_a_class_by_identifier_has_the_highest_number() -> None:
    ids = ["cup_bar_b", "cup_bar_a", "sink_bar_a", "sink_bar_a_bar_sinkbasin", "agent1"]
    assert entity_names(ids) == {
        "cup_bar_a": "cup 2",
        "cup_bar_b": "cup 1",
        "sink_bar_a": "sink 1",
        "sink_bar_a_bar_sinkbasin": "sinkbasin 1",
        "agent1": "agent1 ",
    }


def test_a_task_is_what_follows_your_task_is_to() -> None:
    assert task_sentence("Hello.\n\nYour task is to: find a cup.") == "find a cup."
    with pytest.raises(DataError, match="Your task is to"):
        task_sentence("Hello.")


# Broken games ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "break_it", "why"),
    [
        ("pddl_problem", lambda text: text[:-200], "parenthesis is left open"),
        ("pddl_problem", lambda text: text + ")", "never opened"),
        ("pddl_problem", lambda text: "", "cut off"),
        ("pddl_problem", lambda text: text.replace("(define", "(def"), "begins with"),
        ("pddl_problem", lambda text: text.replace(":goal", ":aim"), "one :init and one :goal"),
        ("pddl_problem", lambda text: text.replace("agent1 - agent", ""), "agent1, which is no"),
        (
            "pddl_problem",
            lambda text: text.replace("(:init", "(:init (atLocation)"),
            "another number",
        ),
        ("pddl_problem", lambda text: text.replace("exists (?r", "forall (?r"), "forall"),
        ("pddl_problem", lambda text: None, "NoneType, expected a text"),
        ("pddl_domain", lambda text: text.replace("(:types", "(:derived"), ":derived"),
        ("pddl_domain", lambda text: text.replace(":effect", ":result"), ":result"),
        ("pddl_domain", lambda text: text.replace("(:action look", "(:action stare"), "stare"),
        ("grammar", lambda text: text.rstrip()[:-1], "the grammar, got the end of the text"),
        ("grammar", lambda text: text + "action", "the grammar, got the end of the text"),
        ("grammar", lambda text: text + '"', "stray"),
        ("grammar", lambda text: text.replace(':: "#carried#"', ':: "#load#"'), "no rule 'load'"),
        ("grammar", lambda text: text.replace('"rhs"', '"lhs"'), "rules are broken"),
        ("grammar", lambda text: text.replace("#task#", "#chore#"), "no rule 'chore'"),
        ("grammar", lambda text: text.replace("#contents#", "#receptacle#"), "each other for ever"),
        ("grammar", lambda text: text.replace("{r.name}", "{r.open()}"), "not supported"),
        ("grammar", lambda text: text.replace("{r.name}", "{r.shape}"), "r.shape"),
        ("grammar", lambda text: text.replace("holds(a:agent", "holds a:agent"), "no question"),
    ],
)
def test_a_broken_game_is_refused_with_its_name_and_the_reason(
    quirks: Quirks, key: str, break_it: Callable[[str], object], why: str
) -> None:
    with pytest.raises(DataError, match=re.escape(why)) as error:
        Engine(quirks(**{key: break_it(quirks().game[key])}))
    assert "game quirks cannot be played" in str(error.value)
