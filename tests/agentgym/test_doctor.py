"""What is found on a machine, what mends it, and whether a run would start."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentgym import doctor
from agentgym.doctor import Finding, diagnose
from agentgym.doctor_play import look
from agentgym.policies.bundled import resolve_model


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MEASURE_S", 0.1)


def found(about: str, **options: Any) -> list[Finding]:
    seen = diagnose(options.pop("envs", ()), options.pop("folder", Path()), **options)
    return [finding for finding in seen if finding.about.startswith(about)]


def test_a_machine_that_runs_the_tests_would_run_a_run(agentgym: Any, tmp_path: Path) -> None:
    code, out, err = agentgym("doctor", "--env", "corridor", "-o", tmp_path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"ok    python: {sys.version.split()[0]}")
    assert any(line.startswith("ok    packages: all ") for line in lines)
    assert any(line.startswith("ok    corridor: corridor/train (256 tasks, ") for line in lines)
    assert lines[-1] == "nothing here would stop a run"
    assert "FAIL" not in out


def test_a_package_that_is_missing_or_too_old_stops_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "peft":
            raise metadata.PackageNotFoundError(name)
        return "4.0.0" if name == "transformers" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    (old,) = found("transformers")
    assert (old.level, old.said) == ("FAIL", "4.0.0; needed is <6,>=5.16")
    assert old.mend == "pip install 'transformers<6,>=5.16'"
    (missing,) = found("peft")
    assert missing.said.startswith("missing; needed is ")


def test_an_extra_that_is_missing_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "matplotlib":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    (note,) = found("matplotlib")
    assert (note.level, note.mend) == ("note", "pip install 'agentgym[plot]'")


def test_a_torch_that_cannot_be_imported_stops_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise OSError("libtorch_cpu.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "import_module", broken)
    (torch,) = found("torch")
    assert torch.level == "FAIL"
    assert "libtorch_cpu.so" in torch.said
    assert found("cpu") == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("free", "level"), [(0.4e9, "FAIL"), (4e9, "note"), (50e9, "ok")], ids=["none", "tight", "room"]
)
def test_a_disk_is_judged_by_what_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, level: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, int(free)))
    for disk in found("disk", folder=tmp_path / "not" / "yet"):
        assert disk.level == level
        assert (disk.mend is None) == (level == "ok")
        assert f"{free / 1e9:.1f} GB free" in disk.said


# Environments -------------------------------------------------------------------------------------


def test_an_environment_is_measured_in_a_process_of_its_own() -> None:
    told = look("corridor", 0.1)
    assert (told["suite"], told["tasks"], told["missing"]) == ("corridor/train", 256, [])
    assert told["steps_per_s"] > 100
    assert 5 < told["mb"] < 5000


def test_published_data_that_is_not_here_is_a_note_with_its_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    played, missing, bundled = found("alfworld", envs=["alfworld"])[-3:]
    assert bundled.about == "alfworld, bundled data"
    assert played.level == "ok"
    assert missing.level == "note"
    assert "alfworld/valid_unseen" in missing.said
    assert missing.mend == "agentgym envs download alfworld"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import sys; sys.exit('no more handles')", "no more handles"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
        ('print(\'{"error": "the data is broken"}\')', "the data is broken"),
        ("print('[1]')", "cannot be played: [1]"),
        ("import time; time.sleep(60)", "was not played within 1 s"),
    ],
    ids=["fails", "dies", "says so", "babbles", "hangs"],
)
def test_an_environment_that_fails_stops_a_run_and_not_the_doctor(
    monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    real = subprocess.run

    def run(_: list[str], **options: Any) -> Any:
        return real([sys.executable, "-c", script], **options)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(doctor, "_PLAY_S", 1.0)
    (finding,) = found("corridor", envs=["corridor"])
    assert (finding.level, finding.mend) == ("FAIL", "agentgym envs check corridor")
    assert says in finding.said


def test_the_command_exits_1_when_a_run_would_not_start(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 10, 0))
    code, out, err = agentgym("doctor", "--env", "corridor", "-o", tmp_path)
    assert code == 1
    assert "FAIL  disk for runs: 0.0 GB free" in out
    assert "mend: agentgym train --output" in out
    assert err == "agentgym: 2 of these would stop a run; each stands above, with what mends it\n"


def test_an_unknown_environment_is_refused_before_anything_is_looked_at(agentgym: Any) -> None:
    code, out, err = agentgym("doctor", "--env", "coridor")
    assert (code, out) == (2, "")
    assert "corridor" in err


# A server -----------------------------------------------------------------------------------------


def test_a_server_that_can_do_all_is_found_so(serve_fake: Callable[..., Any]) -> None:
    server = serve_fake(resolve_model("alfworld-tiny"))
    seen = found("server", server=server.url)
    assert [finding.level for finding in seen] == ["ok", "ok", "ok"]
    said = f"{server.url} is vLLM 0.32.0 and has tiny, contexts of 512 tokens"
    assert seen[0].said == said


def test_a_server_without_a_flag_names_it(serve_fake: Callable[..., Any]) -> None:
    server = serve_fake(resolve_model("alfworld-tiny"), lora=False, processed=False)
    disk, logprobs, lora = found("server", server=server.url)
    assert disk.level == "ok"
    assert (logprobs.level, lora.level) == ("note", "note")
    assert "before the temperature" in logprobs.said
    assert "--enable-lora" in lora.said


def test_a_server_that_cannot_take_weights_at_all_stops_a_run(
    serve_fake: Callable[..., Any],
) -> None:
    server = serve_fake(resolve_model("alfworld-tiny"), dev=False, lora=False)
    seen = found("server", server=server.url)
    assert [finding.level for finding in seen] == ["FAIL", "FAIL"]
    assert "VLLM_SERVER_DEV_MODE=1" in seen[0].said


def test_nobody_at_the_server_s_address_stops_a_run() -> None:
    seen = found("server", server="http://127.0.0.1:9")
    assert [(finding.level, finding.about) for finding in seen] == [("FAIL", "server")]
    assert "127.0.0.1:9" in seen[0].said
