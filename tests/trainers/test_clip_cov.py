"""Which tokens move entropy most, by hand; which of them are held back, and what that does."""

import math
import random

import pytest
import torch
from torch import Tensor

from agentgym.trainers.batch import Batch
from agentgym.trainers.clip_cov import CovBounds, clip_cov, covariances, kl_cov, kl_cov_loss
from agentgym.trainers.method import Forward, MiniBatchWeights
from agentgym.trainers.surrogate import clipped, clipped_surrogate

# Two trajectories of one turn and three tokens; the last token of the second is masked.
ADVANTAGE = torch.tensor([[2.0, 2, 2], [-1, -1, -1]], dtype=torch.double)
OLD = torch.tensor([[-0.1, -3, -1], [-0.2, -2, -9]], dtype=torch.double)
NOW = torch.tensor([[-0.1, -3, -0.5], [-0.2, -2, -9]], dtype=torch.double)
MASK = torch.tensor([[1.0, 1, 1], [1, 1, 0]], dtype=torch.double)


@pytest.fixture
def batch(make_trajectory, make_batch) -> Batch:
    """The tokens above, behind three of a prompt each."""
    packed = make_batch([make_trajectory("t", 0, (3,)), make_trajectory("t", 1, (3,))])
    last = packed.turn_BT.clone()
    last[1, -1] = -1
    return packed.with_(
        mask_BT=behind_prompt(MASK),
        turn_BT=last,
        old_logprob_BT=behind_prompt(OLD),
        advantage_BT=behind_prompt(ADVANTAGE),
    )


def behind_prompt(value_BT: Tensor) -> Tensor:
    return torch.nn.functional.pad(value_BT, (3, 0))


def held(batch: Batch) -> Tensor:
    return clipped(behind_prompt(NOW) - batch.old_logprob_BT, batch.advantage_BT, 0.2, 0.28)


def test_the_covariance_is_a_product_of_differences_from_means() -> None:
    # means: (3 x 2 - 2 x 1) / 5 = .8 and (-.1 - 3 - .5 - .2 - 2) / 5 = -1.16
    # 1.2 x 1.06, 1.2 x -1.84, 1.2 x .66; -1.8 x .96, -1.8 x -.84
    expected = torch.tensor([[1.272, -2.208, 0.792], [-1.728, 1.512, 0]], dtype=torch.double)
    torch.testing.assert_close(covariances(ADVANTAGE, NOW, MASK), expected, rtol=0, atol=1e-12)


def test_a_masked_tokens_values_do_not_count() -> None:
    wild = torch.where(MASK > 0, NOW, 1e9)
    assert torch.equal(covariances(ADVANTAGE, wild, MASK), covariances(ADVANTAGE, NOW, MASK))


def test_without_a_token_there_is_no_covariance() -> None:
    assert torch.equal(covariances(ADVANTAGE, NOW, 0 * MASK), torch.zeros(2, 3).double())


def test_clip_cov_takes_what_is_within_its_bounds_and_not_clipped_already(batch) -> None:
    # r of the third token is e^.5 = 1.65 > 1.28. Above 1 are the first and the fifth; the share of
    # .4 x 5 tokens is 2, so both go.
    found = clip_cov(
        batch, behind_prompt(NOW), held(batch), CovBounds(0.4, 1, 40), random.Random(0)
    )
    expected = behind_prompt(torch.tensor([[1.0, 0, 0], [0, 1, 0]])) > 0
    assert torch.equal(found.candidate_BT, expected)
    assert torch.equal(found.chosen_BT, expected)


def test_the_tokens_left_out_have_neither_value_nor_gradient(batch) -> None:
    # -A r of what is left: 2 -> -2; the clipped one -2 x 1.28 = -2.56; +1. Sum -3.56, over 5 -.712.
    found = clip_cov(
        batch, behind_prompt(NOW), held(batch), CovBounds(0.4, 1, 40), random.Random(0)
    )
    logprob_BT = behind_prompt(NOW).requires_grad_()
    loss_BT = clipped_surrogate(
        logprob_BT - batch.old_logprob_BT, batch.advantage_BT, 0.2, 0.28, math.inf
    ).masked_fill(found.chosen_BT, 0.0)
    loss = (loss_BT * batch.mask_BT).sum() / 5
    assert loss.item() == pytest.approx(-0.712, abs=1e-12)
    (slope_BT,) = torch.autograd.grad(loss, logprob_BT)
    expected = torch.tensor([[0, -0.4, 0], [0.2, 0, 0]], dtype=torch.double)
    torch.testing.assert_close(slope_BT, behind_prompt(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("bounds", "chosen"),
    [
        (CovBounds(0.0, 1, 40), 0),  # off
        (CovBounds(0.01, 1, 40), 1),  # .05 of a token is one
        (CovBounds(0.4, 1, 1.4), 1),  # the upper bound takes the fifth away
        (CovBounds(0.4, 2, 40), 0),  # no candidate
        (CovBounds(1.0, -9, 40), 4),  # all but the one that is clipped
    ],
)
def test_a_share_of_all_tokens_is_drawn_among_the_candidates(batch, bounds, chosen) -> None:
    found = clip_cov(batch, behind_prompt(NOW), held(batch), bounds, random.Random(0))
    assert found.chosen_BT.sum().item() == chosen
    assert not (found.chosen_BT & ~found.candidate_BT).any()


def test_the_draw_is_its_streams_and_the_order_of_rows_decides_nothing(two_groups) -> None:
    torch.manual_seed(0)
    batch = two_groups.with_(advantage_BT=torch.randn(two_groups.mask_BT.shape))
    logprob_BT = torch.randn(two_groups.mask_BT.shape)
    order = torch.tensor([3, 0, 7, 2, 5, 1, 4, 6])
    bounds, nothing = CovBounds(0.2, -1, 1), torch.zeros(batch.mask_BT.shape, dtype=torch.bool)

    def chosen(seed: int, rows: Tensor) -> Tensor:
        rng = random.Random(seed)
        return clip_cov(batch.rows(rows), logprob_BT[rows], nothing, bounds, rng).chosen_BT

    plain = chosen(1, torch.arange(8))
    assert plain.sum() == int(0.2 * batch.mask_BT.sum())
    assert torch.equal(chosen(1, order), plain[order])
    assert not torch.equal(chosen(2, torch.arange(8)), plain)


def test_kl_cov_takes_the_highest(batch) -> None:
    # .4 x 5 tokens: 1.512 and 1.272
    found = kl_cov(batch, behind_prompt(NOW), 0.4)
    assert torch.equal(found.chosen_BT, behind_prompt(torch.tensor([[1.0, 0, 0], [0, 1, 0]])) > 0)
    assert kl_cov(batch, behind_prompt(NOW), 0).chosen_BT.sum() == 0


def test_kl_cov_clips_nothing_and_lets_its_tokens_pay(batch) -> None:
    chosen_BT = behind_prompt(torch.tensor([[0.0, 0, 1], [0, 0, 0]])) > 0  # the one that moved
    logprob_BT = behind_prompt(NOW).requires_grad_()
    rows = torch.arange(2)
    forward = Forward(batch, logprob_BT, logprob_BT, 1, MiniBatchWeights(batch), rows)
    loss_BT = kl_cov_loss(forward, chosen_BT, coef=3.0)
    # -A r = -2 e^.5 and 3 x |-.5 + 1|; its slope -2 e^.5 + 3
    assert loss_BT[0, 5].item() == pytest.approx(-2 * 1.6487212707 + 1.5, abs=1e-9)
    (slope_BT,) = torch.autograd.grad((loss_BT * batch.mask_BT).sum(), logprob_BT)
    expected = torch.tensor([[-2, -2, 3 - 2 * 1.6487212707], [1, 1, 0]], dtype=torch.double)
    torch.testing.assert_close(slope_BT, behind_prompt(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("shift", "slope"), [(0.0, 0), (1e-9, 0), (-1e-9, 0), (1e-3, 3), (-1e-3, -3)]
)
def test_rounding_decides_no_slope_of_what_has_not_moved(batch, shift, slope) -> None:
    logprob_BT = (behind_prompt(OLD) + shift).requires_grad_()
    still = batch.with_(advantage_BT=torch.zeros_like(batch.mask_BT))
    forward = Forward(still, logprob_BT, logprob_BT, 1, MiniBatchWeights(still), torch.arange(2))
    loss_BT = kl_cov_loss(forward, batch.mask_BT > 0, coef=3.0)
    (slope_BT,) = torch.autograd.grad((loss_BT * batch.mask_BT).sum(), logprob_BT)
    torch.testing.assert_close(slope_BT, slope * batch.mask_BT)
