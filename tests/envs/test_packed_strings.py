"""Strings in files that are mapped into memory."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

import pytest

from agentgym.envs.packed_strings import PackedStrings


def test_strings_come_back_as_they_were(tmp_path: Path) -> None:
    strings = ["", "mug", "café ★\n", "", "😀"]
    PackedStrings.write(tmp_path / "words", iter(strings))
    packed = PackedStrings(tmp_path / "words")
    assert list(packed) == strings
    assert packed[1:3] == strings[1:3]
    assert len(packed) == 5


@pytest.mark.parametrize("strings", [[], [""]])
def test_nothing_can_be_packed(tmp_path: Path, strings: list[str]) -> None:
    PackedStrings.write(tmp_path / "words", strings)
    assert list(PackedStrings(tmp_path / "words")) == strings


def test_sorted_ones_can_be_searched(tmp_path: Path) -> None:
    strings = sorted(["b", "é", "a", "😀", "zz"])
    PackedStrings.write(tmp_path / "words", strings)
    packed = PackedStrings(tmp_path / "words")
    assert [bisect_left(packed, one) for one in strings] == [0, 1, 2, 3, 4]


def test_an_index_out_of_range_is_refused(tmp_path: Path) -> None:
    PackedStrings.write(tmp_path / "words", ["a"])
    with pytest.raises(IndexError, match="there are 1 strings"):
        PackedStrings(tmp_path / "words")[1]
