import pytest
import torch

from agentgym.trainers.batch import pack
from agentgym.trainers.returns import (
    Timeline,
    discounted,
    turn_end_rewards,
    turn_rewards,
    whitened,
)
from agentgym.types import Group


def test_discounted_returns_by_hand() -> None:
    # 1, 0 + .5 x 1, 0 + .5 x .5
    found = discounted(torch.tensor([[0.0, 0, 1], [2, 0, 0]]), 0.5)
    assert found.tolist() == [[0.25, 0.5, 1], [2, 0, 0]]


def test_whitening_by_hand() -> None:
    # (.25, .5, 1): mean .583333, unbiased variance .145833, std .381881
    value_BT, mask_BT = torch.tensor([[9.0, 0.25, 0.5, 1.0]]), torch.tensor([[0.0, 1, 1, 1]])
    expected = [0, -0.8729, -0.2182, 1.0911]
    assert whitened(value_BT, mask_BT)[0].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("tokens", [0, 1])
def test_too_few_tokens_to_whiten_have_no_credit(tokens) -> None:
    mask_BT = torch.tensor([[1.0] * tokens + [0.0]])
    assert not whitened(torch.ones_like(mask_BT), mask_BT).any()


def test_a_timeline_orders_tokens_by_trajectory_and_turn_whatever_row_they_are_in(
    make_trajectory, make_batch
) -> None:
    shapes, found = [(2, 1, 3), (1, 2)], []
    for layout, order in (
        ("full", [0, 1]),
        ("window", [0, 1, 2, 3, 4]),
        ("window", [4, 1, 3, 0, 2]),
    ):
        batch = make_batch(
            [make_trajectory("t", i, shape, layout=layout) for i, shape in enumerate(shapes)]
        ).rows(torch.tensor(order))
        timeline = Timeline.of(batch)
        turn_NL = timeline.lay(batch.turn_BT)
        assert turn_NL.tolist() == [[0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 0, 0]]
        ids_BT = timeline.put_back(timeline.lay(batch.ids_BT))
        assert torch.equal(ids_BT, batch.ids_BT * (batch.mask_BT > 0))
        found.append(timeline.lay(batch.ids_BT))
    assert torch.equal(found[1], found[2])


def test_a_turns_rewards_fall_on_its_last_token_and_parts_add_up(make_trajectory) -> None:
    group = Group("t", (make_trajectory("t", 0, (2, 1)), make_trajectory("t", 1, (3,))))
    parts = {"outcome": [[0.0, 1.0], [0.5]], "format": [[-0.25, 0.0], [0.0]]}
    batch = pack([group], parts)
    assert turn_rewards(batch).tolist() == [[-0.25, 1], [0.5, 0]]
    reward_BT = turn_end_rewards(batch)
    assert reward_BT[batch.mask_BT > 0].tolist() == [0, -0.25, 1, 0, 0, 0.5]
    assert reward_BT.sum() == batch.return_N.sum()
