import pytest
import torch

from agentgym.trainers.advantages import group_advantage, only_best


def advantages(returns, groups=None, counts=None, **options) -> list[float]:
    return_N = torch.tensor(returns, dtype=torch.float64)
    group_N = (
        torch.zeros(len(returns), dtype=torch.long) if groups is None else torch.tensor(groups)
    )
    count_N = torch.ones(len(returns)) if counts is None else torch.tensor(counts)
    return group_advantage(return_N, group_N, count_N, **options).tolist()


def test_one_group_by_hand() -> None:
    # mean 1/2; unbiased variance 4 (1/2)^2 / 3 = 1/3, std .577350; .5 / (.577350 + 1e-6)
    expected = [0.866024, -0.866024, -0.866024, 0.866024]
    assert advantages([1, 0, 0, 1]) == pytest.approx(expected, abs=1e-6)


def test_the_population_deviation_and_none_at_all() -> None:
    expected = [0.999998, -0.999998, -0.999998, 0.999998]  # .5 / (.5 + 1e-6)
    assert advantages([1, 0, 0, 1], ddof=0) == pytest.approx(expected, abs=1e-6)
    assert advantages([1, 0, 0, 1], normalise=False) == [0.5, -0.5, -0.5, 0.5]


def test_what_counts_once_decides_the_statistics() -> None:
    # Four rows of return 10 and one of 0: mean 8, variance (4*4 + 64)/4 = 20.
    assert advantages([10, 0], counts=[4, 1]) == pytest.approx([0.447213, -1.788854], abs=1e-6)
    # Each trajectory once: mean 5, variance 50.
    assert advantages([10, 0]) == pytest.approx([0.707107, -0.707107], abs=1e-6)


def test_groups_do_not_mix() -> None:
    together = advantages([1, 0, 5, 7], groups=[0, 0, 1, 1])
    assert together == advantages([1, 0]) + advantages([5, 7])


@pytest.mark.parametrize("value", [0.1, 1 / 3, 10.0])
@pytest.mark.parametrize("members", [2, 3, 7])
def test_equal_returns_give_exactly_zero(value, members) -> None:
    assert advantages([value] * members) == [0.0] * members


def test_permuting_trajectories_permutes_the_advantages() -> None:
    returns, groups, order = [1, 0, 0.3, 5, 7], [0, 0, 0, 1, 1], [4, 2, 0, 3, 1]
    plain = advantages(returns, groups)
    permuted = advantages([returns[i] for i in order], [groups[i] for i in order])
    assert permuted == pytest.approx([plain[i] for i in order], abs=1e-12)


def test_the_best_of_a_group_leads_its_second() -> None:
    # mean 4/3, unbiased variance (25 + 1 + 16) / 9 / 2 = 7/3; (3 - 1) / (sqrt(7/3) + 1e-6)
    advantage_N = torch.tensor(advantages([3, 1, 0], ddof=1), dtype=torch.float64)
    found_N = only_best(advantage_N, torch.zeros(3, dtype=torch.long))
    assert found_N.tolist() == pytest.approx([1.309306, 0, 0], abs=1e-6)


def test_each_group_has_its_own_best_and_of_equals_none_leads() -> None:
    value_N, group_N = torch.tensor([1.0, 5, 2, 7, 4, 4]), torch.tensor([0, 1, 0, 1, 2, 2])
    assert only_best(value_N, group_N).tolist() == [0, 0, 1, 2, 0, 0]
