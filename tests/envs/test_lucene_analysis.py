"""Which terms Lucene makes of a text."""

from __future__ import annotations

import pytest

from agentgym.envs.lucene_analysis import terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Men's shirts", "men shirt"),  # stop word, possessive, stem
        ("CAFÉ\u2019S wi-fi", "café wi fi"),  # a curly possessive; a hyphen parts
        ("size:large", "size:larg"),  # a colon between letters joins
        ("1,000 3.5mm u.s.a. end.", "1,000 3.5mm u.s.a end"),
        ("a.5 5.a", "5 5"),  # a point joins letters or digits, not one and the other; a stops
        ("don't can\u2019t", "don't can\u2019t"),
        ("foo_bar __x__ ___ _", "foo_bar __x__"),  # joiners alone are no word
        ("★★ ™ 👍🏽 🇫🇷", "★ ★ ™ 👍🏽 🇫🇷"),  # symbols set aside for emoji are terms
        ("• \u2013 | & 5% $", "5"),  # other signs are none
        ("中文 ひら カタカナ 한국", "中 文 ひ ら カタカナ 한국"),
        ("", ""),
    ],
)
def test_a_text_becomes_the_terms_that_lucene_makes(text: str, expected: str) -> None:
    assert terms(text) == expected.split()


def test_a_token_too_long_for_lucene_is_cut() -> None:
    assert [len(term) for term in terms("x" * 600)] == [255, 255, 90]
