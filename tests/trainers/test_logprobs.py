import pytest
import torch
from torch import Tensor

from agentgym.trainers import logprobs
from agentgym.trainers.logprobs import PLAIN, Projection, token_logprobs

PROJECTIONS = [
    pytest.param(PLAIN, id="plain"),
    pytest.param(Projection(temperature=0.4), id="temperature"),
    pytest.param(Projection(scale=0.5, cap=2.0, temperature=0.7), id="scaled-and-capped"),
]


def plain_formula(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, p: Projection
) -> tuple[Tensor, Tensor]:
    logits = (hidden @ weight.T + (0 if bias is None else bias)) * p.scale
    if p.cap is not None:
        logits = p.cap * torch.tanh(logits / p.cap)
    logp = torch.log_softmax(logits / p.temperature, -1)
    return logp.gather(1, target[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(7, 5, dtype=dtype, requires_grad=True)
    weight = torch.randn(11, 5, dtype=dtype, requires_grad=True)
    bias = torch.randn(11, dtype=dtype, requires_grad=True)
    return hidden, weight, bias, torch.tensor([0, 10, 3, 4, 8, 7, 7])


@pytest.fixture(params=["one block, kept", "many blocks, computed again"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "one block, kept":
        monkeypatch.setattr(logprobs, "KEPT_LOGITS", 0)
        monkeypatch.setattr(logprobs, "BLOCK_TOKENS", 3)
        monkeypatch.setattr(logprobs, "BLOCK_VOCAB", 4)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_values_and_gradients_are_those_of_the_plain_formula(projection: Projection) -> None:
    hidden, weight, bias, target = inputs()
    weights = torch.linspace(-1, 2, 7, dtype=torch.float64)
    results = []
    for function in (token_logprobs, plain_formula):
        logprob, entropy = function(hidden, weight, bias, target, projection)
        loss = (weights * logprob).sum() + (weights.square() * entropy).sum()
        results.append((logprob, entropy, *torch.autograd.grad(loss, (hidden, weight, bias))))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gradients_agree_with_finite_differences(projection: Projection) -> None:
    hidden, weight, bias, target = inputs()
    assert torch.autograd.gradcheck(
        lambda h, w, b: token_logprobs(h, w, b, target, projection), (hidden, weight, bias)
    )


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("used", [0, 1], ids=["log-probability", "entropy"])
def test_either_output_alone_has_its_gradient(used: int) -> None:
    hidden, weight, _, target = inputs()
    ours = token_logprobs(hidden, weight, None, target)[used].sum()
    plain = plain_formula(hidden, weight, None, target, PLAIN)[used].sum()
    for a, b in zip(
        torch.autograd.grad(ours, (hidden, weight)),
        torch.autograd.grad(plain, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("blocks")
def test_a_second_backward_pass_gives_the_same_gradient() -> None:
    hidden, weight, bias, target = inputs()
    total = sum(part.sum() for part in token_logprobs(hidden, weight, bias, target))
    first = torch.autograd.grad(total, (hidden, weight, bias), retain_graph=True)
    second = torch.autograd.grad(total, (hidden, weight, bias))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_entropy_of_three_logits_and_its_gradient_by_hand() -> None:
    # p = softmax(1, 0, -1) = (.665241, .244728, .090031); H = -sum p log p = .832396
    # dH/dz = -p (log p + H) = (-.282587, .140770, .141817)
    logits = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    identity = torch.eye(3, dtype=torch.float64)
    logprob, entropy = token_logprobs(logits, identity, None, torch.tensor([0]))
    assert logprob.exp().item() == pytest.approx(0.665241, abs=1e-6)
    assert entropy.item() == pytest.approx(0.832396, abs=1e-6)
    (gradient,) = torch.autograd.grad(entropy.sum(), logits)
    assert gradient[0].tolist() == pytest.approx([-0.282587, 0.140770, 0.141817], abs=1e-6)


@pytest.mark.usefixtures("blocks")
def test_logits_far_apart_stay_finite() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4, 0.0, 5.0]], requires_grad=True)
    logprob, entropy = token_logprobs(logits, torch.eye(5), None, torch.tensor([2]))
    (logprob + entropy).sum().backward()
    assert logprob.item() == -2e4
    assert entropy.item() == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.usefixtures("blocks")
def test_half_precision_is_reduced_in_float32() -> None:
    hidden, weight, bias, target = inputs(torch.bfloat16)
    logprob, entropy = token_logprobs(hidden, weight, bias, target)
    exact = plain_formula(hidden.double(), weight.double(), bias.double(), target, PLAIN)
    assert logprob.dtype == entropy.dtype == torch.float32
    # A product of bfloat16 is rounded to 8 bits: logits near 4 are off by up to 4 / 2^8 / 2.
    torch.testing.assert_close(logprob.double(), exact[0], rtol=0, atol=0.03)
    torch.testing.assert_close(entropy.double(), exact[1], rtol=0, atol=0.03)
    gradients = torch.autograd.grad(logprob.sum(), (hidden, weight))
    expected = torch.autograd.grad(exact[0].sum(), (hidden, weight))
    for ours, plain in zip(gradients, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours, plain, rtol=0.05, atol=0.05)


def test_no_tensor_of_tokens_times_vocabulary_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "KEPT_LOGITS", 0)
    monkeypatch.setattr(logprobs, "BLOCK_TOKENS", 64)
    monkeypatch.setattr(logprobs, "BLOCK_VOCAB", 64)
    tokens, vocabulary = 512, 1024
    hidden = torch.randn(tokens, 8, requires_grad=True)
    weight = torch.randn(vocabulary, 8, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        logprob, entropy = token_logprobs(hidden, weight, None, torch.zeros(tokens).long())
        (logprob + entropy).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events() if "empty" in event.name)
    assert 0 < largest < tokens * vocabulary * 4 / 8


def test_no_token_at_all_gives_empty_results() -> None:
    hidden = torch.zeros(0, 5, requires_grad=True)
    logprob, entropy = token_logprobs(hidden, torch.randn(11, 5), None, torch.zeros(0).long())
    (logprob.sum() + entropy.sum()).backward()
    assert logprob.shape == entropy.shape == (0,)
