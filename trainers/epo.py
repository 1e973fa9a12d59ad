"""EPO: an entropy bonus, weakened or reversed where a token leaves a corridor around the history.

"EPO: Entropy-regularized Policy Optimization for LLM Agents Reinforcement Learning", arXiv
2509.22576, version 2. With H the entropy of a token, k the steps done, K the steps in all:

    L      = L_base - lambda ( mean H - beta_k mean(alpha P) )
    P      = relu(kappa_l R - H) + relu(H - kappa_r R)                  the corridor's penalty
    R      = mean over earlier steps of the mean entropy of the turn that the token belongs to
    beta_k = 1 + exp(-gamma k / floor(K / 2))                           2 at first, then towards 1

Means are nested: over the tokens of a turn, the turns of a trajectory, the trajectories. A turn
index that no earlier step had has no reference, and no penalty.

What the paper's values can do: above the corridor the bonus's coefficient becomes lambda (1 -
beta_k alpha), with beta_k <= 2 and alpha <= 0.1 still at least 0.8 lambda: the corridor weakens the
bonus and never pushes entropy back. For that beta_k alpha must be above 1: ``epo:restoring``,
which is not in the paper, sets alpha to 2.

Departures of ``epo:released``, what the published configuration effectively trains with:

- the penalty is an indicator, 0 inside the corridor and 1 on its bounds and outside, so that its
  gradient is zero and the bonus alone trains; only the loss that is reported changes
- beta_k: 1 - 0.2 (1 - exp(-2 k / 75)) up to k = 75, then 0.8 exp(-3 (k - 75) / 75)
- the reference includes the current step; means are over tokens
- group statistics count each turn, and k3 to the reference weighs 0.01
- on ``ppo`` each row is an episode to the estimator; a row is a turn, as there, with
  ``policy.context = "window(k)"``

Left out of it: the crash on an empty history, the activation by micro-batch, the padding that
shifts entropies to other turns.

What to compare with: the published success is the largest of about 25 evaluations of 16 episodes
each, averaged over seeds. Of a policy that stays at 0.4, 0.6 or 0.8 that is expected to be 0.64,
0.83 or 0.97; a last checkpoint measured on many episodes is not to be held against it.

What to watch: ``epo/outside``, the share of tokens outside the corridor; ``epo/bonus_above``, what
the corridor leaves of the bonus above it, below 0 where it pushes entropy back; every ``log_every``
steps ``optim/grad_norm/smooth``, how hard the penalty alone pulls; and ``actor/entropy``, which all
of it is about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from agentgym.trainers.aggregate import Aggregation, token_weights
from agentgym.trainers.batch import Batch
from agentgym.trainers.corridor import hinge, indicator, paper_beta, released_beta
from agentgym.trainers.entropy_history import EntropyHistory, turn_entropies
from agentgym.trainers.method import Forward, Loss, Method, Need, Options, Term


class EPOOptions(Options):
    """The settings of EPO, named after the paper's symbols where it has them."""

    entropy_coef: float = Field(
        0.001, ge=0, description="lambda, weight of bonus and penalty (tables 2 and 3: 0.001)"
    )
    alpha: float = Field(
        0.1,
        ge=0,
        description="weight of the penalty (tables 2 and 3: ALFWorld 0.1, ScienceWorld 0.05);"
        " 0: the bonus alone",
    )
    kappa_low: float = Field(
        0.0, ge=0, description="kappa_l, lower bound in references (tables 2 and 3: 0)"
    )
    kappa_high: float = Field(
        2.0, ge=0, description="kappa_r, upper bound in references (tables 2 and 3: 2)"
    )
    decay: float = Field(3.0, ge=0, description="gamma, how fast beta falls (tables 2 and 3: 3)")
    penalty: Literal["hinge", "indicator"] = Field(
        "hinge", description="hinge (version 2) has a gradient, indicator (version 1, code) none"
    )
    reference: Literal["per_turn", "global"] = Field(
        "per_turn",
        description="one for each turn index (the authors' reply to reviewers), or for all"
        " (version 2)",
    )
    include_current: bool = Field(
        False, description="whether the reference has the current step (version 2: no; code: yes)"
    )
    entropy_aggregation: Literal[Aggregation.NESTED, Aggregation.TOKEN_MEAN] = Field(
        Aggregation.NESTED,
        description="the mean of bonus and penalty (paper: nested; code: token-mean)",
    )
    schedule: Literal["paper", "code", "none"] = Field(
        "paper",
        description="what beta_k is: of the paper or of the code (the module); none: 1 (ours)",
    )
    log_every: int = Field(
        10,
        ge=0,
        description="steps between norms of the penalty's own gradient; 0 for never (ours)",
    )


class EPO(Method[EPOOptions]):
    """Entropy-regularised policy optimisation."""

    name = "epo"
    summary = "entropy bonus with a corridor around the entropies of earlier steps, turn by turn"
    paper = "arXiv 2509.22576v2"
    bases = ("grpo", "ppo")
    options_type: ClassVar[type[Options]] = EPOOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {
            "penalty": "indicator",
            "include_current": True,
            "entropy_aggregation": Aggregation.TOKEN_MEAN,
            "schedule": "code",
            "unit": "turn",
            "gae": "row",
            "kl_coef": 0.01,
        },
        "restoring": {"alpha": 2.0},
    }

    def __init__(self, options: EPOOptions, steps: int) -> None:
        super().__init__(options, steps)
        self._history = EntropyHistory()
        self._reference_K = torch.empty(0)

    @property
    def needs(self) -> Need:
        """Entropies with a gradient, those of the step early if they are in its reference.

        Without a weight it needs nothing.
        """
        if not self.options.entropy_coef:
            return Need.NOTHING
        early = Need.ENTROPY if self.options.include_current else Need.NOTHING
        return Need.ENTROPY_GRADIENT | early

    def prepare(self, batch: Batch, step: int) -> None:
        """Take the references of this step."""
        if not self.needs:
            return
        history = self._history
        if self.options.include_current:
            history = history.with_step(*self._entropies(batch))
        turns = 1 + max([*history.turns, int(batch.turn_BT.max())])
        reference = [self._reference_of(history, turn) for turn in range(turns)]
        self._reference_K = torch.tensor(reference, dtype=torch.double)

    def _reference_of(self, history: EntropyHistory, turn: int) -> float:
        return history.mean() if self.options.reference == "global" else history.mean(turn)

    def _entropies(self, batch: Batch) -> tuple[dict[int, float], float]:
        assert batch.entropy_BT is not None
        weight_BT = token_weights(batch, self.options.entropy_aggregation)
        overall = float((batch.entropy_BT.double() * weight_BT).sum())
        return turn_entropies(batch.entropy_BT, batch.turn_BT), overall

    def loss(self, forward: Forward, loss: Loss) -> Loss:
        """Add the entropy bonus and the corridor's penalty."""
        o = self.options
        if not o.entropy_coef:
            return loss
        entropy_BT = forward.entropy_BT
        weight_BT = forward.weight_BT(o.entropy_aggregation)
        loss = loss.with_term("entropy", Term(-o.entropy_coef * entropy_BT, weight_BT))
        loss = loss.with_metric("epo/entropy", entropy_BT, weight_BT)
        reference_BT = self._reference_BT(forward.batch.turn_BT, entropy_BT)
        low_BT, high_BT = o.kappa_low * reference_BT, o.kappa_high * reference_BT
        outside_BT = (entropy_BT < low_BT) | (entropy_BT > high_BT)
        mean_BT = forward.weight_BT(Aggregation.TOKEN_MEAN)
        loss = loss.with_metric("epo/outside", outside_BT.to(mean_BT), mean_BT)
        if not o.alpha:
            return loss
        penalty = hinge if o.penalty == "hinge" else indicator
        penalty_BT = penalty(entropy_BT, low_BT, high_BT)
        beta = self.beta(forward.step)
        watched = o.log_every > 0 and (forward.step - 1) % o.log_every == 0
        smooth = Term(o.entropy_coef * beta * o.alpha * penalty_BT, weight_BT, watched)
        return loss.with_term("smooth", smooth)

    def _reference_BT(self, turn_BT: Tensor, like: Tensor) -> Tensor:
        """Return each token's reference; NaN where it has none."""
        turns = len(self._reference_K)
        reference_K = torch.cat([self._reference_K, torch.tensor([math.nan])]).to(like)
        return reference_K[torch.where((turn_BT < 0) | (turn_BT > turns), turns, turn_BT)]

    def beta(self, step: int) -> float:
        """Return beta_k of a step, which is counted from 1; k is from 0."""
        if self.options.schedule == "paper":
            return paper_beta(step - 1, self.steps, self.options.decay)
        return released_beta(step - 1) if self.options.schedule == "code" else 1.0

    def observe(self, batch: Batch, step: int) -> None:
        """Take the step's entropies into the history."""
        if self.needs:
            self._history = self._history.with_step(*self._entropies(batch))

    def metrics(self, step: int) -> dict[str, float]:
        """Return beta_k, and what the corridor leaves of the bonus above it, 1 if untouched."""
        if not self.needs:
            return {}
        beta = self.beta(step)
        slope = self.options.alpha if self.options.penalty == "hinge" else 0.0
        return {"epo/beta": beta, "epo/bonus_above": 1 - beta * slope}

    def state(self) -> dict[str, Any]:
        """Return the history."""
        return self._history.to_json()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back the history."""
        self._history = EntropyHistory.from_json(state)
