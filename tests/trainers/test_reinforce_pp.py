import pytest
import torch

from agentgym.errors import UsageError
from agentgym.trainers.batch import pack
from agentgym.trainers.registry import build_chain
from agentgym.trainers.reinforce_pp import ReinforcePP, ReinforcePPOptions
from agentgym.types import Group


def credit(batch, **options) -> list[float]:
    """Return the credit of the policy's tokens, row by row."""
    advantage_BT = ReinforcePP(ReinforcePPOptions(**options), 1).advantages(batch, 1).advantage_BT
    assert not advantage_BT[batch.mask_BT == 0].any()
    return advantage_BT[batch.mask_BT > 0].tolist()


@pytest.mark.parametrize("layout", ["full", "window"])
@pytest.mark.parametrize("turns", [(3,), (1, 1, 1), (2, 1)])
def test_returns_to_come_are_whitened_and_cross_what_environments_said(
    turns, layout, make_trajectory, make_batch
) -> None:
    # rewards 0, 0, 1 at gamma .5: returns .25, .5, 1 of mean .583333 and std .381881, whatever
    # turns the tokens are in and whatever stands between them
    batch = make_batch([make_trajectory("t", 0, turns, layout=layout)])
    expected = pytest.approx([-0.8729, -0.2182, 1.0911], abs=1e-4)
    assert credit(batch, gamma=0.5) == expected


def test_a_turns_own_reward_counts_for_it_and_those_before(make_trajectory) -> None:
    # rewards -1 and 1 in the first, 0 in the second: returns 0, 1, 0, of mean 1/3, std .577350
    group = Group("t", (make_trajectory("t", 0, (1, 1)), make_trajectory("t", 1, (1,))))
    batch = pack([group], {"outcome": [[0.0, 1.0], [0.0]], "format": [[-1.0, 0.0], [0.0]]})
    assert credit(batch) == pytest.approx([-0.577350, 1.154701, -0.577350], abs=1e-6)


def test_a_divergence_in_the_reward_is_charged_token_by_token(make_trajectory, make_batch) -> None:
    # rewards 0, 0, 1 less .5 x (1, 0, 0): returns to come .5, 1, 1 of mean .833333, std .288675
    batch = make_batch([make_trajectory("t", 0, (3,))])
    old_BT = torch.zeros_like(batch.mask_BT)
    old_BT[0, 3] = 1.0
    batch = batch.with_(old_logprob_BT=old_BT, ref_logprob_BT=torch.zeros_like(old_BT))
    expected = pytest.approx([-1.154701, 0.577350, 0.577350], abs=1e-6)
    assert credit(batch, kl_coef=0.5) == expected


def test_the_baseline_is_the_groups_mean(make_trajectory, make_batch) -> None:
    # returns 1, 0 of one group, 1, 1 of another: .5, -.5, 0, 0 on 1, 2, 1, 1 tokens:
    # mean -.1, unbiased variance (.36 + 2 x .16 + 2 x .01) / 4 = .175, std .418330
    shapes = {("a", 0): (1,), ("a", 1): (2,), ("b", 0): (1,), ("b", 1): (1,)}
    batch = make_batch(
        [make_trajectory(t, m, shape, won=(t, m) != ("a", 1)) for (t, m), shape in shapes.items()]
    )
    expected = [1.434274, -0.956183, -0.956183, 0.239046, 0.239046]
    assert credit(batch, baseline=True) == pytest.approx(expected, abs=1e-6)


def test_it_needs_groups_only_for_its_baseline(make_trajectory, make_batch) -> None:
    batch = make_batch([make_trajectory("t", 0, (2,))])
    assert len(credit(batch, gamma=0.9)) == 2
    with pytest.raises(UsageError, match="group_size"):
        credit(batch, baseline=True)


def test_a_preset_takes_the_baseline() -> None:
    chain = build_chain({"name": "reinforce++:baseline"}, 1)
    assert chain.options()["reinforce++"]["baseline"] is True
