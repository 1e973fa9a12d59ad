"""The searching demonstrator: what it knows it has read, and nothing stops it for good."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from agentgym.envs.alfworld_demonstrator import Demonstrator, Memory, read_task
from agentgym.envs.alfworld_engine import Engine
from agentgym.envs.alfworld_generate import generate, task_ids
from agentgym.envs.alfworld_tasks import COOL, SENTENCES, TASK_TYPES, TWO, Task
from agentgym.errors import UsageError


def play(task: str, *, slips: float = 0.0, turns: int = 50) -> list[str] | None:
    """Return the commands that won a training game, or None; some are replaced by slips."""
    engine = Engine(generate("gen-train", task))
    observation = engine.reset()
    rng = random.Random(task)
    player = Demonstrator(engine.goal, rng)
    done: list[str] = []
    while not engine.won and len(done) < turns:
        command = player.act(observation, engine.admissible)
        assert command in engine.admissible
        if rng.random() < slips:
            command = rng.choice([*engine.admissible, "go to moon 1", "take it"])
        done.append(command)
        observation = engine.step(command)
    return done if engine.won else None


def test_it_wins_nine_in_ten_training_games_within_thirty_turns() -> None:
    games = [play(task, turns=30) for task in task_ids("gen-train")[:240]]
    turns = [len(game) for game in games if game]
    assert len(turns) >= 0.9 * len(games)
    assert 8 <= mean(turns) <= 16


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_it_wins_in_spite_of_slips(task_type: str) -> None:
    for number in range(10):
        assert play(f"{task_type}-{number:04d}", slips=0.3, turns=250), number


def test_the_same_generator_gives_the_same_game() -> None:
    assert play("pick_two_obj_and_place-0001") == play("pick_two_obj_and_place-0001")


def test_it_never_looks_into_a_receptacle_twice_while_it_searches() -> None:
    for task in task_ids("gen-train")[:60]:
        game = play(task) or []
        search = [c for c in game if c.startswith("open ")]
        assert len(set(search)) == len(search), task


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_it_reads_both_sentences_of_a_type(task_type: str) -> None:
    task = Task(task_type, "cd", "safe")
    assert {read_task(sentence) for sentence in task.sentences} == {task}
    assert len(SENTENCES[task_type]) == 2


def test_a_sentence_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="look at book under the desklamp"):
        Demonstrator("tidy up the kitchen", random.Random(0))


# What it does with what it reads --------------------------------------------------------------

ROOM = ("go to cabinet 1", "go to cabinet 2", "go to countertop 1", "go to fridge 1", "look")
MIDDLE = "You are in the middle of a room."


def player(goal: str, plausible: float = 1.0) -> Demonstrator:
    return Demonstrator(goal, random.Random(0), plausible)


def test_it_goes_where_such_things_are_kept_lowest_number_first() -> None:
    # of these only cabinets hold kettles, beside counters; fridges never do
    drawn = {
        Demonstrator("put a kettle in shelf", random.Random(seed), 1.0).act(MIDDLE, ROOM)
        for seed in range(20)
    }
    assert drawn == {"go to cabinet 1", "go to countertop 1"}


def test_it_goes_anywhere_else_of_the_time() -> None:
    drawn = {
        Demonstrator("put a kettle in shelf", random.Random(seed), 0.0).act(MIDDLE, ROOM)
        for seed in range(20)
    }
    assert drawn == {"go to cabinet 1", "go to countertop 1", "go to fridge 1"}


def test_it_opens_what_it_finds_closed_and_takes_what_it_sees() -> None:
    someone = player("put a mug in shelf")
    someone.act(MIDDLE, ROOM)
    closed = "You arrive at cabinet 1. The cabinet 1 is closed."
    assert someone.act(closed, (*ROOM[1:], "open cabinet 1")) == "open cabinet 1"
    seen = "You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 2, and a mug 1."
    can = (*ROOM[1:], "take mug 1 from cabinet 1", "take mug 2 from cabinet 1")
    assert someone.act(seen, can) == "take mug 1 from cabinet 1"


def test_it_goes_back_to_what_it_saw_on_the_way() -> None:
    someone = player("put two mug in fridge")
    someone.act(MIDDLE, ROOM)
    seen = "You arrive at countertop 1. On the countertop 1, you see a mug 2, and a mug 1."
    someone.act(seen, (*ROOM, "take mug 1 from countertop 1"))
    someone.act("You pick up the mug 1 from the countertop 1.", ROOM)
    put = "You move the mug 1 to the fridge 1."
    assert someone.act(put, (*ROOM[:3], "take mug 1 from fridge 1")) == "go to countertop 1"


def test_it_puts_the_second_where_it_put_the_first() -> None:
    someone = player("put two mug in cabinet")
    someone.act("You move the mug 1 to the cabinet 2.", ROOM)
    assert someone.act("You pick up the mug 2 from the fridge 1.", ROOM) == "go to cabinet 2"


def test_it_treats_before_it_puts_and_again_if_it_was_undone() -> None:
    someone = player("cool some mug and put it in cabinet")
    assert someone.task == Task(COOL, "mug", "cabinet")
    assert someone.act("You pick up the mug 1 from the countertop 1.", ROOM) == "go to fridge 1"
    at_fridge = ("cool mug 1 with fridge 1", *ROOM[:3])
    arrived = "You arrive at fridge 1. The fridge 1 is closed."
    assert someone.act(arrived, at_fridge) == "cool mug 1 with fridge 1"
    assert someone.act("You cool the mug 1 using the fridge 1.", at_fridge) == "go to cabinet 1"
    assert someone.act("You heat the mug 1 using the microwave 1.", ROOM) == "go to fridge 1"


def test_it_puts_down_what_nobody_asked_for() -> None:
    someone = player("put a mug in shelf")
    can = (*ROOM, "move egg 1 to countertop 1")
    taken = "You pick up the egg 1 from the countertop 1."
    assert someone.act(taken, can) == "move egg 1 to countertop 1"


def test_it_remembers_a_lamp_that_it_passed() -> None:
    someone = player("look at book under the desklamp")
    seen = "You arrive at desk 1. On the desk 1, you see a desklamp 1."
    someone.act(seen, ("go to bed 1", "examine desk 1", "use desklamp 1"))
    taken = "You pick up the book 1 from the bed 1."
    assert someone.act(taken, ("go to desk 1", "go to shelf 1")) == "go to desk 1"
    assert someone.act(seen, ("go to bed 1", "use desklamp 1")) == "use desklamp 1"


def test_a_place_that_it_cannot_go_to_because_it_stands_there_is_used_at_once() -> None:
    someone = player("heat some mug and put it in cabinet")
    can = ("go to cabinet 1", "heat mug 1 with microwave 1")
    someone.act(MIDDLE, ("go to microwave 1", "go to countertop 1", "go to cabinet 1"))
    taken = "You pick up the mug 1 from the countertop 1."
    assert someone.act(taken, can) == "heat mug 1 with microwave 1"


def test_it_searches_again_where_it_looked_when_nothing_is_left() -> None:
    someone = player("put a mug in shelf")
    someone.act(MIDDLE, ("go to countertop 1",))
    empty = "You arrive at countertop 1. On the countertop 1, you see nothing."
    assert someone.act(empty, ("examine countertop 1", "look")) == "examine countertop 1"


def test_memory_keeps_up_with_what_others_do() -> None:
    memory = Memory()
    memory.read("On the desk 1, you see a pen 2, and a pen 1.")
    memory.read("You pick up the pen 1 from the desk 1.")
    assert (memory.held, memory.contents) == ("pen 1", {"desk 1": ["pen 2"]})
    memory.read("You move the pen 1 to the drawer 3.")
    assert (memory.held, memory.contents["drawer 3"]) == (None, ["pen 1"])
    memory.read("You close the drawer 3.")
    assert memory.closed == {"drawer 3"}
    memory.read("You open the drawer 3. The drawer 3 is open. In it, you see nothing.")
    assert (memory.closed, memory.contents["drawer 3"]) == (set(), [])
    memory.read("Nothing happens.")
    assert list(memory.seen("pen")) == [("pen 2", "desk 1")]


def test_pick_two_is_a_task_of_its_own() -> None:
    assert read_task("find two cd and put them in safe").type == TWO
