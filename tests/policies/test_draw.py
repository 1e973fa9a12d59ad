"""Drawing by inverting the cumulative distribution, with numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from agentgym.policies.draw import draw


def drawn(probabilities, uniform, temperature=1.0, top_k=None):
    logits = torch.tensor([probabilities]).log()
    result = draw(logits, [temperature], [uniform], [top_k])
    return result.tokens[0], result.logprobs[0], result.entropies[0]


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 1), (0.19, 1), (0.21, 2), (0.69, 2), (0.71, 3), (1 - 1e-16, 3)]
)
def test_a_number_falls_on_the_token_whose_share_of_the_line_it_hits(uniform, token):
    # shares: nothing, 0 to 0.2, 0.2 to 0.7, 0.7 to 1, nothing
    got, logprob, _ = drawn([0.0, 0.2, 0.5, 0.3, 0.0], uniform)
    assert got == token
    assert logprob == pytest.approx(math.log([0, 0.2, 0.5, 0.3][token]), abs=1e-6)


def test_temperature_divides_the_logits():
    # 0.2 and 0.8 to the power 1 / 0.5: 0.04 and 0.64, that is 1/17 and 16/17
    _, logprob, entropy = drawn([0.2, 0.8], 0.5, temperature=0.5)
    assert logprob == pytest.approx(math.log(16 / 17), abs=1e-6)
    assert entropy == pytest.approx(-math.log(1 / 17) / 17 - 16 / 17 * math.log(16 / 17), abs=1e-6)


def test_at_temperature_0_the_likeliest_is_taken_and_reported_at_temperature_1():
    token, logprob, entropy = drawn([0.6, 0.4], 0.99, temperature=0.0)
    assert token == 0
    assert logprob == pytest.approx(math.log(0.6), abs=1e-6)
    assert entropy == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4), abs=1e-6)


def test_a_top_k_entropy_is_of_k_tokens_and_one_tail():
    # 0.5, 0.3 and a tail of 0.1 + 0.1
    expected = -0.5 * math.log(0.5) - 0.3 * math.log(0.3) - 0.2 * math.log(0.2)
    assert drawn([0.1, 0.5, 0.1, 0.3], 0.0, top_k=2)[2] == pytest.approx(expected, abs=1e-6)
    whole = drawn([0.1, 0.5, 0.1, 0.3], 0.0)[2]
    assert drawn([0.1, 0.5, 0.1, 0.3], 0.0, top_k=4)[2] == pytest.approx(whole, abs=1e-6)


def test_an_impossible_token_adds_nothing_to_the_entropy():
    assert drawn([0.5, 0.5, 0.0], 0.0)[2] == pytest.approx(math.log(2), abs=1e-6)
