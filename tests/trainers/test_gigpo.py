from dataclasses import replace

import pytest
import torch

from agentgym.errors import UsageError
from agentgym.trainers.batch import Batch, pack
from agentgym.trainers.gigpo import GiGPO, GiGPOOptions, anchor_states
from agentgym.trainers.returns import discounted
from agentgym.types import Group


@pytest.fixture
def make_anchored(make_trajectory):
    """Pack groups of (anchors, rewards) a trajectory, one token a turn."""

    def make(*groups, layout="full") -> Batch:
        made = []
        for g, members in enumerate(groups):
            trajectories = []
            for m, (anchors, _) in enumerate(members):
                plain = make_trajectory(f"t{g}", m, (1,) * len(anchors), layout=layout)
                turns = [replace(t, anchor=a) for t, a in zip(plain.turns, anchors, strict=True)]
                trajectories.append(replace(plain, turns=tuple(turns)))
            made.append(Group(f"t{g}", tuple(trajectories)))
        rewards = [list(map(float, rewards)) for members in groups for _, rewards in members]
        return pack(made, {"outcome": rewards})

    return make


# Returns at gamma .95: 10 x .9025 = 9.025, 9.5, 10; 0, 0. Both meet s0: mean 4.5125, so +-4.5125
# there and 0 elsewhere. Row by row the episode's scores are 10, 10, 10, 0, 0: mean 6, std sqrt(30).
BY_HAND = ((["s0", "s1", "s2"], [0, 0, 10]), (["s0", "s3"], [0, 0]))


def credit(batch: Batch, **options) -> list[float]:
    advantage_BT = GiGPO(GiGPOOptions(**options), 1).advantages(batch, 1).advantage_BT
    return advantage_BT[batch.mask_BT > 0].tolist()


@pytest.mark.parametrize("layout", ["full", "window"])
@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        (False, [8.5125, 4, 4, -10.5125, -6]),
        # 4 / 5.477227 + 4.5125 / 6.381639, 4 / 5.477227 twice, -6 / 5.477227 - .707107, ...
        (True, [1.437403, 0.730297, 0.730297, -1.802552, -1.095445]),
    ],
)
def test_both_comparisons_by_hand(normalise, expected, layout, make_anchored) -> None:
    batch = make_anchored(BY_HAND, layout=layout)
    reward_NK = batch.reward_NK["outcome"].double()
    assert discounted(reward_NK, 0.95).tolist() == [pytest.approx([9.025, 9.5, 10]), [0, 0, 0]]
    batch = replace(batch, reward_NK={"outcome": reward_NK}, mask_BT=batch.mask_BT.double())
    found = credit(batch, normalise=normalise, unit="turn")
    assert found == pytest.approx(expected, abs=1e-6)


def test_each_trajectory_counts_once_by_default(make_anchored) -> None:
    # the episode's scores 10 and 0: mean 5
    assert credit(make_anchored(BY_HAND)) == pytest.approx([9.5125, 5, 5, -9.5125, -5])


def test_states_of_other_groups_are_other_states(make_anchored) -> None:
    batch = make_anchored(BY_HAND, BY_HAND)
    assert anchor_states(batch).tolist() == [[0, 1, 2], [0, 3, -1], [4, 5, 6], [4, 7, -1]]
    alone = credit(make_anchored(BY_HAND))
    assert credit(batch) == pytest.approx(alone + alone)


def test_a_trajectory_that_comes_back_is_compared_with_itself(make_anchored) -> None:
    # one trajectory meets s0 twice, with .95 and 1 to come: mean .975; the other never does
    batch = make_anchored(((["s0", "s0"], [0, 1]), (["s1"], [0])))
    found = credit(batch, omega=100.0)
    assert found == pytest.approx([0.5 - 2.5, 0.5 + 2.5, -0.5])


def test_rewards_of_turns_count_from_their_turn_on(make_anchored) -> None:
    # a penalty at s0 and nothing later, against none: R = -1 and 0 at s0, 0 and 0 at s1
    batch = make_anchored(((["s0", "s1"], [-1, 0]), (["s0", "s1"], [0, 0])))
    method = GiGPO(GiGPOOptions(), 1)
    advantage_BT = method.advantages(batch, 1).advantage_BT
    found = advantage_BT[batch.mask_BT > 0].tolist()
    assert found == pytest.approx([-0.5 - 0.5, -0.5, 0.5 + 0.5, 0.5])
    assert method.metrics(1) == {"gigpo/compared": 1.0}


def test_the_share_of_turns_that_are_compared_is_logged(make_anchored) -> None:
    method = GiGPO(GiGPOOptions(), 1)
    method.advantages(make_anchored(BY_HAND), 1)
    assert method.metrics(1)["gigpo/compared"] == pytest.approx(2 / 5)


def test_the_order_of_rows_plays_no_part(make_anchored) -> None:
    batch = make_anchored(BY_HAND, layout="window")
    order = torch.tensor([3, 0, 4, 2, 1])
    plain_BT = GiGPO(GiGPOOptions(), 1).advantages(batch, 1).advantage_BT
    shuffled_BT = GiGPO(GiGPOOptions(), 1).advantages(batch.rows(order), 1).advantage_BT
    assert torch.equal(plain_BT[order], shuffled_BT)


def test_a_group_of_one_is_refused(make_anchored) -> None:
    with pytest.raises(UsageError, match="group_size"):
        credit(make_anchored(((["s0"], [1]),)))
