import pytest
import torch

from agentgym.errors import UsageError
from agentgym.trainers.drgrpo import DrGRPO, DrGRPOOptions
from agentgym.trainers.method import Forward, Loss, MiniBatchWeights
from agentgym.trainers.registry import build_chain


def test_the_advantage_is_the_return_less_the_groups_mean(make_trajectory, make_batch) -> None:
    # returns 1, 0, 0, 1: mean 1/2, and nothing is divided
    batch = make_batch([make_trajectory("t", i, won=i in (0, 3)) for i in range(4)])
    advantage_BT = DrGRPO(DrGRPOOptions(), 1).advantages(batch, 1).advantage_BT
    assert advantage_BT[batch.mask_BT > 0].tolist() == [0.5] * 2 + [-0.5] * 4 + [0.5] * 2


@pytest.mark.parametrize("copies", [1, 2])
def test_the_loss_is_the_mean_of_sums_over_a_constant(copies, make_trajectory, make_batch) -> None:
    # A = .5 on 3 tokens and -.5 on 1; at ratio 1 a token's loss is -A:
    # mean of (-1.5, .5) / 10 = -.05, however often the group is there
    batch = make_batch(
        [
            make_trajectory(f"t{i}", j, (3,) if j == 0 else (1,), won=j == 0)
            for i in range(copies)
            for j in range(2)
        ]
    )
    method = DrGRPO(DrGRPOOptions(sum_norm=10), 1)
    batch = method.advantages(batch.with_(old_logprob_BT=torch.zeros_like(batch.mask_BT)), 1)
    rows, logprob_BT = torch.arange(2 * copies), torch.zeros(batch.mask_BT.shape).double()
    forward = Forward(batch, logprob_BT, logprob_BT, 1, MiniBatchWeights(batch), rows)
    loss = method.loss(forward, Loss())
    assert loss.terms["policy"].value.item() == pytest.approx(-0.05, abs=1e-12)


def test_what_counts_once_in_the_mean_is_a_setting(make_trajectory, make_batch) -> None:
    # four turns that won and one that lost: mean 1/2 of trajectories, 4/5 of turns
    batch = make_batch(
        [make_trajectory("t", 0, (1,) * 4, won=True), make_trajectory("t", 1, (1,), won=False)]
    )
    for unit, mean in (("trajectory", 0.5), ("turn", 0.8)):
        found_BT = DrGRPO(DrGRPOOptions(unit=unit), 1).advantages(batch, 1).advantage_BT
        expected = pytest.approx([1 - mean] * 4 + [-mean])
        assert found_BT[batch.mask_BT > 0].tolist() == expected


def test_a_group_of_one_is_refused(make_trajectory, make_batch) -> None:
    with pytest.raises(UsageError, match="group_size"):
        DrGRPO(DrGRPOOptions(), 1).advantages(make_batch([make_trajectory("t", 0)]), 1)


def test_it_needs_its_constant() -> None:
    with pytest.raises(UsageError, match="sum_norm"):
        build_chain({"name": "drgrpo", "sum_norm": None}, 1)
