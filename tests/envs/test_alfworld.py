"""ALFWorld as an environment: suites, info, rewards, the two engines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from agentgym.envs.alfworld import ALFWorldEnv
from agentgym.envs.alfworld_files import GAME_FILE, GameFiles, write_game
from agentgym.envs.alfworld_generate import generate, task_ids
from agentgym.envs.check import check_env
from agentgym.envs.registry import make_env
from agentgym.errors import DataError, UsageError
from agentgym.types import EnvSpec

Quirks = Callable[..., GameFiles]
GAME = "pick_two_obj_and_place-Apple-None-Cabinet-1/trial_{}"


@pytest.fixture
def data(tmp_path: Path, quirks: Quirks) -> Path:
    """A download of one playable published game and of all kinds that the benchmark leaves out."""
    split = tmp_path / "json_2.1.1" / "valid_seen"
    playable, unsolvable, unknown = quirks(), quirks(solvable=False), quirks(solvable=None)
    write_game(playable, split / GAME.format(2))
    write_game(playable, split / GAME.format(1))
    write_game(unsolvable, split / GAME.format(3))
    write_game(unknown, split / GAME.format(4))
    write_game(playable, split / "pick_and_place_with_movable_recep-Cup-Plate-Desk-1" / "trial_1")
    write_game(playable, split / "pick_two_obj_and_place-AppleSliced-None-Cabinet-1" / "trial_1")
    (split / GAME.format(5)).mkdir()
    (split / GAME.format(5) / "traj_data.json").write_text("{}")
    return tmp_path


@pytest.fixture
def env(data: Path) -> ALFWorldEnv:
    env = ALFWorldEnv("alfworld/valid_seen", data=str(data))
    env.reset(seed=0, options={"task": GAME.format(1)})
    return env


# Suites ---------------------------------------------------------------------------------------


def test_a_published_suite_holds_what_the_benchmark_plays_sorted(env: ALFWorldEnv) -> None:
    assert env.suite.tasks == (GAME.format(1), GAME.format(2))
    assert env.suite.official
    assert env.suite.held_out


def test_the_data_folder_is_found_by_its_variable(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(data))
    assert len(ALFWorldEnv("alfworld/valid_seen").suite.tasks) == 2


def test_a_published_suite_without_its_data_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"agentgym envs download alfworld.*ALFWORLD_DATA"):
        ALFWorldEnv("alfworld/valid_unseen")
    assert list(tmp_path.iterdir()) == []


def test_games_that_arrive_while_the_program_runs_are_seen(data: Path, quirks: Quirks) -> None:
    assert len(ALFWorldEnv("alfworld/valid_seen", data=str(data)).suite.tasks) == 2
    write_game(quirks(), data / "json_2.1.1" / "valid_seen" / GAME.format(6))
    assert len(ALFWorldEnv("alfworld/valid_seen", data=str(data)).suite.tasks) == 3


def test_a_variable_that_names_no_data_folder_says_what_it_should(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(data / "json_2.1.1"))
    with pytest.raises(DataError, match=r"ALFWORLD_DATA names .*; name the folder above"):
        ALFWorldEnv("alfworld/valid_seen")
    (data / "file").write_text("x")
    monkeypatch.setenv("ALFWORLD_DATA", str(data / "file"))
    with pytest.raises(DataError, match=r"ALFWORLD_DATA names the file .*/file; name the folder"):
        ALFWorldEnv("alfworld/valid_seen")
    with pytest.raises(DataError, match="the option data names the file"):
        ALFWorldEnv("alfworld/valid_seen", data=str(data / "file"))


def test_a_data_folder_may_be_called_as_excluded_tasks_are(data: Path) -> None:
    moved = data / "movable"
    moved.mkdir()
    (data / "json_2.1.1").rename(moved / "json_2.1.1")
    assert len(ALFWorldEnv("alfworld/valid_seen", data=str(moved)).suite.tasks) == 2


@pytest.mark.parametrize("kind", ["pick_and_fly", 7, None, ["pick_and_place_simple"]])
def test_a_task_of_no_known_type_is_refused(tmp_path: Path, quirks: Quirks, kind: object) -> None:
    files = quirks()
    write_game(replace(files, trajectory={"task_type": kind, "pddl_params": {}}), tmp_path / "g")
    env = ALFWorldEnv("alfworld/folder", data=str(tmp_path))
    with pytest.raises(DataError, match=r"traj_data\.json has the task type .*; ALFWorld's are"):
        env.reset(seed=0)


def test_a_split_without_a_playable_game_is_an_error(tmp_path: Path, quirks: Quirks) -> None:
    write_game(quirks(solvable=False), tmp_path / "json_2.1.1" / "train" / GAME.format(1))
    with pytest.raises(DataError, match="holds no playable ALFWorld game"):
        ALFWorldEnv("alfworld/train", data=str(tmp_path))


def test_a_folder_of_own_games_is_a_suite(tmp_path: Path, quirks: Quirks) -> None:
    write_game(quirks(solvable=None), tmp_path / "deep" / "down")
    write_game(quirks(solvable=False), tmp_path / "no")
    env = ALFWorldEnv("alfworld/folder", data=str(tmp_path))
    assert env.suite.tasks == ("deep/down",)
    assert not env.suite.official
    observation, _ = env.reset()
    assert "two apple" in observation


def test_own_games_need_their_folder_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name their folder"):
        ALFWorldEnv("alfworld/folder")
    with pytest.raises(DataError, match="there is no folder"):
        ALFWorldEnv("alfworld/folder", data=str(tmp_path / "missing"))
    with pytest.raises(DataError, match="holds no playable"):
        ALFWorldEnv("alfworld/folder", data=str(tmp_path))


def test_a_generated_suite_reads_no_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="alfworld/folder"):
        ALFWorldEnv("alfworld/gen-unseen", data=str(tmp_path))


def test_generated_suites_are_those_of_the_generator_and_not_official() -> None:
    env = ALFWorldEnv("alfworld/gen-unseen")
    assert env.suite.tasks == task_ids("gen-unseen")
    assert not env.suite.official
    assert env.suite.held_out
    assert not ALFWorldEnv().suite.held_out


def test_the_type_of_a_task_is_known_before_it_starts(tmp_path: Path, quirks: Quirks) -> None:
    env = ALFWorldEnv("alfworld/gen-unseen")
    for task in env.suite.tasks[:6]:
        assert env.task_type(task) == env.reset(options={"task": task})[1]["task_type"]
    write_game(quirks(), tmp_path / "look_at_obj_in_light-misleading")
    own = ALFWorldEnv("alfworld/folder", data=str(tmp_path))
    assert own.task_type("look_at_obj_in_light-misleading") == "pick_two_obj_and_place"


def test_every_environment_check_is_passed() -> None:
    findings = check_env(partial(ALFWorldEnv, "alfworld/gen-unseen"))
    assert [finding for finding in findings if not finding.passed] == []


def test_unknown_suites_and_engines_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean alfworld/gen-unseen"):
        ALFWorldEnv("alfworld/gen-unsen")
    with pytest.raises(UsageError, match="did you mean textworld"):
        ALFWorldEnv(engine="textwrld")


def test_options_that_are_no_text_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown engine of alfworld '5'"):
        make_env(EnvSpec("alfworld", {"engine": 5}))
    with pytest.raises(UsageError, match=r"got 2024; write a path as \./2024"):
        make_env(EnvSpec("alfworld", {"suite": "alfworld/folder", "data": 2024}))


# Episodes -------------------------------------------------------------------------------------


def test_info_tells_goal_type_and_the_admissible_actions_without_help(env: ALFWorldEnv) -> None:
    observation, info = env.reset(seed=1, options={"task": GAME.format(2)})
    assert info["task_id"] == GAME.format(2)
    assert info["task_type"] == "pick_two_obj_and_place"
    assert info["goal"] == "put two apple in cabinet."
    assert (info["won"], info["score"], info["admissible"]) == (False, 0.0, True)
    assert "help" not in info["admissible_actions"]
    assert "look" in info["admissible_actions"]
    assert info["anchor"] == observation


def test_an_unknown_command_is_not_admissible_and_costs_a_turn(data: Path) -> None:
    env = ALFWorldEnv("alfworld/valid_seen", max_turns=2, data=str(data))
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step("Look")
    assert (observation, reward, info["admissible"]) == ("Nothing happens.", 0.0, False)
    assert (terminated, truncated) == (False, False)
    _, _, terminated, truncated, info = env.step(" help ")
    assert info["admissible"]
    assert (terminated, truncated) == (False, True)


def test_only_the_winning_step_is_rewarded(env: ALFWorldEnv) -> None:
    rewards, terminated = [], False
    while not terminated:
        action = env.expert()
        assert action is not None
        _, reward, terminated, _, info = env.step(action)
        rewards.append(reward)
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
    assert (info["won"], info["score"]) == (True, 1.0)
    assert env.expert() is None


def test_the_benchmarks_fifty_turns_are_the_default() -> None:
    assert ALFWorldEnv().max_turns == 50


def test_an_episode_comes_back_from_its_snapshot(env: ALFWorldEnv, data: Path) -> None:
    env.step("go to countertop 1")
    last = env.step("take apple 2 from countertop 2")
    copy = ALFWorldEnv("alfworld/valid_seen", data=str(data))
    observation, info = copy.restore(env.snapshot())
    assert observation == last[0]
    assert info == last[4]


def test_a_generated_game_reads_the_same_from_a_folder(tmp_path: Path) -> None:
    task = task_ids("gen-seen")[0]
    write_game(generate("gen-seen", task), tmp_path / task)
    memory, disk = (
        ALFWorldEnv("alfworld/gen-seen"),
        ALFWorldEnv("alfworld/folder", data=str(tmp_path)),
    )
    assert memory.reset(options={"task": task}) == disk.reset(options={"task": task})
    action = memory.expert()
    assert action is not None
    assert memory.step(action) == disk.step(action)


def test_a_broken_game_file_is_one_clear_line(env: ALFWorldEnv, data: Path) -> None:
    (game,) = data.rglob(f"trial_2/{GAME_FILE}")
    game.write_text(game.read_text()[:-300])
    with pytest.raises(DataError, match="cannot read") as error:
        env.reset(options={"task": GAME.format(2)})
    assert "\n" not in str(error.value)


def test_a_game_file_nested_without_end_is_refused(env: ALFWorldEnv, data: Path) -> None:
    (game,) = data.rglob(f"trial_2/{GAME_FILE}")
    game.write_text("[" * 200_000)
    with pytest.raises(DataError, match="cannot read"):
        env.reset(options={"task": GAME.format(2)})


def test_a_game_that_vanished_is_an_error(data: Path) -> None:
    env = ALFWorldEnv("alfworld/valid_seen", data=str(data))
    (data / "json_2.1.1" / "valid_seen" / GAME.format(1) / GAME_FILE).unlink()
    with pytest.raises(DataError, match="cannot read"):
        env.reset(options={"task": GAME.format(1)})


# TextWorld ------------------------------------------------------------------------------------


def test_the_textworld_engine_asks_for_a_process_of_its_own() -> None:
    assert ALFWorldEnv(engine="textworld").needs_process
    assert not ALFWorldEnv().needs_process


def test_without_textworld_its_engine_says_what_to_install(
    env: ALFWorldEnv, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)  # as if it were not installed
    env = ALFWorldEnv("alfworld/valid_seen", data=str(data), engine="textworld")
    with pytest.raises(UsageError, match=r"pip install 'agentgym\[alfworld\]'"):
        env.reset(seed=0)


def test_the_native_engine_loads_nothing_of_textworld() -> None:
    code = (
        "import sys; from agentgym.envs.alfworld import ALFWorldEnv; ALFWorldEnv().reset(seed=0);"
        "print([m for m in ('textworld', 'alfworld', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TextWorldStandIn:
    """Says what TextWorld would say, and records that it was closed."""

    closed = 0

    def __init__(self, files: GameFiles) -> None:
        self.goal, self.task_type = "put two apple in cabinet.", "pick_two_obj_and_place"
        self.won, self.admissible = False, ("go to countertop 1", "help", "look")

    def reset(self) -> str:
        return "reset"

    def step(self, command: str) -> str:
        return command

    def close(self) -> None:
        type(self).closed += 1


def test_the_expert_follows_a_game_that_textworld_plays(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgym.envs.alfworld.TextWorldEngine", TextWorldStandIn)
    env = ALFWorldEnv("alfworld/valid_seen", data=str(data), engine="textworld")
    env.reset(options={"task": GAME.format(1)})
    assert env.expert() == "go to countertop 2"
    assert env.step("go to countertop 2")[0] == "go to countertop 2"
    assert env.expert() == "take apple 2 from countertop 2"
    env.reset(options={"task": GAME.format(2)})
    assert TextWorldStandIn.closed == 1
    env.close()
    env.close()
    assert TextWorldStandIn.closed == 2


def test_what_textworld_needs_is_installed_on_request_and_where_it_works() -> None:
    # Its planner is under the GPL and compiled; its grammar does not work in Python 3.13.
    named = [Requirement(one) for one in metadata.requires("agentgym") or ()]
    found = {one.name: one for one in named if one.name in ("textworld", "fast-downward-textworld")}
    assert len(found) == 2
    for one in found.values():
        assert one.marker is not None
        assert one.marker.evaluate({"extra": "alfworld", "python_version": "3.12"})
        assert not one.marker.evaluate({"extra": "alfworld", "python_version": "3.13"})
        assert not one.marker.evaluate({"extra": "", "python_version": "3.12"})
