import pytest
import torch

from agentgym.errors import DivergedError
from agentgym.trainers.critic import Critic, value_loss, value_metrics
from agentgym.trainers.lora import LoraOptions, add_adapter
from agentgym.trainers.optim import OptimOptions


def critic_of(model, **options: object) -> Critic:
    return Critic(model, OptimOptions.model_validate({"lr": 1e-2, "warmup": 0} | options), 10)


def targets(batch, value: float):
    return batch.with_(value_target_BT=batch.mask_BT.double() * value)


def test_the_clipped_loss_is_the_one_worked_by_hand() -> None:
    # value, old, target; clip .5. The larger of both squares counts.
    value = torch.tensor([1.0, 1.0, 0.2, -1.0], dtype=torch.double, requires_grad=True)
    old = torch.tensor([0.0, 0.0, 0.0, 0.0]).double()
    target = torch.tensor([2.0, 0.0, 1.0, 1.0]).double()
    loss, held = value_loss(value, old, target, 0.5)
    # (.5 - 2)^2 = 2.25 > 1; 1 > .25; .8^2 both ways; (-1 - 1)^2 = 4 > (-.5 - 1)^2
    assert loss.tolist() == pytest.approx([2.25, 1.0, 0.64, 4.0])
    assert held.tolist() == [True, False, False, False]
    loss.sum().backward()
    assert value.grad.tolist() == pytest.approx([0.0, 2.0, -1.6, -4.0])


def test_without_a_clip_it_is_the_square() -> None:
    value = torch.tensor([3.0, -1.0])
    loss, held = value_loss(value, torch.zeros(2), torch.ones(2), None)
    assert loss.tolist() == [4, 4]
    assert not held.any()


def test_its_gradient_is_right(make_model) -> None:
    value = torch.tensor([0.3, 0.9, -0.7, 2.0], dtype=torch.double, requires_grad=True)
    old, target = torch.zeros(4).double(), torch.tensor([1.0, 0.0, -1.0, 3.0]).double()
    assert torch.autograd.gradcheck(lambda v: value_loss(v, old, target, 0.5)[0], value)


def test_values_begin_at_0_and_move_towards_their_targets(make_model, two_groups) -> None:
    critic = critic_of(make_model(), lr=5e-2, critic={"value_clip": None})
    batch = critic.score(targets(two_groups, 2.0))
    assert not batch.value_BT.any()
    losses = []
    for step in range(1, 11):
        critic.begin(step)
        losses.append(critic.update(batch, step)["critic/loss"])
    assert losses[0] == pytest.approx(4.0)
    assert losses[-1] < 0.5
    after = critic.score(batch).value_BT
    assert after[batch.mask_BT > 0].mean() > 1
    assert not after[batch.mask_BT == 0].any()


def test_a_value_is_of_what_stands_before_its_token(make_model, two_groups) -> None:
    critic = critic_of(make_model(), critic={"value_clip": None})
    batch = critic.score(targets(two_groups, 1.0))
    critic.begin(1)
    critic.update(batch, 1)
    changed = two_groups.ids_BT.clone()
    row, position = (two_groups.mask_BT > 0).nonzero()[0].tolist()
    changed[row, position] = (changed[row, position] + 1) % 23
    before = critic.values(two_groups.ids_BT, two_groups.mask_BT)
    after = critic.values(changed, two_groups.mask_BT)
    assert before[row, position] == after[row, position] != 0
    assert before[row, position + 1] != after[row, position + 1]


def test_the_policy_is_left_as_it_is(make_model, two_groups) -> None:
    model = make_model()
    kept = {name: p.clone() for name, p in model.state_dict().items()}
    critic = critic_of(model)
    critic.begin(1)
    critic.update(critic.score(targets(two_groups, 1.0)), 1)
    assert all(torch.equal(kept[name], p) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_what_is_frozen_in_the_policy_is_shared_and_not_saved(make_model) -> None:
    model = make_model(torch.float32)
    add_adapter(model, LoraOptions(rank=2), seed=0)
    critic = critic_of(model)
    frozen = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
    own = dict(critic._network.named_parameters())
    assert all((p.data_ptr() in frozen) is not p.requires_grad for p in own.values())
    saved = critic.state_dict()["weights"]
    assert set(saved) == {n for n in own if "lora_" in n or n.startswith("head")}


def test_targets_that_are_not_finite_end_the_run_at_the_third(make_model, two_groups) -> None:
    critic = critic_of(make_model())
    batch = critic.score(targets(two_groups, float("nan")))
    critic.begin(1)
    assert critic.update(batch, 1) == {}
    assert critic.update(batch, 1) == {}
    with pytest.raises(DivergedError, match="critic/loss nan"):
        critic.update(batch, 1)


def test_the_explained_variance_is_1_of_the_returns_0_of_a_constant(two_groups) -> None:
    target = two_groups.mask_BT.double() * torch.arange(two_groups.mask_BT.shape[1])
    for value, expected in ((target, 1.0), (torch.ones_like(target), 0.0), (-target, -3.0)):
        batch = two_groups.with_(value_BT=value, value_target_BT=target)
        # of -R: var(2 R) / var(R) = 4
        assert value_metrics(batch)["critic/explained_variance"] == pytest.approx(expected)


def test_a_value_that_moved_less_than_the_clip_is_not_held_whatever_rounding_says() -> None:
    # 0.3 - 0.1 + 0.1 is not 0.3 to the bit, and both losses differ in their last digits.
    value, old, target = (torch.rand(1000, dtype=torch.float64) for _ in range(3))
    _, held = value_loss(value, old, target, clip=1.0)
    assert not held.any()
