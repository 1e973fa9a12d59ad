"""The native ALFWorld engine against TextWorld, in three wordings; run by `make test-reference`."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentgym.envs.alfworld_files import write_game
from agentgym.envs.alfworld_generate import make_game
from agentgym.envs.alfworld_tasks import TASK_TYPES, scenes_for

pytestmark = pytest.mark.reference

WALK = Path(__file__).with_name("alfworld_walk.py")
PROCESSES = 2
GRAMMARS = ("generated", "0.4.2", "0.3.5")
VERBS = {"look", "inventory", "examine", "go", "open", "close", "take"}
VERBS |= {"clean", "heat", "cool", "use", "slice"}


def alfworld_logic(version: str, folder: Path) -> Path:
    """Return a folder with the domain and grammar of a release of alfworld, downloaded once."""
    logic = folder / "alfworld" / "data"
    if not (logic / "alfred.twl2").exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--dest", str(folder), f"alfworld=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"alfworld {version} is not to be had: {done.stderr.strip()[-300:]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in ("alfred.pddl", "alfred.twl2"):
                archive.extract(f"alfworld/data/{name}", folder)
    return logic


CHECK = """
import sys
from agentgym.envs.alfworld import ALFWorldEnv
from agentgym.envs.check import check_env
found = check_env(lambda: ALFWorldEnv("alfworld/folder", data=sys.argv[1], engine="textworld"))
assert len(found) > 10
sys.exit("\\n".join(f"{one.check}: {one.detail}" for one in found if not one.passed) or 0)
"""


def test_the_textworld_engine_passes_every_environment_check(tmp_path: Path) -> None:
    for task_type in TASK_TYPES:
        scene = scenes_for(task_type)[0]
        game = make_game("check", task_type, scene, max_receptacles=6, max_objects=6)
        write_game(game, tmp_path / task_type)
    command = [sys.executable, "-c", CHECK, str(tmp_path)]  # a process of its own
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=GRAMMARS)
def walked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What two processes report of the games that carry one grammar, taken together."""
    options = []
    if request.param != "generated":
        folder = request.config.cache.mkdir(f"alfworld-{request.param}")
        options = ["--data", str(alfworld_logic(request.param, folder))]
    running = [
        subprocess.Popen(
            [sys.executable, str(WALK), *options, "--part", str(part), str(PROCESSES)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(PROCESSES)
    ]
    reports = [json.loads(process.communicate()[0]) for process in running]
    return {
        "grammar": request.param,
        "games": sum(report["games"] for report in reports),
        "steps": sum(report["expert_steps"] + report["random_steps"] for report in reports),
        "task_types": sum((Counter(report["task_types"]) for report in reports), Counter()),
        "verbs": sum((Counter(report["verbs"]) for report in reports), Counter()),
        "differences": [one for report in reports for one in report["differences"]],
        "seconds": max(report["seconds"] for report in reports),
    }


def test_native_and_textworld_say_the_same_in_every_step(walked: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{json.dumps(walked)}\n")  # shown with -s, for the record
    assert walked["differences"] == []


def test_the_walk_was_long_and_saw_every_task_type_and_verb(walked: dict[str, Any]) -> None:
    assert walked["games"] >= 20  # 3 grammars: at least 60 games
    assert walked["steps"] >= 1667  # and at least 5,000 steps
    assert min(walked["task_types"].values()) >= 3
    assert len(walked["task_types"]) == 6
    move = "put" if walked["grammar"] == "0.3.5" else "move"
    assert VERBS | {move} <= set(walked["verbs"])
