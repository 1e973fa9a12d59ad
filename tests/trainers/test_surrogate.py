from math import inf

import pytest
import torch

from agentgym.trainers.surrogate import clipped, clipped_surrogate

# ratio, advantage, loss, d loss / d logprob; clip 0.2 on both sides, dual clip 3
BY_HAND = [
    (1.5, 1.0, -1.2, 0.0),  # above the clip: -1.2, held
    (0.5, 1.0, -0.5, -0.5),
    (1.5, -1.0, 1.5, 1.5),
    (0.5, -1.0, 0.8, 0.0),  # below the clip: 0.8, held
    (5.0, -1.0, 3.0, 0.0),  # the dual clip
    (1.1, 1.0, -1.1, -1.1),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "slope"), BY_HAND)
def test_loss_and_gradient_by_hand(ratio, advantage, loss, slope) -> None:
    log_ratio = torch.tensor(ratio, dtype=torch.float64).log().requires_grad_()
    found = clipped_surrogate(log_ratio, torch.tensor(advantage).double(), 0.2, 0.2, 3.0)
    assert found.item() == pytest.approx(loss, abs=1e-12)
    assert torch.autograd.grad(found, log_ratio)[0].item() == pytest.approx(slope, abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"), [*BY_HAND, (1.0, 1.0, -1.0, -1.0)]
)
def test_a_gradient_that_is_kept_is_that_of_the_upper_bound(ratio, advantage, loss, slope) -> None:
    if ratio > 1.2 and advantage > 0:
        slope = -1.2  # alive: -A (1 + 0.2)
    log_ratio = torch.tensor(ratio, dtype=torch.float64).log().requires_grad_()
    found = clipped_surrogate(log_ratio, torch.tensor(advantage).double(), 0.2, 0.2, 3.0, True)
    assert found.item() == pytest.approx(loss, abs=1e-12)
    assert torch.autograd.grad(found, log_ratio)[0].item() == pytest.approx(slope, abs=1e-12)


def test_a_higher_upper_clip_holds_later() -> None:
    log_ratio = torch.tensor([1.5]).log()
    assert clipped_surrogate(log_ratio, torch.ones(1), 0.2, 0.28, 3.0).item() == pytest.approx(
        -1.28
    )


def test_without_a_dual_clip_a_negative_advantage_is_unbounded() -> None:
    log_ratio = torch.tensor([5.0]).log()
    assert clipped_surrogate(log_ratio, -torch.ones(1), 0.2, 0.2, inf).item() == pytest.approx(5)


def test_a_huge_ratio_stays_finite() -> None:
    log_ratio = torch.tensor([1e4, -1e4])
    assert torch.isfinite(clipped_surrogate(log_ratio, -torch.ones(2), 0.2, 0.2, inf)).all()


def test_clipped_says_where_the_clip_holds_the_gradient() -> None:
    ratios, advantages, losses, slopes = (torch.tensor(x) for x in zip(*BY_HAND, strict=True))
    held = clipped(ratios.log(), advantages, 0.2, 0.2)
    assert held.tolist() == ((slopes == 0) & (losses != 3)).tolist()


@pytest.mark.parametrize("dual_clip", [inf, 3.0])
def test_the_gradient_agrees_with_finite_differences(dual_clip: float) -> None:
    ratios, advantages, _, _ = (torch.tensor(x).double() for x in zip(*BY_HAND, strict=True))
    assert torch.autograd.gradcheck(
        lambda x: clipped_surrogate(x, advantages, 0.2, 0.28, dual_clip),
        ratios.log().requires_grad_(),
    )
