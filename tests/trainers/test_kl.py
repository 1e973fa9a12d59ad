import pytest
import torch

from agentgym.trainers.kl import KL, kl_estimate


# (logprob, reference) = (-1, -2) and (-2, -1): d = 1 and -1.
# k3 = exp(-d) + d - 1: e^-1 = .367879, e - 2 = .718282; its slope 1 - exp(-d)
@pytest.mark.parametrize(
    ("kind", "values", "slopes"),
    [
        (KL.K1, [1, -1], [1, 1]),
        (KL.ABS, [1, 1], [1, -1]),
        (KL.K2, [0.5, 0.5], [1, -1]),
        (KL.K3, [0.367879, 0.718282], [0.632121, -1.718282]),
    ],
)
def test_values_and_slopes_by_hand(kind, values, slopes) -> None:
    logprob = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-2.0, -1.0], dtype=torch.float64)
    estimate = kl_estimate(logprob, reference, kind)
    assert estimate.tolist() == pytest.approx(values, abs=1e-6)
    (slope,) = torch.autograd.grad(estimate.sum(), logprob)
    assert slope.tolist() == pytest.approx(slopes, abs=1e-6)


@pytest.mark.parametrize("kind", KL)
def test_gradients_agree_with_finite_differences(kind: KL) -> None:
    logprob = torch.tensor([-1.0, -2.0, -0.3], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-2.0, -1.0, -0.4], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: kl_estimate(x, reference, kind), logprob)


def test_a_token_far_from_the_reference_is_bounded_and_finite() -> None:
    logprob = torch.tensor([-200.0], requires_grad=True)
    estimate = kl_estimate(logprob, torch.zeros(1), KL.K3)
    estimate.sum().backward()
    assert estimate.item() == 10
    assert torch.isfinite(logprob.grad).all()


def test_k3_estimates_the_divergence_of_two_distributions() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(2, 6, dtype=torch.float64).log_softmax(-1)
    exact = (p.exp() * (p - q)).sum()
    assert (p.exp() * kl_estimate(p, q, KL.K3)).sum().item() == pytest.approx(exact.item())
