"""The player of ScienceWorld's shortest tasks: what it does it has read."""

from __future__ import annotations

import random

import pytest

from agentgym.envs.scienceworld import ScienceWorldEnv
from agentgym.envs.scienceworld_demonstrator import Demonstrator
from agentgym.errors import UsageError

BRING = (
    "Your task is to find a(n) {}. First, focus on the thing. Then, move it to the red box in the"
    " kitchen."
)
POINT = "Your task is to find the animal with the {}. The animals are in the 'outside' location."
OUTSIDE = (
    "This outside location is called the outside. Here you see: \n\tthe agent\n\ta substance called"
    " air\n\tan axe\n\ta blue jay egg\n\ta baby ant\n\ta fire pit (containing nothing)\n\tthe"
    " ground\nYou also see:\n\tA door to the kitchen (that is open)\n"
)
GREENHOUSE = (
    "This room is called the greenhouse. In it, you see: \n\tthe agent\n\ta flower pot 2"
    " (containing a peach tree in the adult stage, soil)\n"
)


def player(goal: str) -> Demonstrator:
    return Demonstrator(goal, random.Random(0))


@pytest.mark.parametrize(
    ("kind", "place", "thing"),
    [
        ("animal", OUTSIDE, "blue jay egg"),
        ("living thing", OUTSIDE, "blue jay egg"),
        ("non-living thing", OUTSIDE, "axe"),
        ("plant", GREENHOUSE, "peach tree"),
    ],
)
def test_it_points_at_what_it_sees_and_brings_it(kind: str, place: str, thing: str) -> None:
    one = player(BRING.format(kind))
    assert one.act(place) == f"focus on {thing}"
    assert one.act(f"You focus on the {thing}.") == f"pick up {thing}"
    assert one.act(f"You move the {thing} to the inventory.") == "teleport to kitchen"
    assert one.act("You teleport to the kitchen.") == f"move {thing} to red box"


def test_it_goes_where_such_things_are_and_looks_around() -> None:
    one = player(BRING.format("plant"))
    assert one.act(OUTSIDE) == "teleport to greenhouse"
    assert one.act("You teleport to the greenhouse.") == "look around"
    assert one.act(GREENHOUSE) == "focus on peach tree"


@pytest.mark.parametrize(
    ("asked", "first", "then"),
    [
        ("longest life span", "blue jay egg", "blue jay egg"),
        ("shortest life span", "baby ant", "baby ant"),
        ("longest life span, then the shortest life span", "blue jay egg", "baby ant"),
    ],
)
def test_it_points_at_the_animals_asked_for(asked: str, first: str, then: str) -> None:
    one = player(POINT.format(asked))
    assert one.act(OUTSIDE) == f"focus on {first}"
    assert one.act(f"You focus on the {first}.") == f"focus on {then}"


def test_it_finds_back_when_it_was_brought_elsewhere() -> None:
    one = player(BRING.format("animal"))
    assert one.act(OUTSIDE) == "focus on blue jay egg"
    assert one.act("You teleport to the foundry.") == "teleport to outside"
    assert one.act("You teleport to the outside.") == "focus on blue jay egg"


def test_a_task_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="scienceworld/short"):
        player("Your task is to boil water.")


def test_it_does_one_of_each_kind_of_short_task_in_spite_of_slips() -> None:
    env = ScienceWorldEnv("scienceworld/short-train", max_turns=25, actions="none")
    try:
        for task in ("find-plant/40", "find-non-living-thing/9", "lifespan-shortest-lived/12"):
            assert _play(env, task)
    finally:
        env.close()


def _play(env: ScienceWorldEnv, task: str) -> bool:
    observation, info = env.reset(seed=0, options={"task": task})
    rng = random.Random(task)
    one, over = Demonstrator(info["goal"], rng), False
    while not over:
        action = one.act(observation)
        action = one.slip() if rng.random() < 0.25 else action
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    return bool(info["won"])
