"""Finished episodes on the disk: whole ones count, torn ones do not, foreign ones are told."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import DataError, UsageError
from agentgym.journal import open_journal
from agentgym.types import Key, Stop, Trajectory, Turn, Usage

PROTOCOL: dict[str, Any] = {"suite": "s/x", "types": ("a", "b"), "seed": 0}


def episode(task: str, won: bool = True) -> Trajectory:
    turn = Turn("see", "say é", "do", None, True, 1.0, "")
    usage = Usage(1, 2, 0, 3, 0, 0.1)
    return Trajectory(
        Key(task, 0), "s/x", "kind", "goal", (turn,), (), Stop.TERMINATED, won, 1.0, usage=usage
    )


def write(folder: Path, *tasks: str) -> None:
    with open_journal(folder, PROTOCOL) as journal:
        journal.append([episode(task) for task in tasks])


def test_what_was_written_down_is_there_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    write(tmp_path, "1", "2")
    write(tmp_path, "3")
    with open_journal(tmp_path, PROTOCOL) as journal:
        assert journal.finished == {Key(t, 0): episode(t) for t in "123"}


@pytest.mark.parametrize("torn", [b"{", b'{"task": "3", "won": tru', b"\x00\x00", b"\xff"])
def test_a_last_line_that_was_cut_off_does_not_count_and_is_taken_away(
    tmp_path: Path, torn: bytes
) -> None:
    write(tmp_path, "1")
    with (tmp_path / "episodes.jsonl").open("ab") as stream:
        stream.write(torn)
    write(tmp_path, "2")
    with open_journal(tmp_path, PROTOCOL) as journal:
        assert sorted(journal.finished) == [Key("1", 0), Key("2", 0)]


@pytest.mark.parametrize("line", [b"no json", b"[1]", b'{"task": "x"}', b"\xff", b'{"a": 1}'])
def test_a_line_that_is_no_episode_is_told_with_its_place(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, "1")
    with (tmp_path / "episodes.jsonl").open("ab") as stream:
        stream.write(line + b"\n")
    with pytest.raises(DataError, match=r"episodes\.jsonl, line 2 is no"):
        write(tmp_path, "2")


def test_the_journal_of_another_protocol_is_refused_with_what_differs(tmp_path: Path) -> None:
    write(tmp_path, "1")
    with (
        pytest.raises(UsageError, match=r"another protocol \(types is \[\"a\", \"b\"\] there, \["),
        open_journal(tmp_path, PROTOCOL | {"types": ("a",)}),
    ):
        pass


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_protocol_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "protocol.json").write_bytes(content)
    with pytest.raises((DataError, UsageError), match="choose another folder"):
        write(tmp_path, "1")


def test_episodes_without_their_protocol_are_refused(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"no protocol\.json to tell of what"):
        write(tmp_path, "1")


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        open_journal(tmp_path, PROTOCOL),
        pytest.raises(DataError, match="another process evaluates into"),
        open_journal(tmp_path, PROTOCOL),
    ):
        pass


def test_a_full_disk_is_said_and_what_was_written_before_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "1")
    with open_journal(tmp_path, PROTOCOL) as journal, Path("/dev/full").open("wb", 0) as full:
        journal._stream = full
        with pytest.raises(DataError, match="No space left"):
            journal.append([episode("2")])
    with open_journal(tmp_path, PROTOCOL) as journal:
        assert list(journal.finished) == [Key("1", 0)]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write into the folder"):
        write(tmp_path / "file" / "inner", "1")


def test_the_protocol_is_kept_as_json(tmp_path: Path) -> None:
    write(tmp_path, "1")
    kept = json.loads((tmp_path / "protocol.json").read_text())
    assert kept == {"suite": "s/x", "types": ["a", "b"], "seed": 0}
