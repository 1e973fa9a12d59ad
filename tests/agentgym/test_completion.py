"""Tab completes commands in shells, and ``--help`` costs little."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("agentgym"))
# So that the shell that is asked for counts, and not the one that runs the tests.
ASKED = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}


def run(*words: str, env: Mapping[str, str] = ASKED) -> str:
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "marks"),
    [
        ("bash", ("complete -o default -F _agentgym_completion agentgym", "complete_bash")),
        ("zsh", ("#compdef agentgym", "complete_zsh")),
        ("fish", ("complete --command agentgym", "complete_fish")),
    ],
)
def test_the_completion_of_a_shell_is_shown(shell: str, marks: tuple[str, ...]) -> None:
    said = run(PROGRAM, "--show-completion", shell)
    assert all(mark in said for mark in marks)


@pytest.mark.parametrize(
    ("words", "known"),
    [("agentgym ev", "eval"), ("agentgym envs inf", "info"), ("agentgym train --rec", "--recipe")],
)
def test_bash_completes_what_was_begun(words: str, known: str, tmp_path: Path) -> None:
    script = tmp_path / "agentgym.sh"
    script.write_text(run(PROGRAM, "--show-completion", "bash"))
    typed = words.split()
    bash = (
        f". {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1};"
        f' _agentgym_completion {PROGRAM}; echo "${{COMPREPLY[@]}}"'
    )
    assert known in run("bash", "-c", bash).split()


def test_zsh_is_told_what_was_begun_with_its_help() -> None:
    said = run(PROGRAM, env={**ASKED, "_AGENTGYM_COMPLETE": "complete_zsh",
                             "_TYPER_COMPLETE_ARGS": "agentgym ev"})  # fmt: skip
    assert "eval" in said
    assert "Run a policy over a suite" in said


@pytest.mark.parametrize(
    ("shell", "script", "sourced"),
    [
        ("bash", ".bash_completions/agentgym.sh", ".bashrc"),
        ("zsh", ".zfunc/_agentgym", ".zshrc"),
    ],
)
def test_the_completion_is_installed_once_however_often(
    shell: str, script: str, sourced: str, tmp_path: Path
) -> None:
    home = {**ASKED, "HOME": str(tmp_path)}
    for _ in range(2):
        assert f"{shell} completion installed in " in run(
            PROGRAM, "--install-completion", shell, env=home
        )
    assert (tmp_path / script).read_text().strip() == (
        run(PROGRAM, "--show-completion", shell).strip()
    )
    written = (tmp_path / sourced).read_text()
    assert written.count(".zfunc" if shell == "zsh" else str(tmp_path / script)) == 1


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_takes_the_script(tmp_path: Path) -> None:
    script = tmp_path / "_agentgym"
    script.write_text(run(PROGRAM, "--show-completion", "zsh"))
    assert run("zsh", "-n", str(script)) == ""


def test_help_costs_at_most_fifteen_times_what_python_does() -> None:
    def spent(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(sys.executable, *words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time, and the least of several: other work on the machine is none of it.
    both = [(spent("-c", "pass"), spent("-m", "agentgym", "--help")) for _ in range(5)]
    python, help_ = (min(times) for times in zip(*both, strict=True))
    assert help_ <= 15 * python
