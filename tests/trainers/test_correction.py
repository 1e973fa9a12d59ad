import math

import pytest
import torch

from agentgym.trainers.correction import CorrectionOptions, corrected, correction_metrics
from agentgym.trainers.learner import Learner
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain


@pytest.fixture
def apart(make_trajectory, make_batch):
    """Two trajectories of two rows; the trainer's probabilities are 2, 3 | 1 and 1/2 | 1 times."""
    batch = make_batch([make_trajectory("t", i, (2 - i, 1), layout="window") for i in range(2)])
    ratio_M = torch.tensor([2.0, 3.0, 1.0, 0.5, 1.0])
    old_BT = batch.behaviour_logprob_BT.clone()
    old_BT[batch.mask_BT > 0] += ratio_M.log()
    return batch.with_(old_logprob_BT=old_BT)


def weights(batch) -> list[float]:
    return batch.correction_BT[batch.mask_BT > 0].tolist()


def test_off_returns_the_very_batch(apart) -> None:
    assert corrected(apart, CorrectionOptions()) is apart


def test_tokens_are_weighted_each_for_itself_up_to_the_limit(apart) -> None:
    found = corrected(apart, CorrectionOptions(level="token", limit=2.5))
    assert weights(found) == pytest.approx([2, 2.5, 1, 0.5, 1])
    assert not found.correction_BT[found.mask_BT == 0].any()


def test_sequences_are_weighted_by_their_product_over_all_rows(apart) -> None:
    found = corrected(apart, CorrectionOptions(level="sequence", limit=5))
    assert weights(found) == pytest.approx([5, 5, 5, 0.5, 0.5])  # 6 is above the limit


def test_the_metrics_are_those_worked_by_hand(apart) -> None:
    metrics = correction_metrics(apart, 2.5)
    assert metrics["correction/token_mean"] == pytest.approx(7.5 / 5)
    assert metrics["correction/token_max"] == pytest.approx(3)
    assert metrics["correction/token_limited"] == pytest.approx(1 / 5)
    assert metrics["correction/token_effective"] == pytest.approx(7.5**2 / (5 * 15.25))
    assert metrics["correction/sequence_max"] == pytest.approx(6)
    assert metrics["correction/sequence_limited"] == pytest.approx(1 / 2)
    # k3 with d = log ratio: exp(-d) + d - 1
    k3 = [1 / r + math.log(r) - 1 for r in (2, 3, 1, 0.5, 1)]
    assert metrics["correction/kl"] == pytest.approx(sum(k3) / 5)


def test_ratios_that_would_overflow_stay_finite(apart) -> None:
    far = apart.with_(old_logprob_BT=apart.old_logprob_BT + 500 * apart.mask_BT)
    assert all(math.isfinite(value) for value in correction_metrics(far, 2.0).values())
    assert max(weights(corrected(far, CorrectionOptions(level="sequence")))) == 2


@pytest.mark.parametrize("level", ["off", "token", "sequence"])
def test_it_is_measured_always_and_acts_on_the_update_where_it_is_on(
    level, make_model, two_groups
) -> None:
    def updated(level: str) -> tuple[list[torch.Tensor], dict[str, float]]:
        model, chain = make_model(), build_chain({}, 10)
        options = {"lr": 1e-2, "warmup": 0, "correction": {"level": level}}
        learner = Learner(model, OptimOptions.model_validate(options), 10, chain.needs)
        batch = chain.advantages(learner.prepare(two_groups, 0.8), 1)
        _, metrics = learner.update(batch, chain, 1)
        return list(model.parameters()), metrics

    plain, found = updated("off"), updated(level)
    # The sampler of these rows said -1.5 of every token.
    assert found[1]["correction/token_max"] != 1
    assert found[1]["correction/kl"] == plain[1]["correction/kl"] > 0
    same = all(map(torch.equal, plain[0], found[0]))
    assert same is (level == "off")
