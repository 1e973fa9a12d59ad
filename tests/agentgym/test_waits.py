"""How long processes wait for each other follows from what one of them may do meanwhile."""

from typing import Any

from agentgym import train
from agentgym.config import Config
from agentgym.waits import longest_wait


def config(**settings: Any) -> Config:
    base = {
        "env": {"suite": "alfworld/train", "max_turns": 50},
        "eval": {"suite": "alfworld/valid_seen", "tasks": 10},
        "rollout": {"tasks_per_step": 16, "group_size": 8},
    }
    return Config.model_validate({**base, **settings})


SERVER = {"urls": ["http://127.0.0.1:1"], "timeout": 600, "patience": 300, "in_flight": 256}


def test_a_rollout_of_slow_answers_is_waited_for() -> None:
    assert longest_wait(config(policy={"server": SERVER})) == 50 * (600 + 60) + 300
    faster = {**SERVER, "timeout": 120}
    assert longest_wait(config(policy={"server": faster})) == 50 * (120 + 60) + 300


def test_episodes_that_wait_their_turn_make_it_longer() -> None:
    narrow = {**SERVER, "in_flight": 40}  # of 128 episodes
    assert longest_wait(config(policy={"server": narrow})) == 4 * 50 * 660 + 300
    several = {**narrow, "urls": ["http://127.0.0.1:1", "http://127.0.0.1:2"]}
    assert longest_wait(config(policy={"server": several})) == 2 * 50 * 660 + 300
    measured = {"suite": "alfworld/valid_seen", "tasks": 140}
    assert longest_wait(config(policy={"server": several}, eval=measured)) == 2 * 50 * 660 + 300
    both = {"suite": ["alfworld/valid_seen", "alfworld/valid_unseen"], "tasks": 140}
    assert longest_wait(config(policy={"server": several}, eval=both)) == 4 * 50 * 660 + 300


def test_a_server_of_the_runs_own_is_waited_for_until_it_can_be_there_again() -> None:
    started = {"timeout": 600, "in_flight": 256}
    own = {"server": started, "serve": {"patience": 1800}}
    assert longest_wait(config(policy=own)) == 50 * 660 + 1800
    assert longest_wait(config(policy={**own, "serve": {"patience": 10}})) == 50 * 660 + 300
    said = {"server": {**started, "patience": 20}, "serve": {"patience": 1800}}
    assert longest_wait(config(policy=said)) == 50 * 660 + 20


def test_it_is_an_hour_at_least_as_a_checkpoint_has_no_limit() -> None:
    quick = {**SERVER, "timeout": 1, "patience": 0}
    assert longest_wait(config(policy={"server": quick})) == 3600


def test_a_wait_that_was_set_is_taken_as_it_is() -> None:
    assert train._parallel(config(parallel={"timeout": 7})).timeout == 7
    assert train._parallel(config(policy={"server": SERVER})).timeout == 50 * 660 + 300
