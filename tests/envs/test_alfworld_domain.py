"""The package's own domain and grammar: what can be done, and the benchmark's words for it."""

from __future__ import annotations

import pytest

from agentgym.envs.alfworld_engine import Engine
from agentgym.envs.alfworld_files import GameFiles
from agentgym.envs.alfworld_layout import Item, Layout
from agentgym.envs.alfworld_rooms import Receptacle, Room, read_data
from agentgym.envs.alfworld_tasks import HEAT, Task

COUNTER = Receptacle("CounterTop|+01.00|+00.90|+01.00", "CounterTop", (2, 4, 1, 30))
MACHINE = Receptacle("CoffeeMachine|+01.20|+01.00|+01.00", "CoffeeMachine", (2, 4, 1, 30))
FRIDGE = Receptacle("Fridge|-01.00|+00.00|+01.00", "Fridge", (-2, 4, 3, 0))
MICROWAVE = Receptacle("Microwave|-01.00|+01.00|-01.00", "Microwave", (-2, -4, 3, 0))
SINK = Receptacle("Sink|+01.00|+00.90|-01.00|SinkBasin", "SinkBasin", (2, -4, 1, 30))

APPLE = Item("Apple|+00.10|+00.90|+00.10", "Apple", COUNTER)
COLD_APPLE = Item("Apple|+00.20|+00.90|+00.10", "Apple", FRIDGE)
KNIFE = Item("Knife|+00.10|+00.90|+00.30", "Knife", COUNTER)
MUG = Item("Mug|+00.10|+00.90|+00.40", "Mug", MACHINE)
LAMP = Item("DeskLamp|+00.10|+00.90|+00.50", "DeskLamp", COUNTER)


@pytest.fixture
def kitchen() -> Engine:
    receptacles = (COUNTER, MACHINE, FRIDGE, MICROWAVE, SINK)
    start = (0, 0, 0, 30)
    room = Room(1, "kitchen", receptacles, ("Apple", "Knife", "Mug"), True, (start,))
    task = Task(HEAT, "Apple", "CounterTop")
    layout = Layout(room, task, (APPLE, COLD_APPLE, KNIFE, MUG, LAMP), start)
    game = {
        "pddl_domain": read_data("domain.pddl"),
        "grammar": read_data("grammar.twl2").replace("UNKNOWN GOAL", task.sentences[0]),
        "pddl_problem": layout.problem(),
        "solvable": True,
        "walkthrough": layout.walkthrough(),
    }
    return Engine(
        GameFiles("kitchen", game, {"task_type": task.type, "pddl_params": task.parameters})
    )


def says(engine: Engine, *commands: str) -> str:
    """Return what the game says to the last of some commands, all of which it must know."""
    said = ""
    for command in commands:
        assert command in engine.admissible, command
        said = engine.step(command)
    return said


def test_the_opening_lists_the_receptacles_and_names_the_task(kitchen: Engine) -> None:
    assert kitchen.reset() == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are in the middle of a room. Looking quickly around you, you see a coffeemachine 1,"
        " a countertop 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\n"
        "Your task is to: put a hot apple in countertop."
    )


def test_before_the_first_step_away_looking_sees_nothing(kitchen: Engine) -> None:
    assert says(kitchen, "look") == (
        "You are in the middle of a room. Looking quickly around you, you see nothing."
    )


def test_at_the_start_one_can_go_anywhere_and_do_nothing_else(kitchen: Engine) -> None:
    assert kitchen.admissible == (
        "go to coffeemachine 1",
        "go to countertop 1",
        "go to fridge 1",
        "go to microwave 1",
        "go to sinkbasin 1",
        "help",
        "inventory",
        "look",
    )


def test_an_open_surface_shows_what_is_on_it_in_the_order_of_identifiers(kitchen: Engine) -> None:
    assert says(kitchen, "go to countertop 1") == (
        "You arrive at countertop 1. On the countertop 1, you see a apple 2, a desklamp 1, and a"
        " knife 1."
    )


def test_a_closed_receptacle_shows_nothing_until_it_is_opened(kitchen: Engine) -> None:
    assert says(kitchen, "go to fridge 1") == "You arrive at fridge 1. The fridge 1 is closed."
    assert "take apple 1 from fridge 1" not in kitchen.admissible
    assert says(kitchen, "open fridge 1") == (
        "You open the fridge 1. The fridge 1 is open. In it, you see a apple 1."
    )
    assert "open fridge 1" not in kitchen.admissible
    assert says(kitchen, "close fridge 1") == "You close the fridge 1."
    assert says(kitchen, "examine fridge 1") == "The fridge 1 is closed."


def test_receptacles_at_one_place_are_used_together_and_not_gone_to(kitchen: Engine) -> None:
    assert says(kitchen, "go to coffeemachine 1", "look") == (
        "You are facing the coffeemachine 1, and countertop 1. Next to it, you see nothing."
    )
    assert "go to countertop 1" not in kitchen.admissible
    assert "take knife 1 from countertop 1" in kitchen.admissible


def test_looking_shows_what_was_moved_from_one_to_another_at_one_place(kitchen: Engine) -> None:
    taken = ("go to countertop 1", "take mug 1 from coffeemachine 1", "move mug 1 to countertop 1")
    assert says(kitchen, *taken, "look").endswith("Next to it, you see a mug 1.")


def test_one_hand_holds_one_thing(kitchen: Engine) -> None:
    assert says(kitchen, "inventory") == "You are not carrying anything."
    taken = says(kitchen, "go to countertop 1", "take knife 1 from countertop 1")
    assert taken == "You pick up the knife 1 from the countertop 1."
    assert says(kitchen, "inventory") == "You are carrying: a knife 1."
    assert not [command for command in kitchen.admissible if command.startswith("take")]
    assert says(kitchen, "move knife 1 to countertop 1") == (
        "You move the knife 1 to the countertop 1."
    )


def test_only_what_is_held_can_be_examined(kitchen: Engine) -> None:
    says(kitchen, "go to countertop 1")
    assert "examine apple 2" not in kitchen.admissible
    assert says(kitchen, "take apple 2 from countertop 1", "examine apple 2") == (
        "There's nothing special about apple 2."
    )


def test_things_go_only_where_such_things_can_be(kitchen: Engine) -> None:
    says(kitchen, "go to countertop 1", "take apple 2 from countertop 1")
    assert "move apple 2 to coffeemachine 1" not in kitchen.admissible
    says(kitchen, "go to microwave 1")
    assert "move apple 2 to microwave 1" not in kitchen.admissible  # closed
    says(kitchen, "open microwave 1")
    assert "move apple 2 to microwave 1" in kitchen.admissible


def test_cleaning_heating_and_cooling_add_up_as_examining_tells(kitchen: Engine) -> None:
    says(kitchen, "go to countertop 1", "take apple 2 from countertop 1")
    heated = says(kitchen, "go to microwave 1", "heat apple 2 with microwave 1")  # door closed
    assert heated == "You heat the apple 2 using the microwave 1."
    assert says(kitchen, "examine apple 2") == "This is a hot apple 2."
    cooled = says(kitchen, "go to fridge 1", "cool apple 2 with fridge 1")
    assert cooled == "You cool the apple 2 using the fridge 1."
    assert says(kitchen, "examine apple 2") == "This is a cold apple 2."
    cleaned = says(kitchen, "go to sinkbasin 1", "clean apple 2 with sinkbasin 1")
    assert cleaned == "You clean the apple 2 using the sinkbasin 1."
    assert says(kitchen, "examine apple 2") == "This is a cool and clean apple 2."
    again = ("go to microwave 1", "heat apple 2 with microwave 1", "examine apple 2")
    assert says(kitchen, *again) == "This is a hot and clean apple 2."


@pytest.mark.parametrize(
    ("treatments", "sentence"),
    [
        ((), "This is a sliced apple 2."),
        (("clean",), "This is a clean sliced apple 2."),
        (("heat",), "This is a hot sliced apple 2."),
        (("cool",), "This is a cool sliced apple 2."),
        (("clean", "heat"), "This is a hot and clean sliced apple 2."),
        (("clean", "cool"), "This is a cool and clean sliced apple 2."),
    ],
)
def test_what_is_sliced_says_so_and_can_be_treated(
    kitchen: Engine, treatments: tuple[str, ...], sentence: str
) -> None:
    stations = {"clean": "sinkbasin 1", "heat": "microwave 1", "cool": "fridge 1"}
    says(kitchen, "go to countertop 1", "take knife 1 from countertop 1")
    sliced = says(kitchen, "slice apple 2 with knife 1")
    assert sliced == "You sliced the apple 2 with the knife 1."
    says(kitchen, "move knife 1 to countertop 1", "take apple 2 from countertop 1")
    for verb in treatments:
        says(kitchen, f"go to {stations[verb]}", f"{verb} apple 2 with {stations[verb]}")
    assert says(kitchen, "examine apple 2") == sentence


def test_only_a_knife_slices_and_only_what_is_here(kitchen: Engine) -> None:
    says(kitchen, "go to countertop 1", "take knife 1 from countertop 1", "go to sinkbasin 1")
    assert not [command for command in kitchen.admissible if command.startswith("slice")]


def test_a_container_is_always_normal_and_empty(kitchen: Engine) -> None:
    says(kitchen, "go to coffeemachine 1", "take mug 1 from coffeemachine 1")
    says(kitchen, "go to sinkbasin 1", "clean mug 1 with sinkbasin 1")
    assert says(kitchen, "examine mug 1") == "This is a normal mug 1. In it, you see nothing."


def test_a_lamp_turns_on_each_time_and_is_not_carried_about(kitchen: Engine) -> None:
    says(kitchen, "go to countertop 1")
    assert says(kitchen, "use desklamp 1") == "You turn on the desklamp 1."
    assert says(kitchen, "use desklamp 1") == "You turn on the desklamp 1."
    assert "take desklamp 1 from countertop 1" not in kitchen.admissible


def test_help_names_every_kind_of_command(kitchen: Engine) -> None:
    said = says(kitchen, "help")
    verbs = ("look", "inventory", "go to", "open", "close", "take", "move", "examine", "use")
    assert all(f"\n  {verb}" in said for verb in (*verbs, "heat", "clean", "cool", "slice"))
    assert said.startswith("Available commands:\n  look: ")


def test_the_goal_asks_for_the_state_and_the_place(kitchen: Engine) -> None:
    says(kitchen, "go to countertop 1", "take apple 2 from countertop 1")
    says(kitchen, "move apple 2 to countertop 1")
    assert not kitchen.won
    says(kitchen, "take apple 2 from countertop 1", "go to microwave 1")
    says(kitchen, "heat apple 2 with microwave 1", "go to countertop 1")
    assert not kitchen.won
    says(kitchen, "move apple 2 to countertop 1")
    assert kitchen.won


def test_domain_and_grammar_have_the_same_actions() -> None:
    grammar, domain = read_data("grammar.twl2"), read_data("domain.pddl")
    named = {line.split()[1] for line in grammar.splitlines() if line.startswith("action ")}
    known = {line.split()[1] for line in domain.splitlines() if "(:action" in line}
    assert named == known
