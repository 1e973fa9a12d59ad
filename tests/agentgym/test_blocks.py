"""Blocks are found where they are, in time that grows with the text and no faster."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.blocks import Block, first_block

TAGS = ("a", "bc")
PIECES = st.sampled_from(["<a>", "</a>", "<bc>", "</bc>", "<", ">", "x", "\n", "<d>"])


@given(st.lists(PIECES, max_size=12).map("".join), st.integers(0, 5))
def test_it_finds_what_the_pattern_would(text: str, start: int) -> None:
    found = re.compile(r"<(a|bc)>(.*?)</\1>", re.DOTALL).search(text, start)
    expected = found and Block(found[1], found[2], found.start(), found.end())
    assert first_block(text, TAGS, start) == expected


@pytest.mark.parametrize(
    "text", ["<a>" * 100_000, "<a>" * 100_000 + "</bc>", "</a>" + "<a><bc>" * 50_000]
)
def test_a_text_of_opening_tags_takes_no_time(text: str) -> None:
    begun = time.process_time()
    assert first_block(text, TAGS) is None
    assert time.process_time() - begun < 1  # the pattern takes minutes
