import pytest
import torch

from agentgym.errors import UsageError
from agentgym.trainers.method import Need
from agentgym.trainers.rloo import RLOO, RLOOOptions, leave_one_out


def test_each_return_is_compared_with_the_mean_of_the_others() -> None:
    # 1 - 0, and three times 0 - 1/3
    one_group_N = torch.zeros(4, dtype=torch.long)
    found_N = leave_one_out(torch.tensor([1.0, 0, 0, 0]).double(), one_group_N)
    assert found_N.tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3], abs=1e-12)


def test_groups_of_other_sizes_do_not_mix() -> None:
    # (3, 5): -2, 2; (1, 2, 6): 1 - 4, 2 - 3.5, 6 - 1.5
    return_N = torch.tensor([3.0, 1, 5, 2, 6]).double()
    found_N = leave_one_out(return_N, torch.tensor([0, 1, 0, 1, 1]))
    assert found_N.tolist() == pytest.approx([-2, -3, 2, -1.5, 4.5], abs=1e-12)


def test_each_token_gets_its_trajectorys_advantage(make_trajectory, make_batch) -> None:
    batch = make_batch([make_trajectory("t", i, (2, 1), won=i == 0) for i in range(4)])
    advantage_BT = RLOO(RLOOOptions(), 1).advantages(batch, 1).advantage_BT
    assert advantage_BT[0].tolist() == batch.mask_BT[0].tolist()
    assert advantage_BT[1:].sum().item() == pytest.approx(-3)
    assert not advantage_BT[batch.mask_BT == 0].any()


def test_a_divergence_in_the_reward_lowers_the_return(make_trajectory, make_batch) -> None:
    # Two tokens a trajectory, each .5 above the reference in the first: 1 - .1 (.5 + .5) = .9
    # against 0, so .9 and -.9.
    batch = make_batch([make_trajectory("t", i, (2,), won=i == 0) for i in range(2)])
    above_BT = 0.5 * batch.mask_BT * torch.tensor([[1.0], [0.0]])
    batch = batch.with_(old_logprob_BT=above_BT, ref_logprob_BT=torch.zeros_like(above_BT))
    method = RLOO(RLOOOptions(kl_coef=0.1), 1)
    assert Need.REFERENCE in method.needs
    advantage_BT = method.advantages(batch, 1).advantage_BT
    found = advantage_BT[batch.mask_BT > 0].tolist()
    assert found == pytest.approx([0.9, 0.9, -0.9, -0.9])
    in_loss = RLOO(RLOOOptions(kl_coef=0.1, kl_in="loss"), 1).advantages(batch, 1)
    assert in_loss.advantage_BT[batch.mask_BT > 0].tolist() == [1, 1, -1, -1]


def test_a_group_of_one_is_refused(make_trajectory, make_batch) -> None:
    with pytest.raises(UsageError, match="group_size"):
        RLOO(RLOOOptions(), 1).advantages(make_batch([make_trajectory("t", 0)]), 1)
