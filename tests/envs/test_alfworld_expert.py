"""The expert wins every type of game from any state, in as few steps as it says."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable

import pytest

from agentgym.envs.alfworld_engine import Engine
from agentgym.envs.alfworld_expert import plan
from agentgym.envs.alfworld_files import GameFiles
from agentgym.envs.alfworld_generate import generate
from agentgym.envs.alfworld_tasks import TASK_TYPES

Quirks = Callable[..., GameFiles]


def wander(engine: Engine, rng: random.Random, steps: int) -> None:
    for _ in range(steps):
        engine.step(rng.choice(engine.admissible))


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_from_any_state_the_plan_wins_and_shrinks_by_one_with_every_step(task_type: str) -> None:
    rng = random.Random(task_type)
    for number in range(4):
        engine = Engine(generate("gen-train", f"{task_type}-{number:04d}"))
        for steps in (0, 5, 40):
            engine.reset()
            wander(engine, rng, steps)
            left = plan(engine)
            while left:
                assert not engine.won
                assert left[0] in engine.admissible
                engine.step(left[0])
                again = plan(engine)
                assert again is not None
                assert len(again) == len(left) - 1
                left = again
            assert engine.won


def test_a_won_game_needs_no_more_commands(quirks: Quirks) -> None:
    engine = Engine(quirks())
    for command in plan(engine) or ():
        engine.step(command)
    assert engine.won
    assert plan(engine) == ()


def test_something_useless_in_hand_is_put_down_where_it_fits_first(quirks: Quirks) -> None:
    engine = Engine(quirks())
    for command in ("go to countertop 1", "take plate 1 from countertop 1", "go to cabinet 2"):
        engine.step(command)
    # Cabinet 2 is here but closed, and the counters are open but elsewhere: two moves either way.
    left = plan(engine)
    assert left is not None
    assert [command for command in left if "plate" in command] in (
        ["move plate 1 to cabinet 2"],
        ["move plate 1 to countertop 2"],
    )


@pytest.mark.parametrize(
    "lost",
    [
        "(canContain CabinetType AppleType)",
        "(pickupable Apple_bar_a)",
        "(receptacleAtLocation Cabinet_bar_b loc_bar_3)",
        "(objectType Apple_bar_b AppleType)",
        "(atLocation agent1 loc_bar_0)",
    ],
)
def test_where_there_is_no_way_the_expert_says_so(quirks: Quirks, lost: str) -> None:
    problem = quirks().game["pddl_problem"]
    assert lost in problem
    # Without its place cabinet 1 is out of reach, and with it the second apple.
    engine = Engine(quirks(pddl_problem=problem.replace(lost, "")))
    assert plan(engine) is None


def test_a_goal_of_another_kind_is_not_pursued(quirks: Quirks) -> None:
    problem = quirks().game["pddl_problem"]
    goal = "(:goal (isSliced Apple_bar_a)))"
    engine = Engine(quirks(pddl_problem=problem[: problem.index("(:goal")] + goal))
    assert plan(engine) is None
    goal = "(:goal (not (inReceptacle Apple_bar_a CounterTop_bar_a))))"
    engine = Engine(quirks(pddl_problem=problem[: problem.index("(:goal")] + goal))
    assert plan(engine) is None


PLANS = """
from agentgym.envs.alfworld_engine import Engine
from agentgym.envs.alfworld_expert import plan
from agentgym.envs.alfworld_generate import generate

for number in range(8):
    print(plan(Engine(generate("gen-train", f"pick_cool_then_place_in_recep-{number:04d}"))))
"""


def test_of_equally_short_plans_every_process_takes_the_same() -> None:
    plans = {
        subprocess.run(
            [sys.executable, "-c", PLANS],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(plans) == 1
