"""The command line: what it says, how it exits, and what it must not import or overwrite."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from agentgym import __version__
from agentgym.cli import app
from agentgym.cli_common import parse_options
from agentgym.envs import registry
from agentgym.errors import UsageError

HEAVY = {"torch", "transformers", "numpy", "gymnasium", "openai"}
PYTHON = [sys.executable, "-m", "agentgym"]
SCRIPT = [str(Path(sys.executable).with_name("agentgym"))]


Words = tuple[str, ...]  # that lead to a command


def commands(group: Any = None, path: Words = ()) -> Iterator[tuple[Words, Any]]:
    """Yield every command with the words that lead to it, groups and the whole included."""
    command = typer.main.get_command(app) if group is None else group
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


ALL_COMMANDS = dict(commands())


def test_the_commands_are_there() -> None:
    known = {" ".join(path) for path in ALL_COMMANDS}
    assert {"eval", "play", "envs list", "envs info", "envs check", "envs export"} <= known


# Help ---------------------------------------------------------------------------------------------


def imported(command: list[str]) -> set[str]:
    """Return the top-level packages that a command imported, by Python's own account."""
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("start", [PYTHON, SCRIPT], ids=["python -m agentgym", "agentgym"])
def test_help_imports_nothing_heavy(start: list[str]) -> None:
    packages = imported([*start, "--help"])
    assert "typer" in packages
    assert not packages & HEAVY


def test_no_commands_help_imports_anything_heavy() -> None:
    script = (
        "import sys\n"
        "from agentgym.cli import main\n"
        f"for path in {[list(path) for path in ALL_COMMANDS]!r}:\n"
        "    sys.argv = ['agentgym', *path, '--help']\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as exit_:\n"
        "        assert not exit_.code, path\n"
    )
    packages = imported([sys.executable, "-c", script])
    assert "typer" in packages
    assert not packages & HEAVY


@pytest.mark.parametrize("path", ALL_COMMANDS, ids=lambda path: " ".join(("agentgym", *path)))
def test_every_help_has_an_example_that_begins_as_the_command(path: Words) -> None:
    assert (ALL_COMMANDS[path].epilog or "").startswith(
        " ".join(("Example: agentgym", *path)).strip()
    )


def test_every_example_is_understood() -> None:
    for path, command in ALL_COMMANDS.items():
        words = command.epilog.removeprefix("Example: agentgym ").split()
        inner, rest = ALL_COMMANDS[()], words
        while rest and rest[0] in getattr(inner, "commands", {}):
            inner, rest = inner.commands[rest[0]], rest[1:]
        inner.make_context("agentgym", rest)  # parses, and runs nothing
        assert "commands" not in vars(inner), path


def test_the_version_is_told(agentgym: Any) -> None:
    assert agentgym("--version") == (0, f"agentgym {__version__}\n", "")


# Bad usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["evl"], "'eval'"),
        (["envs", "lst"], "'list'"),
        (["eval", "--polcy", "random"], "--policy"),
        (["eval", "--suite", "corridor/tset", "--policy", "random"], "corridor/test"),
        (["eval", "--suite", "coridor/test", "--policy", "random"], "corridor"),
        (["eval", "--env", "alfwrld", "--policy", "random"], "alfworld"),
        (["eval", "--env", "corridor", "--policy", "randon"], "random"),
        (["eval", "--suite", "alfworld/gen-seen", "--policy", "random", "--option", "engin=x"],
         "engine"),
        (["eval", "--suite", "alfworld/gen-seen", "--policy", "random", "--option", "engine=nativ"],
         "native"),
        (["play", "--env", "corridr"], "corridor"),
        (["play", "--env", "corridor", "--task", "train-00"], "train-00"),
        (["envs", "info", "alfword"], "alfworld"),
        (["envs", "info", "alfworld", "--option", "dat=x"], "data"),
        (["envs", "check", "coridor"], "corridor"),
        (["envs", "export", "alfwold", "--out", "x"], "alfworld"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_wrong_name_exits_2_and_names_the_nearest(
    agentgym: Any, arguments: list[str], nearest: str
) -> None:
    code, _, err = agentgym(*arguments)
    assert code == 2
    assert nearest in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eval", "--policy", "random"], "say what to play: --suite"),
        (["play"], "say what to play: --suite"),
        (["eval", "--suite", "corridor/test"], "say who plays"),
        (["eval", "--suite", "corridor/test", "--env", "alfworld", "--policy", "random"],
         "not of --env alfworld"),
        (["eval", "--suite", "corridor", "--policy", "random"], "environment/set"),
        (["eval", "--env", "corridor", "--policy", "random", "--option", "loud"], "key=value"),
        (["eval", "--env", "corridor", "--policy", "random", "--option", "suite=x"], "--suite"),
        (["eval", "--env", "corridor", "--policy", "random", "-n", "0"], "--tasks"),
        (["envs", "export", "corridor", "--out", "x"], "only games of alfworld"),
        (["envs", "export", "alfworld", "--out", "x", "--suite", "alfworld/valid_seen"],
         "no set of generated games"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_does_not_fit_exits_2_and_says_why(
    agentgym: Any, arguments: list[str], says: str
) -> None:
    code, _, err = agentgym(*arguments)
    assert code == 2
    assert says in err


def test_option_values_are_read_as_what_they_look_like() -> None:
    pairs = ["a=1", "b=0.5", "c=true", "d=text", "e=/a/b=c", 'f="1"', "g=", "h=1979-05-27", "i=[1]"]
    assert parse_options(pairs) == {
        "a": 1, "b": 0.5, "c": True, "d": "text", "e": "/a/b=c", "f": "1", "g": "",
        "h": "1979-05-27", "i": "[1]",
    }  # fmt: skip
    assert parse_options(["x=1\ny=2"]) == {"x": "1\ny=2"}


@pytest.mark.parametrize("pairs", [["a"], ["=1"], ["a=1", "a=2"]])
def test_options_that_are_no_pairs_or_given_twice_are_refused(pairs: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_options(pairs)


# envs ---------------------------------------------------------------------------------------------


def test_the_list_tells_what_environments_there_are(agentgym: Any) -> None:
    code, out, _ = agentgym("envs", "list")
    assert code == 0
    for name in registry.env_names():
        assert any(line.startswith(name) for line in out.splitlines())


def test_a_broken_plug_in_does_not_hide_the_others(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._paths(), "bad", "no_such_module:Env")
    code, out, _ = agentgym("envs", "list")
    assert code == 0
    assert "broken: environment 'bad' is registered as no_such_module:Env" in out
    assert "corridor" in out


def test_info_tells_sizes_digests_and_how_to_get_what_is_not_there(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    code, out, _ = agentgym("envs", "info", "alfworld")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["alfworld/gen-unseen"][1] == "300"
    assert rows["alfworld/gen-unseen"][2] != rows["alfworld/gen-seen"][2]
    assert "agentgym envs download alfworld" in out
    assert "engine=native" in out


@pytest.mark.usefixtures("say_env")
def test_info_tells_published_suites_from_others(agentgym: Any) -> None:
    _, out, _ = agentgym("envs", "info", "say")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "not published" in rows["say/all"]
    assert "not published" not in rows["say/published"]


def test_a_check_that_passes_exits_0(agentgym: Any) -> None:
    code, out, err = agentgym("envs", "check", "corridor", "--suite", "corridor/test")
    assert (code, err) == (0, "")
    assert "passes all" in out
    assert "FAILED" not in out


@pytest.mark.usefixtures("say_env")
def test_a_check_that_fails_exits_1_and_says_what_failed(agentgym: Any) -> None:
    code, out, err = agentgym("envs", "check", "say", "-n", 4)
    assert code == 1
    assert out.count("ZeroDivisionError: broken on purpose") == 1
    assert out.count("FAILED  the same as: tells what info promises") > 1
    assert "say fails" in err


def test_exported_games_are_played_as_one_s_own(agentgym: Any, tmp_path: Path) -> None:
    out = tmp_path / "games"
    assert agentgym("envs", "export", "alfworld", "--out", out, "-n", 2).code == 0
    assert len(list(out.rglob("game.tw-pddl"))) == 2
    code, said, _ = agentgym(
        "eval", "--suite", "alfworld/folder", "--option", f"data={out}", "--policy", "expert"
    )
    assert code == 0
    assert "2/2" in said


def test_an_export_never_writes_into_a_folder_that_holds_something(
    agentgym: Any, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("x")
    code, _, err = agentgym("envs", "export", "alfworld", "--out", tmp_path, "-n", 1)
    assert code == 2
    assert "is not empty; nothing was written" in err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


# Data ---------------------------------------------------------------------------------------------


def test_a_published_suite_without_its_data_says_how_to_get_it(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    code, _, err = agentgym("eval", "--suite", "alfworld/valid_unseen", "--policy", "random")
    assert code == 1
    assert err.count("\n") == 1
    assert "agentgym envs download alfworld" in err


def test_an_empty_data_folder_and_a_broken_game_are_one_line_each(
    agentgym: Any, tmp_path: Path
) -> None:
    games = ("eval", "--policy", "expert", "--suite", "alfworld/folder", "--option")
    code, _, err = agentgym(*games, f"data={tmp_path}")
    assert (code, err.count("\n")) == (1, 1)
    assert str(tmp_path) in err
    agentgym("envs", "export", "alfworld", "--out", tmp_path / "games", "-n", 1)
    (game,) = tmp_path.rglob("game.tw-pddl")
    whole = game.read_text()
    game.write_text(whole[: len(whole) // 2])
    code, _, err = agentgym(*games, f"data={tmp_path / 'games'}")
    assert (code, err.count("\n")) == (1, 1)
    assert "game.tw-pddl" in err


# eval ---------------------------------------------------------------------------------------------


def test_eval_shows_the_rate_by_type_and_says_that_the_suite_is_not_published(
    agentgym: Any, tmp_path: Path
) -> None:
    code, out, err = agentgym(
        "eval", "--suite", "corridor/test", "--policy", "expert", "-o", tmp_path
    )
    assert (code, err) == (0, "")
    rows = {line.partition("  ")[0]: line.split() for line in out.splitlines()}
    assert rows["all"][1:4] == ["64", "64/64", "1.000"]
    assert set(rows) >= {"2 rooms", "3 rooms", "4 rooms"}
    assert "not a published test set" in out
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["summary"]["success"]["won"] == 64


def test_the_environment_alone_takes_its_default_suite_and_says_so(agentgym: Any) -> None:
    _, out, _ = agentgym("eval", "--env", "corridor", "--policy", "expert", "-n", 2)
    assert "suite: corridor/train, the default of corridor" in out
    assert "corridor/train is not held out" in out


@pytest.mark.usefixtures("say_env")
def test_a_fault_of_the_environment_is_named_and_counted(agentgym: Any) -> None:
    code, out, _ = agentgym("eval", "--suite", "say/published", "--policy", "expert")
    assert code == 0
    assert "3/4" in out
    assert "error: 3 sample 0: the environment raised ZeroDivisionError" in out
    assert "not a published test set" not in out


@pytest.mark.usefixtures("say_env")
def test_options_turns_and_samples_reach_the_evaluation(agentgym: Any, tmp_path: Path) -> None:
    agentgym(
        "eval", "--env", "say", "--policy", "expert", "--option", "loud=true", "--max-turns", 2,
        "--samples", 3, "--seed", 4, "-n", 1, "-o", tmp_path,
    )  # fmt: skip
    protocol = json.loads((tmp_path / "results.json").read_text())["protocol"]
    assert protocol["options"] == {"loud": True}
    assert (protocol["max_turns"], protocol["samples"], protocol["seed"]) == (2, 3, 4)


def test_results_are_never_overwritten(agentgym: Any, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("precious")
    code, _, err = agentgym("eval", "--env", "corridor", "--policy", "random", "-o", tmp_path)
    assert code == 2
    assert "already there; nothing was overwritten" in err
    assert (tmp_path / "results.json").read_text() == "precious"


def test_the_table_is_markdown_on_request(agentgym: Any) -> None:
    _, out, _ = agentgym("eval", "--suite", "corridor/test", "--policy", "expert", "--markdown")
    assert "| task type | tasks | won | success | 95% interval |\n| --- | --- |" in out
    assert "| all | 64 | 64/64 | 1.000 | 0.943-1.000 |" in out


@pytest.mark.usefixtures("say_env")
def test_several_samples_show_pass_at_k(agentgym: Any) -> None:
    words = ("eval", "--suite", "say/published", "--policy", "expert", "-n", 3, "--samples", 4)
    _, out, _ = agentgym(*words)
    # Two of three tasks are won by each sample; the third breaks.
    assert "avg@4 0.667, pass@1 0.667, pass@2 0.667, pass@4 0.667" in out


def test_the_same_command_shows_what_is_done_and_another_is_refused(
    agentgym: Any, tmp_path: Path
) -> None:
    words = ("eval", "--suite", "corridor/test", "--policy", "random", "-o", tmp_path)
    first = agentgym(*words)
    assert agentgym(*words) == first
    code, _, err = agentgym(*words, "--seed", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert "another protocol (seed is 0 there, 1 here)" in err


def test_an_evaluation_is_replayed_from_its_trajectories(agentgym: Any, tmp_path: Path) -> None:
    eval_ = ("eval", "--suite", "corridor/test", "-n", 20, "--policy")
    agentgym(*eval_, "random", "-o", tmp_path / "a")
    actions = tmp_path / "a" / "trajectories.jsonl.gz"
    assert agentgym(*eval_, "replay", "--actions", actions, "-o", tmp_path / "b").code == 0
    first, second = (json.loads((tmp_path / x / "results.json").read_text()) for x in "ab")
    assert first["episodes"] == second["episodes"]
    assert first["data"] == second["data"]
    code, _, err = agentgym(*eval_, "replay")
    assert (code, "belong together" in err) == (2, True)


def test_a_person_is_evaluated_from_a_script_and_goes_on_later(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    human = ("eval", "--suite", "corridor/test", "-n", 2, "--policy", "human", "-o", tmp_path)
    for number, says in enumerate((2, 0)):
        (tmp_path / "script").write_text("dance\n" * 8 + "1\n")
        with (tmp_path / "script").open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            code, out, err = agentgym(*human)
        assert code == says
        assert ("does not count" in err) == (number == 0)
    assert "0/2" in out
    assert "task: test-000" not in out  # it was played before


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "--env", "corridor", "--policy", "random"],
        ["envs", "export", "alfworld", "-n", "1"],
    ],
    ids=["eval", "export"],
)
def test_a_folder_that_cannot_be_written_is_one_line(
    agentgym: Any, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "file").write_text("x")
    code, _, err = agentgym(*command, "-o", tmp_path / "file" / "inner")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot write into the folder" in err


@pytest.mark.usefixtures("say_env")
def test_a_random_policy_without_admissible_actions_is_one_line(agentgym: Any) -> None:
    code, _, err = agentgym("eval", "--env", "say", "--policy", "random")
    assert code == 2
    assert "named none" in err


def test_an_interrupt_exits_130_and_says_what_is_kept(tmp_path: Path) -> None:
    running = subprocess.Popen(  # of 3,600 games: long enough
        [*PYTHON, "eval", "--env", "alfworld", "--policy", "random", "-o", tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert running.stdout is not None
    assert "the default of alfworld" in running.stdout.readline()
    while not (tmp_path / "episodes.jsonl").exists():
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err == (
        f"finished episodes are kept in {tmp_path}; the same command goes on after them\n"
        "agentgym: interrupted\n"
    )


@pytest.mark.parametrize(
    "words",
    [["--help"], ["envs", "list"], ["eval", "--suite", "corridor/test", "--policy", "random"]],
    ids=" ".join,
)
def test_a_full_disk_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PYTHON, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == (
        "agentgym: no room left on the disk for what this command says; make room and run it"
        " again\n"
    )


# play ---------------------------------------------------------------------------------------------


def test_play_reads_a_script_and_echoes_a_transcript() -> None:
    done = subprocess.run(
        [*PYTHON, "play", "--suite", "corridor/test", "--task", "test-000"],
        input="dance\n:undo\n:expert 9\n",
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "task: test-000" in lines
    assert "[turn 0, score 0] > dance" in lines
    assert "back at turn 0" in lines
    assert "won: turns 3, score 1, last reward 1" in lines
    assert done.stderr == ""


@pytest.mark.usefixtures("say_env")
def test_play_shows_text_as_text(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("4")
    with script.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        code, out, _ = agentgym("play", "--env", "say", "--task", 4, "--seed", 6)
    assert code == 0
    assert "which number? [bold]6[/bold]\\x1b[2J" in out
    assert "won: turns 1, score 1, last reward 1" in out


def test_play_completes_by_tab_in_a_terminal() -> None:
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [*PYTHON, "play", "--suite", "corridor/test", "--task", "test-000"],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    os.close(theirs)
    read_until(ours, b"score 0] > ")
    os.write(ours, b":exp\t 9\n:q\t\n")
    said = read_until(ours, None)
    os.close(ours)
    assert running.wait(timeout=30) == 0
    assert b"won: turns 3" in said


def read_until(terminal: int, end: bytes | None) -> bytes:
    """Read a terminal until something is said, or to the end."""
    said = b""
    while end is None or end not in said:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side has closed
            break
        if not part:
            break
        said += part
    return said
