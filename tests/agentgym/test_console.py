"""What the commands write, in a pipe and in a terminal."""

import io
import re
import sys

import pytest

from agentgym.console import in_columns, plain_table, progress, say, say_table, spark, visible, warn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31mred\x07\r\x9b2J\tb\nc ä")
    warn("\x1b]0;title\x07")
    out, err = capsys.readouterr()
    assert out == "a\\x1b[31mred\\x07\\x0d\\x9b2J\tb\nc ä\n"
    assert err == "\\x1b]0;title\\x07\n"


def test_text_is_not_turned_round_and_halves_of_characters_are_written() -> None:
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="utf-8")
    terminal.write(visible("a\u202eb\u2066c\ud800d\u2028e\udcff שלום 😀"))
    terminal.flush()
    assert raw.getvalue().decode() == "a\\u202eb\\u2066c\\ud800d\\u2028e\\udcff שלום 😀"


def test_a_table_in_a_pipe_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("name", "n"), [("a", "1"), ("long name", "22")])
    assert capsys.readouterr().out == "name       n\na          1\nlong name  22\n"


def test_a_table_without_rows_is_its_header() -> None:
    assert plain_table(("name", "n"), []) == ["name  n"]


def test_a_table_in_a_terminal_is_drawn_and_takes_brackets_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    say_table(("name", "n"), [("[red]a[/red]", "\x1b[2J")])
    assert "[red]a[/red]" in terminal.getvalue()
    assert "\\x1b[2J" in terminal.getvalue()
    assert "─" in terminal.getvalue()


def drawn(monkeypatch: pytest.MonkeyPatch, columns: int) -> list[list[str]]:
    """Return the cells of a table by line: a name, prose, a digest, and what can be spared."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    row = ("alfworld/gen-unseen", "fourteen words " * 7, "0123456789ab", "published")
    say_table(("suite", "about", "digest", "origin"), [row], spare=("origin", "digest"))
    plain = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    return [re.split(r"  +", line.strip()) for line in plain.splitlines()[3:] if line.strip()]


def test_only_prose_is_wrapped_in_a_narrow_terminal_and_by_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, *more = drawn(monkeypatch, 80)
    assert (first[0], *first[2:]) == ("alfworld/gen-unseen", "0123456789ab", "published")
    words = " ".join([first[1], *(cell for (cell,) in more)]).split()
    assert words == ["fourteen", "words"] * 7


@pytest.mark.parametrize(("columns", "shown"), [(73, 4), (72, 3), (60, 2)])
def test_a_narrow_terminal_goes_without_the_columns_that_can_be_spared(
    monkeypatch: pytest.MonkeyPatch, columns: int, shown: int
) -> None:
    # 19 + 20 + 12 + 9 characters, 3 a column between them, and 1.
    assert len(drawn(monkeypatch, columns)[0]) == shown


def test_columns_are_read_downwards_and_fit_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "11")
    assert in_columns(["aaa", "b", "c", "d", "e"]) == "aaa  d\nb    e\nc"
    monkeypatch.setenv("COLUMNS", "3")
    assert in_columns(["aaa", "b"]) == "aaa\nb"
    assert in_columns([]) == ""


def test_progress_is_a_bar_in_a_terminal_and_nothing_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("games") as told:
        told(1, 2)
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("games") as told:
        told(1, 2)
    assert "games" in terminal.getvalue()
    assert "50%" in terminal.getvalue()


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([1.0], "▁"), ([2.0, 2.0], "▁▁"), ([0, 7], "▁█"), ([0, 0, 4, 4, 7, 7], "▁▅█")],
)
def test_a_curve_is_bars_from_its_lowest_to_its_highest(values: list[float], bars: str) -> None:
    assert spark(values, width=3) == bars
