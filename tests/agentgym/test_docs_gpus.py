"""The page about GPUs: its plans are those that are reckoned, its job files are understood."""

import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentgym.config import load, override, read_recipe

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "gpus.md").read_text(encoding="utf-8")
JOBS = DOCS / "jobs"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `--env")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_plan_in_the_table_is_what_is_reckoned(agentgym: Any, row: list[str]) -> None:
    command, needed, fits, share, held = row
    code, out, _ = agentgym("doctor", "--plan", *shlex.split(command.strip("`")))
    assert code == (0 if fits == "yes" else 1)
    assert f"at most {needed} of" in out
    if share:
        assert f"--gpu-memory-utilization {share} gives vLLM" in out
        assert f"{held.replace(' of', ' episodes of full length at once, of')} a step" in out


def test_the_first_commands_of_the_page_are_understood(agentgym: Any) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    for line in block.splitlines():
        code, out, _ = agentgym(*shlex.split(line)[1:])
        assert code in (0, 1)
        assert "training on" in out


def training(text: str) -> list[str]:
    """Return the settings that a text gives to a training, as they stand behind --set."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"--set ('[^']+'|[^\s')]+)", joined)
    return [setting.strip("'") for setting in found]


def recipe_of(text: str) -> dict[str, Any]:
    env, name = re.search(r"--env (\S+) --recipe (\S+)", text).groups()
    return read_recipe(env, name)


SHOWN = [block for block in re.split(r"^```.*\n", PAGE, flags=re.M)[1::2] if " train " in block]
TRAININGS = [*SHOWN, *(path.read_text(encoding="utf-8") for path in sorted(JOBS.iterdir()))]


@pytest.mark.parametrize("text", TRAININGS)
def test_settings_of_commands_and_jobs_are_known(text: str) -> None:
    settings = training(text)
    assert settings
    load([recipe_of(text), *(override(setting) for setting in settings)])


def test_options_of_agentgym_in_jobs_exist() -> None:
    from typer.main import get_command

    from agentgym.cli import app

    commands = get_command(app).commands
    for path in JOBS.iterdir():
        joined = path.read_text(encoding="utf-8").replace("\\\n", " ")
        words = [word for line in joined.splitlines() if not line.startswith("#") for word in
                 line.replace("(", " ").replace(")", " ").split()]  # fmt: skip
        named = [b for a, b in pairwise(words) if a == "agentgym" and b in commands]
        known = {o for name in named for p in commands[name].params for o in p.opts}
        known |= ACCELERATE | OTHERS
        assert named
        assert {word for word in words if word.startswith("--")} <= known, path.name


ACCELERATE = {
    "--num_processes",
    "--num_machines",
    "--machine_rank",
    "--main_process_ip",
    "--main_process_port",
    "--module",
}
OTHERS = {"--nodes=1", "--nodes=2", "--ntasks=1", "--ntasks=2", "--fail", "--silent"}
OTHERS |= {'--nodelist="$SERVERS"', '--nodelist="${nodes[0]},${nodes[1]}"'}


def test_options_of_accelerate_in_jobs_exist() -> None:
    from accelerate.commands.launch import launch_command_parser

    options = launch_command_parser()._option_string_actions
    assert options.keys() >= ACCELERATE


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_job_of_slurm_is_a_script(path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n", path], check=True)
    for inner in re.findall(r"bash -c '\n(.*?)^'$", path.read_text(), re.M | re.S):
        subprocess.run([bash, "-n", "-c", inner], check=True)
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert all(
        re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in lines if "#SBATCH" in line
    )


PROGRAM = """#!/bin/bash
name=training; case "$*" in *"agentgym serve"*) name=servers ;; esac
say() { echo "$name $1" >> "$LOG"; }
trap 'say told; sleep 0.3; say done; exit 7' TERM
say there
while :; do sleep 0.02; done
"""
HOSTS = """#!/bin/bash
printf 'one\\ntwo\\nthree\\n'
"""


@pytest.mark.parametrize("name", ["one-node", "nodes"])
def test_a_job_that_is_told_to_end_ends_the_training_first_and_waits_for_it(
    name: str, tmp_path: Path
) -> None:
    log, programs = tmp_path / "log", tmp_path / "programs"
    programs.mkdir()
    for program, text in (("accelerate", PROGRAM), ("srun", PROGRAM), ("scontrol", HOSTS)):
        (programs / program).write_text(text)
        (programs / program).chmod(0o755)
    given = {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(log)}
    slurm = {"SLURM_JOB_NAME": "a", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "x"}
    job = subprocess.Popen(["bash", JOBS / f"{name}.sbatch"], cwd=tmp_path, env=given | slurm)
    servers = name == "nodes"

    def said() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    try:
        until = time.monotonic() + 60
        while len(said()) < 1 + servers and time.monotonic() < until:
            time.sleep(0.02)
        job.terminate()
        assert job.wait(60) == 7  # the training's
        expected = ["training told", "training done", *["servers told"] * servers]
        while len(said()) < 1 + servers + len(expected) and time.monotonic() < until:
            time.sleep(0.02)
        assert said()[1 + servers :][: len(expected)] == expected
    finally:
        job.kill()


def test_the_job_of_ray_is_a_ray_job_with_pods_of_one_image() -> None:
    job = yaml.safe_load((JOBS / "ray-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["accelerate", "launch"]
    (devices,) = [word for word in words if word.startswith("policy.serve.devices=")]
    assert tomllib.loads(f"v = {devices.partition('=')[2]}")["v"] == ["6", "7"]
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = {one["image"] for pod in pods for one in pod["template"]["spec"]["containers"]}
    assert images == {"IMAGE"}


def test_the_pod_that_trains_has_the_memory_that_is_reckoned(agentgym: Any) -> None:
    job = yaml.safe_load((JOBS / "ray-job.yaml").read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (limit,) = [one["resources"]["limits"]["memory"] for one in head["containers"]]
    shm = [volume["emptyDir"]["sizeLimit"] for volume in head["volumes"] if "emptyDir" in volume]
    words = shlex.split(job["spec"]["entrypoint"])
    processes = int(words[words.index("--num_processes") + 1])
    run = ("--env", "scienceworld", "--recipe", "paper", "--set", "parallel.weights=sharded")
    plan = ("doctor", "--plan", *run, "--gpus", processes, "--serving-gpus", 2)
    _, out, _ = agentgym(*plan)
    each = float(re.search(r"memory of the hosts: ([\d.]+) GiB a process", out)[1])
    reckoned = each * processes + sum(int(size.removesuffix("Gi")) for size in shm)
    assert reckoned < int(limit.removesuffix("Gi")) < 1.5 * reckoned
