"""Spellings of control tokens are cut, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.policies.control_tokens import ControlTokens

CONTROL = ControlTokens(["<s>", "</s>", "s><", "<s>|<s>", "\n"])
SEAM = "\N{BULLET}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <s> b", "a <•s> b"),
        ("<s><s>", "<•s•><•s>"),  # overlapping: <s>, s><, <s>
        ("</s", "</s"),
        ("\n", "\n"),  # a single character cannot be cut
        ("", ""),
    ],
)
def test_each_spelling_is_cut_after_its_first_character(text: str, expected: str) -> None:
    assert CONTROL.cut(text, SEAM) == expected


@given(st.text("</s>|x\n\ufdd0"))
def test_no_piece_spells_one_and_no_character_is_lost(text: str) -> None:
    seam = CONTROL.seam_for([text])
    if seam is None:
        assert not CONTROL.occur_in(text)
        return
    assert seam not in text
    pieces = CONTROL.cut(text, seam).split(seam)
    assert len(pieces) > 1
    assert "".join(pieces) == text
    assert not any(map(CONTROL.occur_in, pieces))


def test_a_tokenizer_without_control_tokens_leaves_all_text_alone() -> None:
    nothing = ControlTokens([])
    assert nothing.seam_for(["<s>", ""]) is None
