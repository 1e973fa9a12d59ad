"""What is remembered and forgotten, recalibrated and drawn, with the numbers by hand."""

import random

import pytest
import torch

from agentgym.trainers.batch import Batch
from agentgym.trainers.memory import Memory, as_batch, memories
from agentgym.trainers.replay_buffer import (
    RELEASED,
    STRICT,
    Baseline,
    ReplayBuffer,
    power_of_two,
)


def history(means: list[float], stds: list[float] | None = None) -> Baseline:
    return Baseline((1,) * len(means), tuple(means), tuple(stds or means))


def memory(step: int, reward: float = 1.0, tokens: int = 2) -> Memory:
    ids = torch.arange(tokens)
    row = {
        "ids_BT": ids,
        "turn_BT": torch.tensor([-1] + [0] * (tokens - 1)),
        "behaviour_logprob_BT": -ids.float(),
        "old_logprob_BT": -ids.double() / 3,
    }
    return Memory(step, reward, (row,))


# The baseline -----------------------------------------------------------------------------------


def test_a_return_is_compared_with_the_median_of_the_groups_means() -> None:
    # between .4 and .5 lies .45
    found = history([0.2, 0.4, 0.5, 0.9]).advantages([1, 0.4, 0.45])
    assert found == pytest.approx([0.55, -0.05, 0])
    assert history([0.9, 0.2, 0.4]).median == 0.4


def test_it_is_divided_by_the_median_deviation_only_where_that_is_asked_for() -> None:
    baseline = history([0.0, 0.0], [0.1, 0.3])
    assert baseline.advantages([1.0]) == [1.0]
    assert baseline.advantages([1.0], normalise=True) == pytest.approx([1 / 0.200001])


def test_only_a_positive_advantage_is_replayed_and_by_the_released_rule_zero_too() -> None:
    advantages = [0.55, -0.05, 0.0]
    assert STRICT.chosen(advantages, 9, random.Random(0)) == [0]
    assert sorted(RELEASED.chosen(advantages, 9, random.Random(0))) == [0, 2]


def test_the_oldest_group_is_forgotten_first() -> None:
    before = history([0.1, 0.2, 0.3])
    strict = before.with_groups([0.5, 0.6, 0.7], [0, 0, 0], 2, limit=4)
    assert strict.mean == (0.3, 0.5, 0.6, 0.7)
    assert strict.step == (1, 2, 2, 2)
    # The released rule forgets whole steps, before the new come: 3 are no more than 4, so all stay.
    released = before.with_groups([0.5, 0.6, 0.7], [0, 0, 0], 2, limit=4, whole_steps=True)
    assert len(released.mean) == 6
    assert released.median == pytest.approx(0.4)
    assert released.with_groups([0.9], [0], 3, 4, whole_steps=True).mean == (0.5, 0.6, 0.7, 0.9)


def test_a_groups_deviation_is_the_populations(make_trajectory, make_batch) -> None:
    won = [True, False, False, True]
    batch = make_batch([make_trajectory("t", i, (1,), won=w) for i, w in enumerate(won)])
    baseline = Baseline().with_step(batch, 3, limit=9)
    assert (baseline.step, baseline.mean, baseline.std) == ((3,), (0.5,), (0.5,))


def test_each_group_has_its_own_mean(two_groups) -> None:
    assert Baseline().with_step(two_groups, 1, limit=9).mean == (0.5, 0.25)


# Memories ---------------------------------------------------------------------------------------


def credited(batch: Batch, advantage_N: list[float]) -> Batch:
    credit_B1 = torch.tensor(advantage_N)[batch.trajectory_B, None]
    return batch.with_(
        advantage_BT=credit_B1 * batch.mask_BT,
        old_logprob_BT=-torch.rand(batch.mask_BT.shape, dtype=torch.double) * batch.mask_BT,
    )


@pytest.fixture
def window_batch(make_trajectory, make_batch) -> Batch:
    """Two trajectories with a row a turn: of two turns, won, and of three, lost."""
    return make_batch(
        [
            make_trajectory("t", 0, (2, 1), won=True, layout="window"),
            make_trajectory("t", 1, (1, 3, 2), won=False, layout="window"),
        ]
    )


def test_whole_trajectories_with_a_positive_advantage_are_remembered(window_batch) -> None:
    (found,) = memories(credited(window_batch, [0.5, -0.5]), 7, "trajectory")
    assert (found.step, found.reward) == (7, 1.0)
    assert [row["turn_BT"].tolist() for row in found.rows] == [[-1, -1, -1, 0, 0], [-1, -1, -1, 1]]
    assert memories(credited(window_batch, [0.0, 0.0]), 7, "trajectory") == []


def test_or_rows_each_for_itself(window_batch) -> None:
    batch = credited(window_batch, [0.5, -0.5])
    found = memories(batch, 7, "row")
    assert [len(memory.rows) for memory in found] == [1, 1]
    # A turn of the lost trajectory did well for itself, as credit by turns may say.
    advantage_BT = batch.advantage_BT.clone()
    advantage_BT[3] = batch.mask_BT[3]
    turned = memories(batch.with_(advantage_BT=advantage_BT), 7, "row")
    assert [memory.reward for memory in turned] == [1, 1, 0]
    assert turned[-1].rows[0]["turn_BT"].tolist() == [-1, -1, -1, 1, 1, 1]


def test_what_is_remembered_comes_back_as_it_was_with_its_new_credit(window_batch) -> None:
    batch = credited(window_batch, [0.5, 0.25])
    found = memories(batch, 7, "trajectory")
    again = as_batch(found, [0.6, 0.1], temperature=0.8)
    for name in ("ids_BT", "turn_BT", "mask_BT", "old_logprob_BT", "behaviour_logprob_BT"):
        assert torch.equal(getattr(again, name), getattr(batch, name)), name
    assert torch.equal(again.trajectory_B, batch.trajectory_B)
    assert torch.equal(again.turns_N, batch.turns_N)
    assert torch.equal(again.length_B, batch.length_B)
    assert torch.equal(again.return_N, batch.return_N)
    credit_B1 = torch.tensor([0.6, 0.1])[batch.trajectory_B, None]
    assert torch.equal(again.advantage_BT, credit_B1 * batch.mask_BT)
    assert again.replayed
    assert not batch.replayed
    assert again.temperature == 0.8


def test_a_memory_does_not_change_with_the_batch_it_is_of(window_batch) -> None:
    batch = credited(window_batch, [0.5, 0.5])
    (first, _) = memories(batch, 1, "trajectory")
    before = first.rows[0]["old_logprob_BT"].clone()
    batch.old_logprob_BT.fill_(99)
    assert torch.equal(first.rows[0]["old_logprob_BT"], before)


# The buffer -------------------------------------------------------------------------------------


def steps(buffer: ReplayBuffer) -> list[int]:
    return [one.step for one in buffer.memories]


def test_the_oldest_memory_is_forgotten_first() -> None:
    buffer = ReplayBuffer().joined([memory(1), memory(1)]).joined([memory(2), memory(3)])
    assert steps(buffer.newest(3)) == [1, 2, 3]
    assert steps(buffer.newest(9)) == [1, 1, 2, 3]
    assert len(buffer) == 4


def test_memories_that_are_too_old_are_forgotten() -> None:
    buffer = ReplayBuffer((memory(1), memory(4), memory(9)))
    assert steps(buffer.since(9 - 5)) == [4, 9]  # five steps are tolerated


def test_a_buffer_is_full_when_it_holds_its_size() -> None:
    assert not STRICT.full([0.5, -1.0], 3)
    assert STRICT.full([0.5, -1.0, -1.0], 3)


def test_by_the_released_rule_it_is_full_above_one_and_a_half_sizes_of_good_ones() -> None:
    assert not RELEASED.full([0.5] * 3 + [0.0] * 9, 2)  # 3 is not above 3
    assert RELEASED.full([0.5] * 4, 2)


@pytest.mark.parametrize(
    ("count", "kept"), [(0, 0), (1, 0), (2, 2), (37, 32), (64, 64), (5000, 2048)]
)
def test_the_released_rule_draws_a_power_of_two(count, kept) -> None:
    assert power_of_two(count, 2048) == kept
    found = RELEASED.chosen([1.0] * count, 2048, random.Random(0))
    assert len(set(found)) == len(found) == kept


def test_a_draw_is_random_and_its_streams() -> None:
    draws = [tuple(RELEASED.chosen([1.0] * 37, 2048, random.Random(seed))) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_buffer_survives_as_flat_tensors(window_batch) -> None:
    found = memories(credited(window_batch, [0.5, 0.5]), 7, "trajectory")
    buffer = ReplayBuffer().joined(found)
    state = buffer.state()
    assert set(state["tokens"]) == {
        "ids_BT", "turn_BT", "behaviour_logprob_BT", "old_logprob_BT",
    }  # fmt: skip
    again = ReplayBuffer.from_state(state)
    assert steps(again) == steps(buffer)
    for ours, theirs in zip(again.memories, buffer.memories, strict=True):
        assert ours.reward == theirs.reward
        for left, right in zip(ours.rows, theirs.rows, strict=True):
            assert left.keys() == right.keys()
            assert all(torch.equal(left[name], right[name]) for name in left)
            assert left["old_logprob_BT"].dtype == torch.double


def test_an_empty_buffer_survives_too() -> None:
    assert ReplayBuffer.from_state(ReplayBuffer().state()) == ReplayBuffer()
