import pytest
import torch
from torch import Tensor

from agentgym.errors import UsageError
from agentgym.trainers.aggregate import Aggregation, token_weights
from agentgym.trainers.batch import Batch

ALL = [pytest.param(mode, id=mode.value) for mode in Aggregation]
TOKENS = 5


def losses(batch: Batch, per_trajectory: list[list[float]]) -> Tensor:
    """Put losses on the policy's tokens, trajectory by trajectory, in order."""
    loss_BT = torch.full(batch.mask_BT.shape, 99.0, dtype=torch.float64)
    for n, values in enumerate(per_trajectory):
        mask_BT = (batch.trajectory_B[:, None] == n) & (batch.mask_BT > 0)
        loss_BT[mask_BT] = torch.tensor(values, dtype=torch.float64)
    return loss_BT


def value(batch: Batch, loss_BT: Tensor, mode: Aggregation, sum_norm: int = TOKENS) -> float:
    return float((token_weights(batch, mode, sum_norm=sum_norm) * loss_BT).sum())


# Losses 1, 2, 3 of one trajectory and 4 of another, twice in a batch of four.
# token-mean (1+2+3+4)/4; token-mean of each 2 and 4, their mean 3; sums 6 and 4, their mean 5;
# over the constant 5: mean of 6/5 and 4/5. Doubling the batch changes none of them.
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (Aggregation.TOKEN_MEAN, 2.5),
        (Aggregation.SEQ_MEAN_TOKEN_MEAN, 3.0),
        (Aggregation.SEQ_MEAN_TOKEN_SUM, 5.0),
        (Aggregation.SEQ_MEAN_TOKEN_SUM_NORM, 1.0),
    ],
)
def test_two_trajectories_by_hand(mode, expected, copies, make_trajectory, make_batch) -> None:
    batch = make_batch(
        [make_trajectory("t", 2 * i + j, (3 - 2 * j,)) for i in range(copies) for j in range(2)]
    )
    assert value(batch, losses(batch, [[1, 2, 3], [4]] * copies), mode) == pytest.approx(expected)


def test_the_nested_mean_is_of_trajectories_of_turns_of_tokens(make_trajectory, make_batch) -> None:
    # ((1+3)/2 + 2)/2 = 2 and 4, their mean 3; the mean over tokens is (1+3+2+4)/4 = 2.5
    batch = make_batch([make_trajectory("t", 0, (2, 1)), make_trajectory("t", 1, (1,))])
    loss_BT = losses(batch, [[1, 3, 2], [4]])
    assert value(batch, loss_BT, Aggregation.NESTED) == pytest.approx(3.0)
    assert value(batch, loss_BT, Aggregation.TOKEN_MEAN) == pytest.approx(2.5)


@pytest.mark.parametrize("mode", ALL)
def test_one_row_a_turn_gives_what_one_row_a_trajectory_gives(
    mode, make_trajectory, make_batch
) -> None:
    shapes, values = [(2, 1), (1,), (3, 2, 1)], [[1, 3, 2], [4], [1, 2, 3, 4, 5, 6]]
    results = []
    for layout in ("full", "window"):
        batch = make_batch(
            [make_trajectory("t", i, shape, layout=layout) for i, shape in enumerate(shapes)]
        )
        results.append(value(batch, losses(batch, values), mode))
    assert results[0] == pytest.approx(results[1], abs=1e-12)


def test_a_sequence_can_be_a_row(make_trajectory, make_batch) -> None:
    batch = make_batch([make_trajectory("t", 0, (2, 1), layout="window")])
    loss_BT = losses(batch, [[1, 3, 5]])
    weight_BT = token_weights(batch, Aggregation.SEQ_MEAN_TOKEN_MEAN, "row")
    assert float((weight_BT * loss_BT).sum()) == pytest.approx((2 + 5) / 2)


@pytest.mark.parametrize("mode", ALL)
def test_permuting_rows_permutes_the_weights(mode, two_groups) -> None:
    order = torch.tensor([3, 0, 7, 2, 5, 1, 4, 6])
    weight_BT = token_weights(two_groups, mode, sum_norm=TOKENS)
    permuted_BT = token_weights(two_groups.rows(order), mode, sum_norm=TOKENS)
    torch.testing.assert_close(permuted_BT, weight_BT[order], rtol=0, atol=1e-15)


@pytest.mark.parametrize("mode", ALL)
def test_padding_and_a_masked_row_change_nothing(mode, two_groups) -> None:
    weight_BT = token_weights(two_groups, mode, sum_norm=TOKENS)
    padded = padded_with_a_masked_row(two_groups)
    padded_BT = token_weights(padded, mode, sum_norm=TOKENS)
    width = weight_BT.shape[1]
    torch.testing.assert_close(padded_BT[:-1, :width], weight_BT, rtol=0, atol=0)
    assert not padded_BT[-1].any()
    assert not padded_BT[:, width:].any()


def padded_with_a_masked_row(batch: Batch) -> Batch:
    """Three columns of padding, and a row of a trajectory of its own that sampled nothing."""

    def pad(tensor: Tensor, fill: float) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, 3, 0, 1), value=fill)

    return batch.with_(
        ids_BT=pad(batch.ids_BT, 0),
        length_B=torch.cat([batch.length_B, torch.tensor([2])]),
        mask_BT=pad(batch.mask_BT, 0),
        turn_BT=pad(batch.turn_BT, -1),
        behaviour_logprob_BT=pad(batch.behaviour_logprob_BT, 0),
        trajectory_B=torch.cat([batch.trajectory_B, batch.trajectory_B.max()[None] + 1]),
    )


@pytest.mark.parametrize(
    "mode",
    [Aggregation.TOKEN_MEAN, Aggregation.SEQ_MEAN_TOKEN_MEAN, Aggregation.NESTED],
)
def test_the_weights_of_a_mean_sum_to_one(mode, two_groups) -> None:
    assert float(token_weights(two_groups, mode).sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("mode", ALL)
def test_a_batch_without_a_trained_token_has_weights_of_zero(mode, two_groups) -> None:
    empty = two_groups.with_(
        mask_BT=torch.zeros_like(two_groups.mask_BT),
        turn_BT=torch.full_like(two_groups.turn_BT, -1),
    )
    assert not token_weights(empty, mode, sum_norm=TOKENS).any()


def test_the_sum_norm_without_its_constant_is_refused(two_groups) -> None:
    with pytest.raises(UsageError, match="sum_norm"):
        token_weights(two_groups, Aggregation.SEQ_MEAN_TOKEN_SUM_NORM)
