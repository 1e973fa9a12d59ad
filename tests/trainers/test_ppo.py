"""Advantages from values, and PPO as a base, alone and under EPO."""

import copy
import json

import pytest
import torch

from agentgym.trainers.batch import Batch
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain, Need
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.ppo import PPO, PPOOptions, advantage_estimate, outcome_at_row_ends
from agentgym.trainers.registry import build_chain

STEPS = 10


def ppo(**options: object) -> PPO:
    return PPO(PPOOptions(**options), STEPS)


def with_values(batch: Batch, values: list[list[float]]) -> Batch:
    """Give the policy's tokens of each row their values, in their order."""
    value_BT = torch.zeros(batch.mask_BT.shape, dtype=torch.double)
    value_BT[batch.mask_BT > 0] = torch.tensor([v for row in values for v in row]).double()
    return batch.with_(value_BT=value_BT)


def of_policy(batch: Batch, name: str) -> list[float]:
    return getattr(batch, name)[batch.mask_BT > 0].tolist()


@pytest.mark.parametrize(
    ("gamma", "lam", "expected"),
    [
        (1.0, 1.0, [0.8, 0.6, 0.4]),  # 1 - V
        # .6 * 0 + 1 - .6 = .4; .9*.6 - .4 + .72*.4 = .428; .9*.4 - .2 + .72*.428 = .46816
        (0.9, 0.8, [0.46816, 0.428, 0.4]),
    ],
)
def test_the_estimate_is_the_one_worked_by_hand(gamma, lam, expected) -> None:
    reward_NL, value_NL = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.2, 0.4, 0.6]])
    found = advantage_estimate(reward_NL, value_NL, gamma, lam)
    torch.testing.assert_close(found.float(), torch.tensor([expected]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", ["full", "window"])
def test_credit_flows_over_the_rows_of_a_trajectory(layout, make_trajectory, make_batch) -> None:
    # One trajectory of turns of 2 and 1 tokens; won, so 1 at its last token.
    batch = make_batch([make_trajectory("t", 0, (2, 1), layout=layout)])
    values = [[0.2, 0.4, 0.6]] if layout == "full" else [[0.2, 0.4], [0.6]]
    found = ppo(gamma=0.9, lam=0.8, whiten=False).advantages(with_values(batch, values), 1)
    assert of_policy(found, "advantage_BT") == pytest.approx([0.46816, 0.428, 0.4])
    assert of_policy(found, "value_target_BT") == pytest.approx([0.66816, 0.828, 1.0])
    white = ppo().advantages(with_values(batch, values), 1)  # .8, .6, .4: mean .6, std .2
    assert of_policy(white, "advantage_BT") == pytest.approx([1, 0, -1], abs=1e-6)
    assert of_policy(white, "value_target_BT") == pytest.approx([1, 1, 1])


def test_rows_in_another_order_have_the_same_advantages(make_trajectory, make_batch) -> None:
    batch = make_batch([make_trajectory("t", i, (2, 1, 3), layout="window") for i in range(2)])
    batch = with_values(batch, torch.rand(6, 1).expand(6, 3)[:, :2].tolist())
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    plain, other = ppo().advantages(batch, 1), ppo().advantages(batch.rows(order), 1)
    width = other.advantage_BT.shape[1]
    torch.testing.assert_close(plain.advantage_BT[order][:, :width], other.advantage_BT)


def test_along_rows_each_row_ends_with_the_outcome(make_trajectory, make_batch) -> None:
    # Rows of 2 and 1 tokens. The outcome 1 ends both; the format penalty stays at its turn.
    trajectory = make_trajectory("t", 0, (2, 1), layout="window")
    batch = with_values(make_batch([trajectory]), [[0.2, 0.4], [0.6]])
    penalty_NK = torch.tensor([[-0.1, 0.0]])
    batch.reward_NK["format"] = penalty_NK  # type: ignore[index] # a dict, as packed
    found = ppo(gae="row", whiten=False).advantages(batch, 1)
    assert of_policy(found, "advantage_BT") == pytest.approx([0.7, 0.5, 0.4])
    repeated = outcome_at_row_ends(batch)
    assert repeated.reward_NK["outcome"].tolist() == [[1, 1]]
    assert batch.reward_NK["outcome"].tolist() == [[0, 1]]


def test_the_divergence_is_a_penalty_of_each_token_where_it_is_a_reward(
    make_trajectory, make_batch
) -> None:
    batch = with_values(make_batch([make_trajectory("t", 0, (3,))]), [[0.0, 0, 0]])
    apart_BT = batch.mask_BT.double() * torch.tensor(0.5)
    batch = batch.with_(old_logprob_BT=apart_BT, ref_logprob_BT=torch.zeros_like(apart_BT))
    method = ppo(kl_coef=0.1, kl="k1", kl_in="reward", whiten=False)
    assert method.needs == Need.REFERENCE | Need.OLD_LOGPROB | Need.VALUES
    # each token costs .1 * .5; to come at the first: 1 - 3 * .05
    found = of_policy(method.advantages(batch, 1), "advantage_BT")
    assert found == pytest.approx([0.85, 0.9, 0.95])


# With a learner ----------------------------------------------------------------------------------


def learner_of(model: object, chain: Chain, **options: object) -> Learner:
    settings = {"lr": 1e-2, "warmup": 0, "critic": {"lr": 3e-2}} | options
    return Learner(model, OptimOptions.model_validate(settings), STEPS, chain.needs)


def take_step(learner: Learner, chain: Chain, batch: Batch, step: int) -> dict[str, float]:
    batch = chain.advantages(learner.prepare(batch, 0.8), step)
    batch, metrics = learner.update(batch, chain, step)
    chain.observe(batch, step)
    return metrics


EPO_ON_PPO = {"name": "epo", "base": "ppo", "entropy_coef": 0.1, "alpha": 2.0, "kappa_high": 0.5}


def test_epo_stands_on_ppo(make_model, two_groups) -> None:
    chain = build_chain(EPO_ON_PPO, STEPS)
    assert [link.name for link in chain.links] == ["ppo", "epo"]
    learner = learner_of(make_model(), chain)
    take_step(learner, chain, two_groups, 1)
    metrics = take_step(learner, chain, two_groups, 2)
    assert metrics["loss/smooth"] > 0
    assert metrics["critic/loss"] > 0
    assert metrics["critic/lr"] > metrics["optim/lr"]


def test_epo_as_released_takes_each_row_for_an_episode_on_ppo() -> None:
    options = build_chain({"name": "epo:released", "base": "ppo"}, STEPS).options()
    assert options["ppo"]["gae"] == "row"
    assert options["ppo"]["kl_coef"] == 0.01
    assert build_chain({"name": "epo:released"}, STEPS).options()["grpo"]["unit"] == "turn"


@pytest.mark.parametrize("settings", [{"name": "ppo"}, EPO_ON_PPO], ids=["ppo", "epo"])
def test_other_micro_batches_change_nothing(settings, make_model, two_groups) -> None:
    def after(tokens: int) -> tuple[list[torch.Tensor], dict[str, float]]:
        model, chain = make_model(), build_chain(settings, STEPS)
        learner = learner_of(model, chain, lr=1e-3, micro_batch_tokens=tokens)
        metrics = [take_step(learner, chain, two_groups, step) for step in (1, 2, 3)]
        return list(model.parameters()), metrics[-1]

    whole, split = after(10_000), after(30)
    assert whole[1] == pytest.approx(split[1], rel=1e-7, abs=1e-9)
    for one, other in zip(whole[0], split[0], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)  # after AdamW's division


@pytest.mark.parametrize("options", [{}, {"mini_batch": 3, "epochs": 2}], ids=["one", "many"])
def test_a_resumed_run_is_bitwise_an_unbroken_one(
    options, make_model, two_groups, tmp_path
) -> None:
    model, chain = make_model(torch.float32), build_chain(EPO_ON_PPO, STEPS)
    learner = learner_of(model, chain, **options)
    for step in (1, 2):
        take_step(learner, chain, two_groups, step)
    torch.save(learner.state_dict(), tmp_path / "optimizer.pt")
    weights, remembered = copy.deepcopy(model.state_dict()), json.dumps(chain.state())
    unbroken = [take_step(learner, chain, two_groups, step) for step in (3, 4)]

    again, other = make_model(torch.float32, seed=5), build_chain(EPO_ON_PPO, STEPS)
    again.load_state_dict(weights)
    resumed = learner_of(again, other, **options)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    other.load_state(json.loads(remembered))
    assert [take_step(resumed, other, two_groups, step) for step in (3, 4)] == unbroken
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_the_critic_learns_who_wins_and_the_policy_to_win(make_model, two_groups) -> None:
    model, chain = make_model(torch.float32), build_chain({"name": "ppo"}, 30)
    options = OptimOptions.model_validate({"lr": 3e-3, "warmup": 0, "epochs": 2})
    learner = Learner(model, options, 30, chain.needs)
    metrics = [take_step(learner, chain, two_groups, step) for step in range(1, 16)]
    assert metrics[0]["critic/value_mean"] == 0  # the head begins at 0
    assert metrics[-1]["critic/explained_variance"] > 0.8
    assert metrics[-1]["critic/loss"] < 0.2 * metrics[0]["critic/loss"]
