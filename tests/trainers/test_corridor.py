import math

import pytest
import torch

from agentgym.trainers.corridor import hinge, indicator, paper_beta, released_beta

ENTROPIES = torch.tensor([0.2, 0.45, 1.0, 1.35, 2.0], dtype=torch.float64)
REFERENCE = torch.tensor(0.9, dtype=torch.float64)


def test_the_hinge_by_hand() -> None:
    # bounds .45 and 1.35: .45 - .2 and 2 - 1.35 outside, 0 elsewhere
    found = hinge(ENTROPIES, 0.5 * REFERENCE, 1.5 * REFERENCE)
    assert found.tolist() == pytest.approx([0.25, 0, 0, 0, 0.65])
    # bounds 0 and 1.8: only the upper one can act
    found = hinge(ENTROPIES, 0 * REFERENCE, 2 * REFERENCE)
    assert found.tolist() == pytest.approx([0, 0, 0, 0, 0.2])


def test_the_indicator_counts_the_bounds_as_outside() -> None:
    found = indicator(ENTROPIES, 0.5 * REFERENCE, 1.5 * REFERENCE)
    assert found.tolist() == [1, 1, 0, 1, 1]


def test_without_a_reference_there_is_no_penalty() -> None:
    nothing = torch.full_like(ENTROPIES, math.nan)
    entropies = ENTROPIES.clone().requires_grad_()
    penalty = hinge(entropies, nothing, nothing)
    penalty.sum().backward()
    assert not penalty.any()
    assert not entropies.grad.any()
    assert not indicator(ENTROPIES, nothing, nothing).any()


def entropy_of(logits: torch.Tensor) -> torch.Tensor:
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


def test_the_hinge_has_a_gradient_and_the_indicator_has_none() -> None:
    # H(1, 0, -1) = .832396 with dH/dz = (-.282587, .140770, .141817); bound .75, alpha .1
    logits = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    bound, low = torch.tensor(0.75).double(), torch.tensor(0.0).double()
    penalty = 0.1 * hinge(entropy_of(logits), low, bound)
    assert penalty.item() == pytest.approx(0.008240, abs=1e-6)
    (slope,) = torch.autograd.grad(penalty, logits)
    assert slope.tolist() == pytest.approx([-0.0282587, 0.0140770, 0.0141817], abs=1e-7)
    assert not indicator(entropy_of(logits), low, bound).requires_grad


def test_the_hinges_gradient_agrees_with_finite_differences() -> None:
    entropies = torch.tensor([0.2, 0.5, 1.0, 1.3, 2.0], dtype=torch.float64, requires_grad=True)
    low, high = 0.5 * REFERENCE, 1.5 * REFERENCE
    assert torch.autograd.gradcheck(lambda h: hinge(h, low, high), entropies)


@pytest.mark.parametrize(
    ("strength", "upper", "factor"),
    [(0.2, 2.0, 1.0), (0.2, 0.75, 0.8), (2.0, 0.75, -1.0)],
    ids=["inside", "above, the paper's strength", "above, restoring"],
)
def test_above_the_corridor_the_bonus_is_scaled_by_one_minus_the_strength(
    strength, upper, factor
) -> None:
    # loss -(H - strength relu(H - upper)); inside its gradient is -dH/dz
    logits = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    entropy = entropy_of(logits)
    low = torch.tensor(0.0).double()
    loss = -(entropy - strength * hinge(entropy, low, torch.tensor(upper).double()))
    (slope,) = torch.autograd.grad(loss, logits)
    inside = [0.282587, -0.140770, -0.141817]
    assert slope.tolist() == pytest.approx([factor * s for s in inside], abs=1e-6)


@pytest.mark.parametrize(
    ("steps", "k", "expected"),
    [
        (150, 0, 2),
        (150, 25, 1.367879),
        (150, 75, 1.049787),
        (150, 150, 1.002479),
        (125, 62, 1.049787),
    ],
)
def test_the_papers_schedule(steps, k, expected) -> None:
    assert paper_beta(k, steps, 3.0) == pytest.approx(expected, abs=1e-6)


def test_the_papers_schedule_of_a_single_step() -> None:
    assert paper_beta(0, 1, 3.0) == 2


@pytest.mark.parametrize(
    ("k", "expected"),
    [(0, 1), (25, 0.902683), (75, 0.827067), (76, 0.768632), (100, 0.294304), (150, 0.039830)],
)
def test_the_released_schedule(k, expected) -> None:
    assert released_beta(k) == pytest.approx(expected, abs=1e-6)
