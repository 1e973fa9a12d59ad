"""Which process this is, from the environment that launchers set."""

import pytest

from agentgym.errors import UsageError
from agentgym.launch import launched

TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}


def test_a_process_of_torchrun_knows_its_place() -> None:
    found = launched(TORCHRUN)
    assert (found.rank, found.size, found.local_rank, found.local_size) == (3, 4, 1, 2)
    assert (found.address, found.port, found.agent, found.attempt) == ("node0", 29500, True, "2")
    assert not found.is_first


def test_a_process_that_is_not_told_its_place_on_its_host_does_not_guess_it() -> None:
    told = {name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"}
    assert launched(told).local_rank is None


def test_a_process_without_a_launcher_is_alone_and_the_first() -> None:
    found = launched({})
    assert (found.rank, found.size) == (0, 1)
    assert found.is_first


def test_accelerate_may_say_that_gpus_are_left_alone() -> None:
    assert launched({**TORCHRUN, "ACCELERATE_USE_CPU": "True"}).cpu
    assert not launched(TORCHRUN).cpu


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"RANK": "4"}, "RANK is 4 of WORLD_SIZE 4; expected 0 to 3"),
        ({"RANK": "first"}, "RANK is 'first', expected a number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
    ],
)
def test_half_of_a_place_is_refused_by_name(wrong, message) -> None:
    with pytest.raises(UsageError, match=message):
        launched(TORCHRUN | wrong)


def test_a_missing_rank_is_refused() -> None:
    with pytest.raises(UsageError, match="RANK is not set, expected a number"):
        launched({"WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"})
