"""ScienceWorld as an environment: what actions do, what they score, what is told of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from agentgym.envs.scienceworld import ScienceWorldEnv
from agentgym.envs.scienceworld_game import UNKNOWN, Game
from agentgym.envs.scienceworld_simulators import POOL, IsolatedSimulator
from agentgym.errors import EnvFault

FIND = "find-non-living-thing/0"  # begins in the hallway with 8 of 100 points
AMBIGUOUS = "Ambiguous request:"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScienceWorldEnv]:
    """One environment for all tests: to start Java takes longer than to play."""
    env = ScienceWorldEnv("scienceworld/short-train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        yield env
    env.close()
    POOL.close()


@pytest.fixture
def env(opened: ScienceWorldEnv) -> ScienceWorldEnv:
    opened.reset(seed=0, options={"task": FIND})
    return opened


def listen_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[object, ...]]]:
    """Return a list of what simulators are asked from now on, with what follows a task's name."""
    asked = []
    ask = IsolatedSimulator.ask

    def listen(simulator: IsolatedSimulator, method: str, *arguments: object) -> object:
        asked.append((method, arguments[3:]))
        return ask(simulator, method, *arguments)

    monkeypatch.setattr(IsolatedSimulator, "ask", listen)
    return asked


@pytest.mark.usefixtures("opened")
def test_gymnasium_makes_an_environment_that_its_checker_accepts() -> None:
    made = gymnasium.make("agentgym/ScienceWorld-v0")
    check_env(made)  # warnings are errors here
    made.close()


# Scores ---------------------------------------------------------------------------------------


def test_the_expert_does_the_whole_task(env: ScienceWorldEnv) -> None:
    score, rewards, terminated = 0.08, [], False
    while not terminated:
        action = env.expert()
        assert action is not None
        _, reward, terminated, _, info = env.step(action)
        rewards.append(reward)
    assert info["won"]
    assert info["score"] == 1.0
    assert sum(rewards) == pytest.approx(1.0 - score)  # read the score: rewards lack its beginning
    assert env.expert() is None
    assert info["templates"] == info["objects"] == ()


def test_an_expert_who_was_not_followed_knows_no_action(env: ScienceWorldEnv) -> None:
    first = env.expert()
    env.step("wait1")
    assert env.expert() is None
    env.reset(seed=0, options={"task": FIND})
    assert env.expert() == first


def test_an_expert_looks_for_its_path_once_for_all_environments(
    env: ScienceWorldEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = env.expert()
    asked = listen_in(monkeypatch)
    other = ScienceWorldEnv("scienceworld/short-train")
    other.reset(seed=0, options={"task": FIND})
    assert other.expert() == first
    assert "getGoldActionSequence" not in dict(asked)
    other.close()


def test_a_wrong_choice_fails_the_task_and_ends_the_episode(env: ScienceWorldEnv) -> None:
    _, info = env.reset(seed=0, options={"task": "find-plant/0"})
    before = info["score"]
    observation, reward, terminated, truncated, info = env.step("focus on picture")
    assert observation == "You focus on the picture."
    assert (terminated, truncated, info["won"], info["score"]) == (True, False, False, 0.0)
    assert reward == pytest.approx(-1 - before)  # from before to -100 of 100


def test_only_actions_count_as_turns(env: ScienceWorldEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    # "wait" is ten ticks of the simulator, what it does not know is none; both are one turn.
    monkeypatch.setattr(env, "max_turns", 2)
    assert env.step("wait")[3] is False
    assert env.step("xyzzy")[3] is True


def test_a_part_of_the_score_is_no_success_when_the_turns_are_used_up(
    env: ScienceWorldEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, "max_turns", 1)
    *_, terminated, truncated, info = env.step("look around")
    assert (terminated, truncated) == (False, True)
    assert (info["won"], info["score"]) == (False, 0.08)


# Actions --------------------------------------------------------------------------------------


def test_articles_and_case_are_as_the_simulator_takes_them(env: ScienceWorldEnv) -> None:
    assert env.step("Look At PICTURE")[4]["admissible"]
    observation, *_, info = env.step("xyzzy")
    assert (observation, info["admissible"]) == (UNKNOWN, False)


@pytest.mark.parametrize("action", ["reset task", " Reset  the\tTASK ", "reset task\x01"])
def test_a_task_cannot_be_reset_from_within(env: ScienceWorldEnv, action: str) -> None:
    env.step("go to kitchen")
    before = env.step("look around")
    observation, reward, terminated, _, info = env.step(action)
    assert (observation, reward, terminated, info["admissible"]) == (UNKNOWN, 0.0, False, False)
    assert env.step("look around")[0] == before[0]


def test_resetting_is_not_offered(env: ScienceWorldEnv) -> None:
    *_, info = env.step("help")
    assert "look around" in info["templates"]
    assert not any("reset" in one for one in (*info["templates"], env.step("help")[0]))


def test_a_number_answers_the_question_which_of_several_was_meant(env: ScienceWorldEnv) -> None:
    observation, *_, info = env.step("open door")
    assert observation.startswith(AMBIGUOUS)
    assert info["admissible"]
    assert info["templates"] == tuple("012345")  # the hallway has six doors
    assert info["objects"] == ()
    assert env.step(" 3 ")[0] == "The door is already open."


def test_any_other_action_withdraws_the_question_and_is_done(env: ScienceWorldEnv) -> None:
    assert env.step("open door")[0].startswith(AMBIGUOUS)
    assert env.step("go to kitchen")[0] == "You move to the kitchen."
    assert env.step("open door")[0].startswith(AMBIGUOUS)
    assert env.step("99")[0] == UNKNOWN
    assert env.step("inventory")[0].startswith("In your inventory")


def test_text_that_cannot_be_sent_is_an_unknown_action(env: ScienceWorldEnv) -> None:
    assert env.step("look\ud800")[0] == UNKNOWN


# What is told -----------------------------------------------------------------------------------


def test_templates_and_objects_are_told_and_what_they_make_is_known(env: ScienceWorldEnv) -> None:
    *_, info = env.step("look around")
    assert {"teleport OBJ", "use OBJ on OBJ", "wait1"} < set(info["templates"])
    assert {"picture", "kitchen", "door to kitchen"} < set(info["objects"])
    assert "admissible_actions" not in info
    assert env.step("look at picture")[4]["admissible"]


def test_the_task_is_told_in_its_own_words(env: ScienceWorldEnv) -> None:
    observation, info = env.reset(seed=0, options={"task": FIND})
    assert info["goal"].startswith("Your task is to find a(n) non-living thing.")
    assert info["task_type"] == "find-non-living-thing"
    assert info["anchor"] == observation
    assert observation.startswith("This room is called the hallway.")


def test_looking_changes_nothing_of_what_happens(env: ScienceWorldEnv) -> None:
    env.step("teleport to outside")  # where names are not unique, and random ones are tried
    simulator = env._simulator
    assert simulator is not None
    before = simulator.random_state()
    valid = env._game.valid_actions()
    assert env._game.objects() == env._game.objects()
    assert simulator.random_state() == before
    assert len(valid) > 100
    assert "reset task" not in valid


def test_easy_opens_doors_and_no_containers(env: ScienceWorldEnv) -> None:
    # What the paper's appendix says of containers is not what the simulator does.
    env.step("teleport to kitchen")
    assert env.step("open door to hallway")[0] == "The door is already open."
    assert env.step("open cupboard")[0] == "The cupboard is now open."
    assert env.step("open cupboard")[0] == "The cupboard is already open."


def test_a_step_lists_no_valid_actions_and_makes_no_plan(
    env: ScienceWorldEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = listen_in(monkeypatch)
    env.reset(seed=0, options={"task": "find-plant/0"})
    env.step("look around")
    assert ("load", (False,)) in asked  # without a gold path
    assert not {"getValidActionObjectCombinations", "getGoldActionSequence"} & dict(asked).keys()


# Processes ----------------------------------------------------------------------------------------


def test_a_second_simulator_in_the_same_process_has_its_own_simplifications(
    env: ScienceWorldEnv,
) -> None:
    other = ScienceWorldEnv("scienceworld/train", simplifications="", actions="all")
    _, info = other.reset(seed=0, options={"task": "test-conductivity/0"})
    assert POOL.pids() == (env._simulator.jvm.pid,) == (other._simulator.jvm.pid,)
    assert any(one.startswith("connect ") for one in info["admissible_actions"])
    assert not any(one.startswith("teleport ") for one in info["admissible_actions"])
    templates = env.step("look around")[4]["templates"]
    assert "teleport OBJ" in templates
    assert "connect OBJ to OBJ" not in templates
    assert "templates" not in info
    other.close()


def test_java_may_take_no_more_memory_than_its_simulators_need(env: ScienceWorldEnv) -> None:
    assert env._simulator is not None
    runtime = env._simulator.jvm.gateway.jvm.java.lang.Runtime.getRuntime()
    assert runtime.maxMemory() <= 640 * 2**20  # Java's own default is a quarter of the machine


def test_garbage_of_earlier_tasks_is_collected_before_it_fills_the_heap(
    env: ScienceWorldEnv,
) -> None:
    assert env._simulator is not None
    jvm = env._simulator.jvm
    limits = []
    for number in range(4):
        env.reset(seed=0, options={"task": f"find-plant/{number}"})
        limits.append(jvm._collect_above)
        assert jvm._used() <= jvm._collect_above
    assert max(limits) < 640 * 2**20
    assert len(set(limits)) < 4  # not at every task: that would cost more than it gives


def test_playing_leaves_no_file_behind(env: ScienceWorldEnv) -> None:
    env.step("look around")
    assert list(Path.cwd().iterdir()) == []


def test_an_episode_survives_its_java_process_word_for_word(env: ScienceWorldEnv) -> None:
    actions = ("go to kitchen", "open door", "open cupboard", "look around")
    before = [env.step(action) for action in actions]
    env.reset(seed=0, options={"task": FIND})
    turns = [env.step(action) for action in actions[:2]]
    (pid,) = POOL.pids()
    os.kill(pid, signal.SIGKILL)
    turns += [env.step(action) for action in actions[2:]]
    assert turns == before
    assert POOL.pids() != (pid,)


def test_a_java_process_lost_while_objects_are_looked_up_is_healed(
    env: ScienceWorldEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = env.step("go to kitchen")
    env.reset(seed=0, options={"task": FIND})
    look_up, pids = Game.objects, POOL.pids()

    def objects(game: Game) -> tuple[str, ...]:
        if POOL.pids() == pids:
            os.kill(pids[0], signal.SIGKILL)
        return look_up(game)

    monkeypatch.setattr(Game, "objects", objects)
    assert env.step("go to kitchen") == expected


def test_a_java_process_lost_while_the_episode_is_brought_back_is_healed_too(
    env: ScienceWorldEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = env.step("go to kitchen")
    env.reset(seed=0, options={"task": FIND})
    os.kill(POOL.pids()[0], signal.SIGKILL)
    lend, lent = POOL.lend, []

    def lend_a_broken_one_first() -> IsolatedSimulator:
        lent.append(lend())
        if len(lent) == 1:
            lent[0].jvm.kill()
        return lent[-1]

    monkeypatch.setattr(POOL, "lend", lend_a_broken_one_first)
    assert env.step("go to kitchen") == expected
    assert len(lent) == 2


def test_a_java_process_lost_three_times_in_one_action_ends_the_episode_and_says_so(
    env: ScienceWorldEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(POOL.pids()[0], signal.SIGKILL)
    lend, lent = POOL.lend, []

    def lend_a_broken_one() -> IsolatedSimulator:
        lent.append(lend())
        lent[-1].jvm.kill()
        return lent[-1]

    monkeypatch.setattr(POOL, "lend", lend_a_broken_one)
    with pytest.raises(EnvFault, match="is gone, for the third time in one action"):
        env.step("go to kitchen")
    assert len(lent) == 2
