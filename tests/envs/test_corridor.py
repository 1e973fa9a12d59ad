"""The corridor: what it says, how it ends, and how hard it is."""

import hashlib
import random
from itertools import chain
from statistics import mean

import pytest

from agentgym.envs.corridor import BACK, WORDS, CorridorEnv, _tasks
from agentgym.errors import UsageError


def play(env, choose):
    """Play one episode from the current state; return its observations and the last info."""
    said, over = [], False
    info = {}
    while not over:
        observation, _, terminated, truncated, info = env.step(choose(env))
        said.append(observation)
        over = terminated or truncated
    return said, info


@pytest.fixture
def env():
    return CorridorEnv("corridor/test")


def wrong_door(info):
    colour = info["goal"].removeprefix("follow ")
    return next(door for door in info["admissible_actions"] if door != colour)


@pytest.mark.parametrize("suite", CorridorEnv.suite_names())
def test_the_expert_wins_every_task_in_as_many_turns_as_there_are_rooms(suite):
    env = CorridorEnv(suite)
    for task in env.suite.tasks:
        _, info = env.reset(seed=0, options={"task": task})
        said, last = play(env, CorridorEnv.expert)
        assert last["won"]
        assert last["score"] == 1.0
        assert said[-1] == "out"
        assert len(said) == len(info["answer"].split())


def test_a_random_admissible_policy_wins_about_one_corridor_in_seven():
    # p = 1/3: n rooms with p^n (1 + n (1 - p)) = 0.259, 0.111, 0.045; their mean is 0.139.
    # 2,560 episodes have a standard error of 0.007.
    env = CorridorEnv("corridor/train")
    rng = random.Random(0)
    wins = []
    for task in env.suite.tasks * 10:
        _, info = env.reset(seed=0, options={"task": task})
        while info["admissible_actions"]:
            *_, info = env.step(rng.choice(info["admissible_actions"]))
        wins.append(info["won"])
    assert mean(wins) == pytest.approx(0.139, abs=0.02)


def test_naming_the_same_colour_everywhere_wins_only_where_it_is_the_goal(env):
    wins = []
    for task in env.suite.tasks:
        env.reset(seed=0, options={"task": task})
        wins.append(play(env, lambda env: "red")[1]["won"])
    goals = [corridor.colour == "red" for corridor in _tasks("test").values()]
    assert wins == goals
    assert 0 < sum(wins) < len(wins) / 3


def test_only_the_first_observation_tells_the_goal(env):
    first, info = env.reset(seed=0, options={"task": "test-000"})
    second, _, _, _, later = env.step(info["goal"].removeprefix("follow "))
    assert info["goal"] in first
    assert "follow" not in second
    assert later["goal"] == info["goal"]


def test_the_anchor_leaves_out_the_goal_and_what_was_not_understood(env):
    first, info = env.reset(seed=0, options={"task": "test-000"})
    unknown, _, _, _, later = env.step("open sesame")
    assert first == f"{info['goal']}\n{info['anchor']}"
    assert unknown == f"what\n{info['anchor']}"
    assert later["anchor"] == info["anchor"]
    assert not later["admissible"]


def test_the_first_wrong_door_is_a_dead_end_with_only_the_way_back(env):
    _, info = env.reset(seed=0, options={"task": "test-000"})
    observation, reward, terminated, _, dead_end = env.step(wrong_door(info))
    assert (observation, reward, terminated) == ("dead end", 0.0, False)
    assert dead_end["admissible_actions"] == (BACK,)
    again, *_ = env.step(BACK)
    assert again == info["anchor"]


def test_the_second_wrong_door_loses(env):
    _, info = env.reset(seed=0, options={"task": "test-000"})
    env.step(wrong_door(info))
    env.step(BACK)
    observation, reward, terminated, truncated, last = env.step(wrong_door(info))
    assert (observation, reward, terminated, truncated) == ("lost", 0.0, True, False)
    assert not last["won"]
    assert last["admissible_actions"] == ()


def test_a_short_corridor_is_over_after_one_door():
    env = CorridorEnv("corridor/short")
    for choose in (wrong_door, lambda info: info["answer"]):
        _, info = env.reset(seed=0, options={"task": "short-000"})
        _, reward, terminated, _, last = env.step(choose(info))
        assert terminated
        assert last["won"] == (reward == 1.0) == (choose is not wrong_door)


def test_the_type_of_a_task_is_its_number_of_rooms(env):
    types = [env.task_type(task) for task in env.suite.tasks]
    assert set(types) == {"2 rooms", "3 rooms", "4 rooms"}
    _, info = env.reset(seed=0, options={"task": env.suite.tasks[1]})
    assert info["task_type"] == types[1] == f"{len(info['answer'].split())} rooms"


def test_case_and_white_space_around_an_action_do_not_matter(env):
    _, info = env.reset(seed=0, options={"task": "test-000"})
    *_, info = env.step(f"  {info['goal'].removeprefix('follow ').upper()}\n")
    assert info["admissible"]


def test_no_corridor_is_in_two_places():
    train, test, short = (_tasks(suite) for suite in ("train", "test", "short"))
    corridors = list(chain(train.values(), test.values(), short.values()))
    assert (len(train), len(test), len(short)) == (256, 64, 64)
    assert len(set(corridors)) == len(corridors)


def test_the_suites_do_not_change_from_one_release_to_the_next():
    # The repr of every corridor in order, hashed when the environment was first written.
    drawn = repr([_tasks(suite) for suite in ("train", "test", "short")])
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "a702c05d1cc05023"


def test_everything_it_says_is_made_of_its_words():
    env = CorridorEnv("corridor/train")
    rng = random.Random(0)
    heard = set()
    for task in env.suite.tasks:
        observation, info = env.reset(seed=0, options={"task": task})
        heard.update(observation.split(), info["answer"].split())
        said, _ = play(env, lambda env: rng.choice((*env._choices(), "gibberish")))
        heard.update(*(line.split() for line in said))
    assert heard == set(WORDS) - {BACK}  # the way back is only ever said by the agent


def test_an_unknown_suite_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean corridor/train"):
        CorridorEnv("corridor/trian")
