import math

import pytest
import torch

from agentgym.trainers.batch import Batch
from agentgym.trainers.grpo import GRPO, GRPOOptions
from agentgym.trainers.method import (
    Chain,
    Forward,
    Loss,
    Method,
    MiniBatchWeights,
    Need,
    Options,
    RewardOptions,
    Term,
    outcome_rewards,
)
from agentgym.types import Group


class Neutral(Method[Options]):
    name = "neutral"


class Doubling(Method[Options]):
    """Doubles the credit, and says so in its state."""

    name = "doubling"
    seen = 0

    @property
    def needs(self) -> Need:
        return Need.ENTROPY

    def advantages(self, batch: Batch, step: int) -> Batch:
        return batch.with_(advantage_BT=2 * batch.advantage_BT)

    def observe(self, batch: Batch, step: int) -> None:
        self.seen += 1

    def state(self):
        return {"seen": self.seen}

    def load_state(self, state) -> None:
        self.seen = state["seen"]


def forward_of(batch: Batch, entropy_BT: torch.Tensor | None = None, step: int = 1) -> Forward:
    logprob_BT = torch.full(batch.mask_BT.shape, -1.0, dtype=torch.float64, requires_grad=True)
    entropy_BT = torch.ones_like(logprob_BT) if entropy_BT is None else entropy_BT
    rows = torch.arange(len(batch.mask_BT))
    return Forward(batch, logprob_BT, entropy_BT, step, MiniBatchWeights(batch), rows)


def test_every_neutral_hook_returns_its_input_itself(two_groups) -> None:
    neutral, loss, groups, rewards = Neutral(Options(), 10), Loss(), [], {"outcome": []}
    assert neutral.advantages(two_groups, 1) is two_groups
    assert neutral.select(groups, 1) is groups
    assert neutral.turn_rewards(groups, rewards, 1) is rewards
    assert neutral.loss(forward_of(two_groups), loss) is loss
    assert neutral.replay(1) == ()
    assert neutral.needs is Need.NOTHING
    assert neutral.metrics(1) == neutral.state() == {}


def test_each_link_receives_what_the_one_before_returned(two_groups) -> None:
    base = GRPO(GRPOOptions(), 10)
    plain = base.advantages(two_groups, 1).advantage_BT
    chain = Chain("x", [base, Doubling(Options(), 10), Doubling(Options(), 10)])
    assert torch.equal(chain.advantages(two_groups, 1).advantage_BT, 4 * plain)


def test_a_chain_needs_what_any_link_needs() -> None:
    base = GRPO(GRPOOptions(kl_coef=0.1, entropy_coef=0.1), 10)
    chain = Chain("x", [base, Doubling(Options(), 10)])
    of_base = Need.GROUPS | Need.REFERENCE | Need.ENTROPY_GRADIENT
    assert chain.needs == of_base | Need.ENTROPY


def test_state_is_kept_by_link(two_groups) -> None:
    chain = Chain("x", [GRPO(GRPOOptions(), 10), Doubling(Options(), 10)])
    chain.observe(two_groups, 1)
    assert chain.state() == {"grpo": {}, "doubling": {"seen": 1}}
    other = Chain("x", [GRPO(GRPOOptions(), 10), Doubling(Options(), 10)])
    other.load_state(chain.state())
    assert other.state() == chain.state()


def test_the_outcome_falls_at_the_last_turn_and_penalties_where_the_format_was_left(
    make_trajectory,
) -> None:
    won = make_trajectory("a", 0, (1, 1, 1), won=True, parse_errors=[None, "no tag", None])
    lost = make_trajectory("a", 1, (1, 1), won=False, score=0.25)
    groups = [Group("a", (won, lost))]
    assert outcome_rewards(groups, RewardOptions(scale=10)) == {
        "outcome": [[0, 0, 10], [0, 0]],
        "format": [[0, -0.1, 0], [0, 0]],
    }
    by_score = outcome_rewards(groups, RewardOptions(outcome="score", format_penalty=0))
    assert by_score == {"outcome": [[0, 0, 0], [0, 0.25]], "format": [[0, 0, 0], [0, 0]]}


def test_a_loss_is_the_sum_of_its_terms() -> None:
    term = Term(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
    loss = Loss().with_term("a", term).with_term("b", term)
    assert loss.total().item() == 4
    assert loss.with_term("a", Term(term.loss_BT, 0 * term.weight_BT)).total().item() == 2


def test_a_metric_holds_no_gradient() -> None:
    value = torch.ones(1, 2, requires_grad=True)
    loss = Loss().with_metric("m", value, torch.tensor([[0.25, 0.75]]))
    assert loss.metrics["m"].item() == 1
    assert not loss.metrics["m"].requires_grad


def test_weights_are_of_the_whole_mini_batch_whatever_rows_are_asked_for(two_groups) -> None:
    weights = MiniBatchWeights(two_groups)
    rows = torch.tensor([4, 1])
    part = two_groups.rows(rows)
    logprob_BT = torch.zeros(part.mask_BT.shape, dtype=torch.float64)
    forward = Forward(part, logprob_BT, logprob_BT, 1, weights, rows)
    tokens = two_groups.mask_BT.sum()
    torch.testing.assert_close(
        forward.weight_BT(GRPOOptions().aggregation), part.mask_BT.double() / tokens.double()
    )


def test_entropies_outside_the_mask_do_not_reach_the_loss(two_groups) -> None:
    base = GRPO(GRPOOptions(entropy_coef=0.5), 10)
    batch = base.advantages(two_groups, 1).with_(
        old_logprob_BT=-torch.ones_like(two_groups.mask_BT)
    )
    entropy_BT = torch.where(two_groups.mask_BT > 0, 2.0, 1e9).double()
    term = base.loss(forward_of(batch, entropy_BT), Loss()).terms["entropy"]
    assert term.value.item() == pytest.approx(-1.0)
    assert math.isfinite(term.value.item())
