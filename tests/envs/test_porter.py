"""The Porter stemmer, on the examples of its author's paper and where his program departs."""

from __future__ import annotations

import pytest

from agentgym.envs.porter import stem

PAPER = """
caresses caress  ponies poni  ties ti  caress caress  cats cat  feed feed  agreed agre
plastered plaster  bled bled  motoring motor  sing sing  conflated conflat  troubled troubl
sized size  hopping hop  tanned tan  falling fall  hissing hiss  fizzed fizz  failing fail
filing file  happy happi  sky sky  relational relat  conditional condit  rational ration
valenci valenc  hesitanci hesit  digitizer digit  radicalli radic  differentli differ
vileli vile  analogousli analog  vietnamization vietnam  predication predic  operator oper
feudalism feudal  decisiveness decis  hopefulness hope  callousness callous  formaliti formal
sensitiviti sensit  sensibiliti sensibl  triplicate triplic  formative form  formalize formal
electriciti electr  electrical electr  hopeful hope  goodness good  revival reviv
allowance allow  inference infer  airliner airlin  gyroscopic gyroscop  adjustable adjust
defensible defens  irritant irrit  replacement replac  adjustment adjust  dependent depend
adoption adopt  communism commun  activate activ  angulariti angular  homologous homolog
effective effect  bowdlerize bowdler  probate probat  rate rate  cease ceas  controll control
roll roll
"""


def test_the_papers_examples() -> None:
    words = PAPER.split()
    assert [stem(word) for word in words[::2]] == words[1::2]


@pytest.mark.parametrize(
    ("word", "expected"), [("possibly", "possibl"), ("archaeology", "archaeolog")]
)
def test_the_authors_program_departs_from_his_paper(word: str, expected: str) -> None:
    # the paper has abli where the program has bli, and no logi: possibli, archaeologi
    assert stem(word) == expected


def test_words_of_one_or_two_letters_are_left_alone() -> None:
    assert [stem(word) for word in ("as", "s", "is", "ye")] == ["as", "s", "is", "ye"]


def test_what_is_no_letter_counts_as_a_consonant() -> None:
    assert stem("3.5mm's") == "3.5mm'"
    assert stem("12ing") == "12ing"  # no vowel before the suffix
