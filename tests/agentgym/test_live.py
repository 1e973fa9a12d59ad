"""What is shown of a run while it goes."""

import pytest

from agentgym.live import live_steps

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
