"""What is shown of a run while it goes."""

import sys

import pytest
from rich.console import Console

from agentgym.console import say
from agentgym.live import COLUMNS, _Table, live_steps

STEP = {"step": 2, "episode/success_rate": 0.25, "reward/mean": 2.5, "not/shown": 1.0}


def test_a_pipe_gets_one_plain_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with live_steps(9) as show:
        show(STEP)
        show({**STEP, "step": 3, "eval/alfworld/gen-unseen/success_rate": 0.5})
    assert capsys.readouterr().out.splitlines() == [
        "step 2/9  success 0.250  reward 2.50",
        "step 3/9  success 0.250  reward 2.50  held out gen-unseen 0.500",
    ]


def test_a_terminal_gets_a_table_of_the_last_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with live_steps(99) as show:
        for step in range(40, 60):
            show({**STEP, "step": step})
    last = capsys.readouterr().out.rpartition("step 59 of 99")[2]
    assert "success" in last
    assert "0.250" in last
    assert "48" in last
    assert "47" not in last  # twelve steps are shown


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_shows_curves_what_is_waited_for_and_how_long_it_will_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console(file=sys.stdout, width=120)
    now = [0.0]
    table = _Table(10, lambda: now[0])
    for step, success in ((1, 0.0), (2, 0.7), (3, 0.35)):
        table({"step": step, "episode/success_rate": success, "time/step": 90.0, "time/update": 30})
    table.stage("update")
    now[0] = 12.0
    console.print(table)
    said = capsys.readouterr().out
    *_, bar, waiting = said.splitlines()
    assert set(bar.strip()) <= set("━╸╺ ")
    assert waiting.startswith("step 4 of 10: ")
    assert " success ▁█▄ 0.350" in said
    # Seven steps of a minute and a half are ten and a half minutes.
    assert "step 4 of 10: updating the weights, 12 s (usually 30 s); about 10 min to go" in said


def test_a_terminal_says_when_all_steps_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    table = _Table(2)
    table({"step": 2, "time/step": 9.0})
    table.stage("save")
    Console(file=sys.stdout, width=80).print(table)
    assert capsys.readouterr().out.splitlines()[-1] == "all 2 steps are done"


def test_a_narrow_terminal_goes_without_what_matters_least(
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = {**dict.fromkeys(COLUMNS, 0.5), "step": 1}
    for width, there, gone in (
        (200, ["grad norm", "admissible", "success"], []),
        (100, ["success", "admissible", "seconds"], ["grad norm"]),
        (80, ["success", "admissible", "reward", "entropy"], ["grad norm", "KL", "turns"]),
        (60, ["success", "reward", "entropy"], ["grad norm", "KL", "turns", "seconds"]),
    ):
        table = _Table(9)
        table(step)
        Console(file=sys.stdout, width=width).print(table)
        said = capsys.readouterr().out
        assert [label for label in there if label not in said] == []
        assert [label for label in gone if label in said] == []
        assert max(map(len, said.splitlines())) <= width


def test_steps_of_one_update_show_no_kl(capsys: pytest.CaptureFixture[str]) -> None:
    with live_steps(9) as show:
        show({**STEP, "actor/ppo_kl": 0.0})
        show({**STEP, "actor/ppo_kl": 1e-4})
    one, several = capsys.readouterr().out.splitlines()
    assert "KL" not in one
    assert several.endswith("KL 1.0e-04")


def test_a_table_is_drawn_while_the_loop_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    table = _Table(9)

    class Step(dict[str, float]):
        """A step during whose drawing the next one ends."""

        def __contains__(self, name: object) -> bool:
            if name == "actor/entropy":
                table({**STEP, "actor/entropy": 1.0})
            return super().__contains__(name)

    table({**STEP, "step": 0})
    for _ in range(3):
        table(Step(STEP))
        Console(file=sys.stdout, width=80).print(table)
        assert "0.250" in capsys.readouterr().out
    drawing = iter(table.__rich_console__(Console(file=sys.stdout, width=80), None))
    next(drawing), next(drawing)  # the table and a curve
    table({**STEP, "sft/action_loss": 1.0})
    assert len(list(drawing)) == 5  # two curves, a bar, its line, and what is waited for


def test_a_pipe_is_not_told_of_stages(capsys: pytest.CaptureFixture[str]) -> None:
    with live_steps(9) as show:
        show.stage("rollout")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("terminal")
def test_what_is_said_meanwhile_stands_above_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with live_steps(9) as show:
        show(STEP)
        say("collapse? step 2: [bold]entropy[/bold]")
    assert "collapse? step 2: [bold]entropy[/bold]" in capsys.readouterr().out
