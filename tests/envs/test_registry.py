"""Environments by name: built in, from another package, and through Gymnasium."""

import subprocess
import sys
import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from agentgym.envs import registry
from agentgym.envs.corridor import CorridorEnv
from agentgym.envs.registry import (
    check_options,
    env_class,
    env_names,
    env_of_suite,
    make_env,
    register_with_gymnasium,
)
from agentgym.errors import DataError, UsageError
from agentgym.types import EnvSpec

ENTRY_POINTS = """
[agentgym.envs]
maze = maze_env:MazeEnv
corridor = maze_env:MazeEnv
missing = no_such_module:Env
empty = maze_env:NoSuchEnv
wrong = maze_env:Wall
"""

MAZE = """
from agentgym.envs.corridor import CorridorEnv

class MazeEnv(CorridorEnv):
    pass

class Wall:
    pass
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another package that registers environments, some of them broken."""
    metadata = tmp_path / "maze-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: maze\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "maze_env.py").write_text(MAZE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gymnasium.envs.registration, "registry", {})
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    registry._paths.cache_clear()
    yield
    sys.modules.pop("maze_env", None)
    registry._paths.cache_clear()


def test_the_built_in_environments_are_known():
    assert {"alfworld", "corridor"} <= set(env_names())
    assert env_class("corridor") is CorridorEnv


def test_an_unknown_environment_names_the_nearest():
    with pytest.raises(UsageError, match="unknown environment 'coridor'; did you mean corridor"):
        env_class("coridor")


def test_an_environment_of_another_package_is_found_by_its_entry_point(elsewhere):
    assert "maze" in env_names()
    assert env_class("maze").__name__ == "MazeEnv"
    assert make_env(EnvSpec("maze", {"suite": "corridor/test"})).suite.name == "corridor/test"


def test_another_package_cannot_take_the_name_of_a_built_in_one(elsewhere):
    assert env_class("corridor") is CorridorEnv


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "No module named 'no_such_module'"),
        ("empty", "has no attribute 'NoSuchEnv'"),
        ("wrong", "which is no TextEnv"),
    ],
)
def test_a_broken_entry_point_is_said_to_be(elsewhere, name, reason):
    with pytest.raises(DataError, match=f"environment '{name}' is registered as .*{reason}"):
        env_class(name)


def test_a_suite_tells_its_environment():
    assert env_of_suite("corridor/test") == "corridor"
    with pytest.raises(UsageError, match="called environment/set, got 'corridor'"):
        env_of_suite("corridor")
    with pytest.raises(UsageError, match="did you mean corridor/test"):
        env_of_suite("corridor/tset")
    with pytest.raises(UsageError, match="unknown environment 'corrido'"):
        env_of_suite("corrido/test")


def test_an_environment_is_built_with_its_options():
    env = make_env(EnvSpec("corridor", {"suite": "corridor/short", "max_turns": 3}))
    assert (env.suite.name, env.max_turns) == ("corridor/short", 3)


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown option of corridor 'turns'.*max_turns"):
        check_options(EnvSpec("corridor", {"turns": 3}))


@pytest.mark.parametrize("name", ["ALFWorld", "Corridor", "Search", "WebShop"])
def test_gymnasium_makes_an_environment_that_its_checker_accepts(name):
    env = gymnasium.make(f"agentgym/{name}-v0")
    assert env.unwrapped is env  # snapshot() and expert() are at hand
    check_env(env)  # warnings are errors here
    env.close()


def test_gymnasium_passes_options_on():
    env = gymnasium.make("agentgym/Corridor-v0", suite="corridor/test", max_turns=2)
    assert env.unwrapped.suite.name == "corridor/test"


def test_gymnasium_steps_several_corridors_at_once():
    envs = gymnasium.make_vec("agentgym/Corridor-v0", num_envs=2, vectorization_mode="sync")
    first, _ = envs.reset(seed=1)
    second, rewards, *_ = envs.step(("sesame", "sesame"))
    assert all(text.startswith("follow") for text in first)
    assert all(text.startswith("what") for text in second)
    assert list(rewards) == [0.0, 0.0]
    envs.close()


def test_gymnasium_imports_the_registration_by_its_module_name():
    program = (
        "import gymnasium, sys\n"
        "env = gymnasium.make('agentgym.envs:agentgym/Corridor-v0')\n"
        "assert env.spec.id == 'agentgym/Corridor-v0'\n"
        "assert 'agentgym.envs.alfworld' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_environments_of_other_packages_are_registered_too_and_once(elsewhere):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Gymnasium warns when an id is taken over
        register_with_gymnasium()
        register_with_gymnasium()
    assert {"agentgym/Maze-v0", "agentgym/Corridor-v0"} <= set(gymnasium.registry)
    assert type(gymnasium.make("agentgym/Maze-v0").unwrapped) is env_class("maze")
