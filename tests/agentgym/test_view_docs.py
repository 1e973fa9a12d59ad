"""What the pages on looking at runs show is run, and what they name is there."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym import doctor
from agentgym.trainers.guard import GuardOptions, detectors
from agentgym.view import ViewServer

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"^agentgym (.+)$", (ROOT / "docs" / "view.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(
    agentgym: Any,
    make_run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewServer, "serve_forever", interrupted)
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    monkeypatch.setattr(doctor, "default_envs", lambda _: ["corridor"])
    monkeypatch.setattr(doctor, "_MEASURE_S", 0.1)
    for seed in (0, 1):
        run = make_run("runs/seed", seed)
        with (run / "config.toml").open("a") as stream:
            stream.write('[policy]\ntemplate = "plain"\ncontext = "full"\n')
        model = run / "checkpoints" / "step_000003" / "hf"
        model.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (model / name).write_text("{}")
    for seed, policy in enumerate(("random", "expert")):
        evaluation = tmp_path / "runs" / f"seed-{seed}" / "eval" / "step_000000"
        shutil.copytree(evaluation, tmp_path / "results" / policy)
    monkeypatch.chdir(tmp_path)
    code, out, err = agentgym(*shlex.split(command))
    assert (code, err) == (0, "")
    assert out


def test_the_page_on_metrics_lists_every_detector_with_its_settings() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    for detector in detectors(GuardOptions()):
        assert f"| `{detector.name}` | `{detector.metric}` |" in text
    for name, field in GuardOptions.model_fields.items():
        if name not in ("stall_after", "on_collapse"):
            assert f"`guard.{name}`" in text, name
            assert field.default is not None
