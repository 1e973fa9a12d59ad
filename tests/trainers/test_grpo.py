import pytest
import torch
from pydantic import ValidationError

from agentgym.errors import UsageError
from agentgym.trainers.grpo import GRPO, GRPOOptions


def test_each_token_gets_its_trajectorys_advantage_and_others_none(
    make_trajectory, make_batch
) -> None:
    batch = make_batch([make_trajectory("t", i, (2, 1), won=i in (0, 3)) for i in range(4)])
    advantage_BT = GRPO(GRPOOptions(), 1).advantages(batch, 1).advantage_BT
    # returns 1, 0, 0, 1: see the advantages by hand
    for row, expected in enumerate([0.866024, -0.866024, -0.866024, 0.866024]):
        mask_T = batch.mask_BT[row] > 0
        assert mask_T.sum() == 3
        assert advantage_BT[row][mask_T].tolist() == pytest.approx([expected] * 3, abs=1e-6)
        assert not advantage_BT[row][~mask_T].any()


@pytest.mark.parametrize(
    ("unit", "long", "short"),
    [
        ("trajectory", 0.707105, -0.707105),
        ("row", 0.447212, -1.788850),
        ("turn", 0.447212, -1.788850),
    ],
)
def test_what_counts_once_is_a_setting(unit, long, short, make_trajectory, make_batch) -> None:
    # Four turns and a return of 1, one turn and 0; eps 1e-6 shows at this scale:
    # .2 / (sqrt(.2) + 1e-6), .5 / (sqrt(.5) + 1e-6)
    batch = make_batch(
        [
            make_trajectory("t", 0, (1, 1, 1, 1), won=True, layout="window"),
            make_trajectory("t", 1, (1,), won=False, layout="window"),
        ]
    )
    advantage_BT = GRPO(GRPOOptions(unit=unit), 1).advantages(batch, 1).advantage_BT
    found = advantage_BT[batch.mask_BT > 0].tolist()
    assert found == pytest.approx([long] * 4 + [short], abs=1e-5)


def test_one_turn_trajectories_are_alike_in_both_layouts(make_trajectory, make_batch) -> None:
    found = []
    for layout in ("full", "window"):
        batch = make_batch(
            [make_trajectory("t", i, (i + 1,), won=i == 1, layout=layout) for i in range(3)]
        )
        found.append(GRPO(GRPOOptions(unit="row"), 1).advantages(batch, 1).advantage_BT)
    assert torch.equal(*found)


def test_the_best_alone_may_have_the_credit(make_trajectory, make_batch) -> None:
    # returns 1, 0, 0, 0: variance (9 + 3) / 16 / 3 = 1/4, so its lead is 1 / (.5 + 1e-6)
    batch = make_batch([make_trajectory("t", i, (2,), won=i == 0) for i in range(4)])
    advantage_BT = GRPO(GRPOOptions(credit="best"), 1).advantages(batch, 1).advantage_BT
    found = advantage_BT[batch.mask_BT > 0].tolist()
    assert found == pytest.approx([2, 2, 0, 0, 0, 0, 0, 0], abs=1e-5)


def test_a_group_of_one_is_refused(make_trajectory, make_batch) -> None:
    batch = make_batch([make_trajectory("a", 0), make_trajectory("a", 1), make_trajectory("b", 0)])
    with pytest.raises(UsageError, match=r"task b has one trajectory.*group_size"):
        GRPO(GRPOOptions(), 1).advantages(batch, 1)


def test_the_sum_norm_needs_its_constant() -> None:
    with pytest.raises(ValidationError, match="sum_norm"):
        GRPOOptions(aggregation="seq-mean-token-sum-norm")
    assert GRPOOptions(aggregation="seq-mean-token-sum-norm", sum_norm=100).sum_norm == 100
