"""The critic: how much reward is still to come, before each token that the policy says.

    L_V = mean over tokens of max( (V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2 )

R is the return that the method gave as the target, V_old the value before the update, and c how far
a value may move in one update (J. Schulman et al., "Proximal Policy Optimization Algorithms",
arXiv 1707.06347, and its released code). The critic is a copy of the policy's decoder as it begins,
with a head that begins at 0, and has its own optimiser. What is frozen in the policy (all but the
adapter, under LoRA) is shared with it, not copied.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agentgym.policies.precision import Compute
from agentgym.trainers.aggregate import Aggregation, token_weights
from agentgym.trainers.batch import Batch
from agentgym.trainers.decoder import Decoder, spread
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.ranks import ALONE, Ranks
from agentgym.trainers.rows import passes
from agentgym.trainers.sharding import ParallelOptions, cut_like, reduce_next, shard, whole
from agentgym.trainers.updater import Updater


class Critic:
    """Values of tokens, and their training.

    Args:
        model: The policy as it begins: a causal language model of transformers.
        options: How it is trained; ``options.critic`` has what is the critic's own.
        steps: How many steps the run has, for the learning rate's schedule.
        compute: What products are computed in.
        ranks: The processes that train it.
        parallel: How.
    """

    def __init__(
        self,
        model: Any,
        options: OptimOptions,
        steps: int,
        compute: Compute = "float32",
        ranks: Ranks = ALONE,
        parallel: ParallelOptions | None = None,
    ) -> None:
        self._options, self._ranks = options, ranks
        self._parallel = ParallelOptions() if parallel is None else parallel
        self._network = _Network(model, compute, options.gradient_checkpointing)
        self._dtype = self._network.head.weight.dtype
        if self._parallel.weights == "sharded":
            shard(self._network, ("forward",), ranks, self._parallel, compute)
        own = {} if options.critic.lr is None else {"lr": options.critic.lr}
        self._updater = Updater(self._network, options.model_copy(update=own), steps)

    def values(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Return ``value_BT``: what the critic expects before each token of the mask, else 0."""
        value_BT: Tensor = self._network(ids_BT, mask_BT)
        return value_BT

    @torch.no_grad()
    def score(self, batch: Batch) -> Batch:
        """Return the batch with the values of its tokens."""
        value_BT = torch.zeros(batch.mask_BT.shape, dtype=self._dtype)
        for part in passes(batch, self._options.micro_batch_tokens, self._ranks):
            rows = batch.rows(part.rows)
            found_BT = self.values(rows.ids_BT, rows.mask_BT)
            if part.counts:
                value_BT[part.rows, : rows.ids_BT.shape[1]] = found_BT.cpu()
        self._ranks.sum_(value_BT)
        return batch.with_(value_BT=value_BT)

    def begin(self, step: int) -> None:
        """Take the learning rate of a step, which is counted from 1."""
        self._updater.begin(step)

    def update(self, mini_batch: Batch, step: int) -> dict[str, float]:
        """Take one optimiser step towards the mini-batch's value targets.

        Returns:
            Loss, share of tokens whose value the clip holds, norm of the gradient and learning
            rate; none where the step was skipped.

        Raises:
            DivergedError: Loss or gradient were not finite three times in a row.
        """
        sums: defaultdict[str, float] = defaultdict(float)
        weight_BT = token_weights(mini_batch, Aggregation.TOKEN_MEAN)
        for part in passes(mini_batch, self._options.micro_batch_tokens, self._ranks):
            reduce_next(self._network, part.last or self._parallel.reduce == "each")
            rows = mini_batch.rows(part.rows)
            value_BT = self.values(rows.ids_BT, rows.mask_BT)
            rows = rows.to(value_BT.device)
            assert rows.value_BT is not None
            assert rows.value_target_BT is not None
            loss_BT, held_BT = value_loss(
                value_BT, rows.value_BT, rows.value_target_BT, self._options.critic.value_clip
            )
            weight = weight_BT[part.rows, : value_BT.shape[1]].to(value_BT) * part.counts
            loss = (loss_BT * weight).sum()
            sums["critic/loss"] += loss.item()
            sums["critic/clip_frac"] += (held_BT * weight).sum().item()
            loss.backward()  # type: ignore[no-untyped-call]
        self._ranks.sum_gradients(self._updater.parameters)
        sums = defaultdict(float, self._ranks.sums(sums))
        norm, made = self._updater.apply(sums["critic/loss"], sums, step)
        own = {"critic/grad_norm": norm, "critic/lr": self._updater.rate}
        return {**sums, **own} if made else {}

    def state_dict(self, *, keep: bool = True) -> dict[str, Any]:
        """Return the weights that are trained, and the optimiser's state, without shards."""
        trained = {n: p.detach() for n, p in self._network.named_parameters() if p.requires_grad}
        return {
            "weights": whole(trained, keep=keep, to_cpu=True),
            "updater": self._updater.state_dict(keep=keep),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        own = dict(self._network.named_parameters())
        weights = {name: cut_like(value, own[name]) for name, value in state["weights"].items()}
        self._network.load_state_dict(weights, strict=False)  # frozen ones are not in it
        self._updater.load_state_dict(state["updater"])


class _Network(nn.Module):
    """A decoder and a head of one number; the embeddings are named for the optimisers."""

    def __init__(self, model: Any, compute: Compute, recompute: bool) -> None:
        super().__init__()
        frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.decoder = copy.deepcopy(model.get_decoder(), frozen)
        size = model.get_output_embeddings().weight
        self.head = nn.Linear(size.shape[1], 1, device=size.device)
        self.head.to(torch.promote_types(size.dtype, torch.float32))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._states = Decoder(self.decoder, compute, recompute)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        head = self.head
        wanted_BT = mask_BT.to(head.weight.device) != 0
        hidden_MD = self._states.before(ids_BT.to(head.weight.device), wanted_BT)
        return spread(head(hidden_MD.to(head.weight.dtype))[:, 0], wanted_BT)

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.get_input_embeddings()  # type: ignore[no-any-return]

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def value_loss(
    value: Tensor, old: Tensor, target: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Return the loss of each value, and where the clip holds its gradient back.

    Args:
        value: Of the current critic, differentiable.
        old: Before the update.
        target: The return.
        clip: How far a value may move from the old one; None lets it.
    """
    loss = (value - target).square()
    if clip is None:
        return loss, torch.zeros_like(loss, dtype=torch.bool)
    near = (old + (value - old).clamp(-clip, clip) - target).square()
    moved = (value - old).abs() > clip  # rounding alone may part the two where it did not
    return torch.maximum(loss, near), (near > loss) & moved


def value_metrics(batch: Batch) -> dict[str, float]:
    """Measure the values before the update against their targets.

    The explained variance is 1 - var(R - V) / var(R): 1 where the critic knows every return, 0
    where a constant would do as well, below 0 where it misleads; 0 where all returns are equal.
    """
    if batch.value_BT is None or batch.value_target_BT is None:
        return {}
    kept_BT = batch.mask_BT > 0
    value_M, target_M = batch.value_BT[kept_BT].double(), batch.value_target_BT[kept_BT].double()
    spread_of_targets = target_M.var(unbiased=False).item()
    left = (target_M - value_M).var(unbiased=False).item()
    explained = 1 - left / spread_of_targets if spread_of_targets else 0.0
    return {
        "critic/value_mean": value_M.mean().item(),
        "critic/return_mean": target_M.mean().item(),
        "critic/explained_variance": explained if math.isfinite(explained) else 0.0,
    }
