"""Episodes as lines of JSON."""

import gzip
import json
from pathlib import Path

import pytest

from agentgym.errors import DataError
from agentgym.trajectory_line import gzipped, json_line, read_lines, trajectory_line, trajectory_of
from agentgym.types import Key, Row, Stop, Trajectory, Turn, Usage

TURN = Turn("see", "say", "do", "why", False, 0.5, "see")
EPISODE = Trajectory(
    Key("t", 2, 1), "s/x", "kind", "goal", (TURN,), (Row((1,), (0,), (0.0,), (0,)),), Stop.ERROR,
    False, 0.0, "broken", 3, Key("t", 2, 0), 1, usage=Usage(1, 2, 3, 4, 5, 0.5),
)  # fmt: skip


def test_a_line_tells_a_trajectory_but_for_tokens_and_anchors() -> None:
    told = trajectory_of(json.loads(json.dumps(trajectory_line(EPISODE))))
    assert told.rows == ()
    assert told.turns == (Turn("see", "say", "do", "why", False, 0.5, ""),)
    assert trajectory_line(told) == trajectory_line(EPISODE)


@pytest.mark.parametrize("wrong", [{"branch": []}, {"member": "0"}, {"parent": [0, None]}])
def test_a_line_of_a_trajectory_without_a_name_is_none(wrong: dict[str, object]) -> None:
    line = trajectory_line(EPISODE)
    with pytest.raises(TypeError, match="no task, member and branch"):
        trajectory_of({**line, **wrong})


def test_the_same_lines_are_the_same_bytes() -> None:
    assert gzipped([{"a": 1}]) == gzipped([{"a": 1}])
    assert gzip.decompress(gzipped([{"a": "é"}, {}])) == json_line({"a": "é"}) + b"{}\n"


@pytest.mark.parametrize("compress", [True, False])
def test_lines_are_read_compressed_or_not_without_one_that_was_cut_off(
    tmp_path: Path, compress: bool
) -> None:
    content = b'{"a": 1}\n{"a": 2}\n{"a": '
    (tmp_path / "f").write_bytes(gzip.compress(content) if compress else content)
    assert list(read_lines(tmp_path / "f")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{}\nno\n", r"f, line 2 is no JSON"),
        (b"{}\n{}\n3\n", r"f, line 3 is no object"),
        (b"{}\n" + b'{"a":' * 9999 + b"\n", r"f, line 2 is no JSON"),
        (gzip.compress(b"{}\n" * 99)[:-9], r"cannot read .*f: "),
        (None, r"cannot read .*f: .*No such file"),
    ],
)
def test_what_is_none_is_told_in_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "f").write_bytes(content)
    with pytest.raises(DataError, match=says) as raised:
        list(read_lines(tmp_path / "f"))
    assert "\n" not in str(raised.value)
