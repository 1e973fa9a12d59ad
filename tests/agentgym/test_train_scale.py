"""`agentgym train` on two processes, started as people start it, against the same on one."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import tomli_w

pytestmark = [pytest.mark.scale, pytest.mark.timeout(1800)]

LAUNCHERS = {
    "alone": "",
    "accelerate": "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    " --mixed_precision no --dynamo_backend no --main_process_port 0",
    "torchrun": "-m torch.distributed.run --standalone --nproc-per-node 2",
}


@pytest.fixture
def recipe(corridor_model: Path, tmp_path: Path) -> Path:
    settings = {
        "env": {"suite": "corridor/train", "max_turns": 3},
        "policy": {
            "model": str(corridor_model),
            "template": "plain",
            "sampling": {"max_tokens": 3, "max_context": 128},
        },
        "rollout": {"tasks_per_step": 3, "group_size": 3},
        "reward": {"format_penalty": 0.5},
        "method": {"name": "epo", "base": "ppo"},
        "optim": {"lr": 1e-3},
        "eval": {"suite": "corridor/test", "tasks": 3},
        "save": {"every": 1, "trajectories_every": 1},
    }
    path = tmp_path / "corridor.toml"
    path.write_text(tomli_w.dumps(settings), encoding="utf-8")
    return path


def start(launcher: str, *train: object) -> subprocess.Popen[str]:
    words = [*LAUNCHERS[launcher].split(), "-m", "agentgym", "train", *map(str, train)]
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(launcher: str, folder: Path, recipe: Path, *more: object) -> list[dict[str, float]]:
    process = start(launcher, "--recipe", recipe, "-o", folder, *more)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert said.count("held out: 3 tasks") == 1  # one process speaks
    return metrics(folder)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(left: list[dict[str, float]], right: list[dict[str, float]]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if not name.startswith(("time/", "perf/")):
                assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_two_processes_play_learn_and_write_what_one_does(recipe, tmp_path) -> None:
    steps, shards = ("--steps", "2"), ("--set", "parallel.weights=sharded")
    one = train("alone", tmp_path / "one", recipe, *steps)
    assert_same(one, train("accelerate", tmp_path / "whole", recipe, *steps))
    assert_same(one, train("torchrun", tmp_path / "sharded", recipe, *steps, *shards))
    assert files(tmp_path / "one") == files(tmp_path / "whole") == files(tmp_path / "sharded")
    about = json.loads((tmp_path / "whole" / "env.json").read_text())
    assert about["processes"] == 2


def test_two_processes_tell_how_all_rollouts_branched(recipe, tmp_path) -> None:
    settings = tomllib.loads(recipe.read_text()) | {"method": {"name": "aepo", "alpha": 1.0}}
    recipe.write_text(tomli_w.dumps(settings), encoding="utf-8")
    one = train("alone", tmp_path / "one", recipe, "--steps", "1")
    assert one[0]["tree/branches"] > 0
    assert_same(one, train("torchrun", tmp_path / "both", recipe, "--steps", "1"))


def test_two_processes_with_shards_learn_from_what_a_server_plays(
    recipe, corridor_model, serve_fake, tmp_path
) -> None:
    server = serve_fake(corridor_model, name="random", max_model_len=256)
    more = ("--steps", "2", "--server", server.url)
    one = train("alone", tmp_path / "one", recipe, *more)
    sharded = ("--set", "parallel.weights=sharded")
    both = train("torchrun", tmp_path / "both", recipe, *more, *sharded)
    assert_same(one, both)


def rank_of(process: Path) -> str | None:
    try:
        told = (process / "environ").read_bytes().split(b"\0")
        command = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    ranks = [entry[5:].decode() for entry in told if entry.startswith(b"RANK=")]
    return ranks[0] if ranks and b"agentgym" in command else None


def child(launcher: int, rank: str) -> int:
    """Return the process of a rank below a launcher."""
    for process in Path("/proc").glob("[0-9]*"):
        if rank_of(process) == rank:
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == launcher:
                return int(process.name)
    raise AssertionError(f"no rank {rank} below {launcher}")


def test_a_killed_process_is_named_in_time_and_one_process_goes_on(recipe, tmp_path) -> None:
    run, steps = tmp_path / "run", ("--steps", "8")
    process = start("torchrun", "--recipe", recipe, "-o", run, *steps)
    try:
        deadline = time.monotonic() + 600
        while not (run / "checkpoints" / "latest").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(child(process.pid, "1"), signal.SIGKILL)
        killed = time.monotonic()
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert time.monotonic() - killed < 60
    assert process.returncode != 0
    # The launcher may end rank 0 before it has said so, and names the process itself then.
    ours = "rank 1 is gone without a word; go on with --resume" in " ".join(said.split())
    assert ours or "failed (exitcode: -9) local_rank: 1" in said
    assert len(metrics(run)) < 8
    resumed = start("alone", "--resume", run)
    said, _ = resumed.communicate(timeout=900)
    assert resumed.returncode == 0, said
    assert_same(train("alone", tmp_path / "unbroken", recipe, *steps), metrics(run))


def test_another_configuration_on_one_process_is_named(recipe, tmp_path) -> None:
    script = tmp_path / "seeds.py"
    script.write_text(
        "import os, sys; sys.argv += ['--seed', os.environ['RANK']];"
        "from agentgym.cli import main; main()"
    )
    words = [*LAUNCHERS["torchrun"].split(), script, "train", "--recipe", recipe, "--steps", "1"]
    ended = subprocess.run(
        [sys.executable, *map(str, words), "-o", str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode != 0
    said = " ".join((ended.stdout + ended.stderr).split())
    assert "agentgym: rank 1: the configuration is sha256" in said
    assert not (tmp_path / "run").exists()


FAILING = """
import os

from agentgym.cli import main
from agentgym.errors import DataError
from agentgym.trainers import loop
from agentgym.trainers.run_folder import RunFolder


def fail(*_, **__):
    raise DataError("there is no room")


if os.environ["RANK"] == "{rank}":
    setattr({where}, "{what}", fail)
main()
"""


@pytest.mark.parametrize(
    ("rank", "where", "what"),
    [("0", "RunFolder", "save_checkpoint"), ("1", "loop", "collect_groups")],
    ids=["the first one saves", "another one plays"],
)
def test_a_process_that_fails_is_named_with_its_reason_by_the_other(
    rank, where, what, recipe, tmp_path
) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(rank=rank, where=where, what=what))
    words = [*LAUNCHERS["torchrun"].split(), script, "train", "--recipe", recipe, "--steps", "1"]
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, *map(str, words), "-o", str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode != 0
    said = " ".join((ended.stdout + ended.stderr).split())
    other = 1 - int(rank)
    assert "agentgym: there is no room" in said
    reason = f"rank {other} lost another process: rank {rank} ended: DataError: there is no room"
    assert reason in said
    assert time.monotonic() - begun < 200  # and not parallel.timeout
