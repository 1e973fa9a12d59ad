"""The learner: says what must be known before the update, and updates the weights.

It owns optimisers and counters, and the critic where a method needs one; the policy's weights are
those of the very module that the in-process sampler uses, unless they are trained in shards. It
knows no method; a chain tells it the loss of some rows.

On several processes each holds the whole batch and runs the model on its share of the rows. What
the passes find is gathered, so that all hold the same again, and their gradients are added up.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from agentgym.errors import UsageError
from agentgym.policies.precision import Compute
from agentgym.trainers.batch import Batch
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.correction import corrected, correction_metrics
from agentgym.trainers.critic import Critic, value_metrics
from agentgym.trainers.lora import adapter_off, has_adapter
from agentgym.trainers.method import Chain, Forward, Loss, MiniBatchWeights, Need
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.prefix_copies import CopyScorer, PrefixCopies
from agentgym.trainers.ranks import ALONE, Ranks
from agentgym.trainers.rows import is_one_step, mini_batches, passes
from agentgym.trainers.scores import Scores, at_temperature
from agentgym.trainers.sharding import ParallelOptions, reduce_next, shard, whole
from agentgym.trainers.term_norms import gradient_norm, set_aside
from agentgym.trainers.updater import Updater


class Learner:
    """Scores rows and updates the weights of a causal language model.

    Args:
        model: The model that is trained, in place; of one with an adapter, the adapter is.
        options: How.
        steps: How many steps the run has, for the learning rate's schedule.
        needs: What the chain needs (:attr:`Chain.needs`).
        seed: Where the draw of mini-batches comes from.
        reference: The frozen model that divergences are measured from, where they are needed.
            None takes a copy of the model as it is now, or, with an adapter, the model without
            it. A resumed run without an adapter must give the model that it began with.
        compute: What products are computed in; the sampler's should be the same.
        ranks: The processes that train it together.
        parallel: How they do.

    Raises:
        UsageError: The model's logits are unusual, or its layers cannot be recomputed.
        AgentGymError: Another process has another model.
    """

    def __init__(
        self,
        model: nn.Module,
        options: OptimOptions,
        steps: int,
        needs: Need = Need.NOTHING,
        seed: int = 0,
        reference: nn.Module | None = None,
        compute: Compute = "float32",
        ranks: Ranks = ALONE,
        parallel: ParallelOptions | None = None,
    ) -> None:
        self._options, self._seed, self._needs, self._ranks = options, seed, needs, ranks
        self._parallel = ParallelOptions() if parallel is None else parallel
        ranks.agree("the model", lambda: [p.double().sum().item() for p in model.parameters()])
        sharded = self._parallel.weights == "sharded"
        self._given = model
        # Each copy is divided before the next one is made, so that one is whole at a time.
        self._model = copy.deepcopy(model) if sharded else model
        self._lm = CausalLM(self._model, compute, options.gradient_checkpointing)
        self._divide(self._lm, compute)
        self._critic: Critic | None = None
        if Need.VALUES in needs:
            self._critic = Critic(model, options, steps, compute, ranks, parallel)
        self._reference: CausalLM | None = None
        if Need.REFERENCE in needs and not (reference is None and has_adapter(model)):
            frozen = copy.deepcopy(model) if reference is None else reference
            self._reference = CausalLM(frozen.requires_grad_(False), compute)
            self._divide(self._reference, compute)
        self._copies: CopyScorer | None = None
        if Need.ANSWER_SCORES in needs:
            self._copies = CopyScorer(self._lm, options.micro_batch_tokens, ranks)
        self._updater = Updater(self._model, options, steps)
        self._scored_after: int | None = None  # updates made when a batch was scored last

    def _divide(self, lm: CausalLM, compute: Compute) -> None:
        if self._parallel.weights == "sharded":
            shard(lm, CausalLM.ENTRIES, self._ranks, self._parallel, compute)

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self._ranks

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained of the policy, as this process has it."""
        return self._updater.parameters

    def scale_rate(self, factor: float) -> None:
        """Multiply the policy's learning rate, as its schedule has it, from the next step on."""
        self._updater.scale = factor

    @torch.no_grad()
    def publish(self) -> None:
        """Bring the weights as they are into the model that was given; every process must ask.

        That is the very model that is trained, unless it is trained in shards.
        """
        if self._model is self._given:
            return
        given = dict(self._given.named_parameters())
        for name, ours in self._model.named_parameters():  # once of a shared weight, by its first
            if ours.requires_grad:
                given[name].copy_(whole(ours))

    # Before the update ------------------------------------------------------------------------

    def prepare(self, batch: Batch, temperature: float) -> Batch:
        """Return the batch with all that must be known before the update.

        Where the update is one optimiser step, its own pass is by the weights as they are now.
        Log-probabilities and entropies that nobody needs earlier are then taken from there, and a
        pass is saved: :meth:`update` returns them.

        Args:
            batch: All rows of a step.
            temperature: At which it was sampled; the update is at the same.

        Raises:
            UsageError: A row begins with a sampled token, which nothing predicts.
        """
        early = Need.ENTROPY in self._needs or Need.OLD_LOGPROB in self._needs
        if early or self._options.correction.level != "off":
            return self.score(batch, temperature)
        if not is_one_step(batch, self._options):
            return self.score(batch, temperature)
        return self._with_others(at_temperature(batch, temperature))

    def score(self, batch: Batch, temperature: float) -> Batch:
        """Return the batch with all that the weights as they are now say about it.

        Args:
            batch: All rows of a step.
            temperature: At which it was sampled; the update is at the same.

        Raises:
            UsageError: A row begins with a sampled token, which nothing predicts.
        """
        batch = at_temperature(batch, temperature)
        batch = self._scores(self._lm, batch).into(batch)
        self._scored_after = self._updater.updates
        return self._with_others(corrected(batch, self._options.correction))

    def score_answers(self, asked: Sequence[PrefixCopies]) -> list[list[float]]:
        """Return how likely answers are after prefixes (see :class:`CopyScorer`).

        Raises:
            UsageError: The learner was built without answer scores among its needs.
        """
        if self._copies is None:
            raise UsageError("the learner was built without ANSWER_SCORES; give it that need")
        return self._copies(asked)

    def _with_others(self, batch: Batch) -> Batch:
        """Return the batch with what the reference and the critic say."""
        if self._critic is not None:
            batch = self._critic.score(batch)
        if Need.REFERENCE not in self._needs:
            return batch
        if self._reference is not None:
            scores = self._scores(self._reference, batch)
        else:
            with adapter_off(self._model):
                scores = self._scores(self._lm, batch)
        return batch.with_(ref_logprob_BT=scores.logprob_BT)

    def _scores(self, lm: CausalLM, batch: Batch) -> Scores:
        return Scores.by(lm, batch, self._options.micro_batch_tokens, self._ranks)

    # The update -------------------------------------------------------------------------------

    def update(self, batch: Batch, method: Chain, step: int) -> tuple[Batch, dict[str, float]]:
        """Update the weights with a step's batch, and with what the method replays.

        Args:
            batch: Prepared or scored, with advantages.
            method: What the loss is.
            step: Counted from 1.

        Returns:
            The batch with the log-probabilities and entropies before the update, and metrics,
            each the mean over the optimiser steps taken; those of replayed batches begin with
            ``replay/``.

        Raises:
            DivergedError: A loss or its gradient was not finite three times in a row.
            UsageError: The method needs a reference or values, and the learner was built without.
        """
        built_in = Need.REFERENCE | Need.VALUES | Need.CURRENT_LOGPROB
        missing = (method.needs & built_in) & ~self._needs
        if missing:
            raise UsageError(
                f"the method needs {missing.name}, and the learner was built without; give it the"
                " method's needs"
            )
        scores: Scores | None = None
        if batch.old_logprob_BT is None:
            assert is_one_step(batch, self._options)
            scores = Scores.empty(batch, self._lm.dtype)
        self._updater.begin(step)
        if self._critic is not None:
            self._critic.begin(step)
        method.prepare(batch, step)
        replays = method.replay(step)
        seen = self._learn(batch, method, step, 1.0, scores)
        if scores is not None:
            batch = scores.gathered(self._ranks).into(batch)
        replayed: defaultdict[str, list[float]] = defaultdict(list)
        for source, weight in replays:
            for name, values in self._learn(source, method, step, weight).items():
                replayed[f"replay/{name}"] += values
        return batch, {
            **{name: fmean(values) for name, values in (seen | replayed).items()},
            **method.metrics(step),
            **correction_metrics(batch, self._options.correction.limit),
            **value_metrics(batch),
            "optim/lr": self._updater.rate,
            "optim/updates": float(self._updater.updates),
            "optim/skipped": float(self._updater.skipped),
        }

    def _learn(
        self,
        batch: Batch,
        method: Chain,
        step: int,
        weight: float,
        scores: Scores | None = None,
    ) -> dict[str, list[float]]:
        """Go through a batch, if its loss has a weight; return the metrics of each mini-batch."""
        self._ranks.agree(f"the batch of step {step}", batch.digest)
        seen: defaultdict[str, list[float]] = defaultdict(list)
        draw = f"{self._seed}:{step}"
        for mini_batch in mini_batches(batch, self._options, draw) if weight else ():
            for name, value in self._step(mini_batch, method, step, weight, scores).items():
                seen[name].append(value)
        return seen

    def _step(
        self, mini_batch: Batch, method: Chain, step: int, weight: float, scores: Scores | None
    ) -> dict[str, float]:
        """Take one optimiser step, and one of the critic where it has targets.

        Returns:
            Metrics of the steps; none of one that was skipped, because loss or gradient were not
            finite.
        """
        if Need.CURRENT_LOGPROB in self._needs:
            method.hold_back(mini_batch, self._current_logprob(mini_batch), step)
        forwards = partial(self._forwards, mini_batch, step, scores)
        sums: defaultdict[str, float] = defaultdict(float)
        watched: set[str] = set()
        for loss, counts in self._descend(method, forwards(), lambda loss: loss.total() * weight):
            watched |= {name for name, term in loss.terms.items() if term.watched}
            for name, value in _told(loss).items():
                sums[name] += value.item() if counts else 0.0
        sums = defaultdict(float, self._ranks.sums(sums))
        for name in sorted(watched):
            sums[f"optim/grad_norm/{name}"] = self._norm_of_term(name, method, forwards())
        norm, made = self._updater.apply(sums["loss/total"], sums, step)
        metrics = {**sums, "optim/grad_norm": norm} if made else {}
        if self._critic is not None and mini_batch.value_target_BT is not None:
            metrics |= self._critic.update(mini_batch, step)
        return metrics

    def _descend(
        self,
        method: Chain,
        forwards: Iterator[tuple[Forward, bool]],
        part: Callable[[Loss], Tensor],
    ) -> Iterator[tuple[Loss, bool]]:
        """Gather the gradients of a part of the loss over all micro-batches and processes.

        Yields:
            The loss of each micro-batch of this process, and whether it counts. The gradients are
            whole when the last one was asked for.
        """
        for forward, counts in forwards:
            loss = method.loss(forward)
            value = part(loss) if counts else part(loss) * 0.0
            if value.requires_grad:
                value.backward()  # type: ignore[no-untyped-call]
            yield loss, counts
        self._ranks.sum_gradients(self._updater.parameters)

    def _norm_of_term(
        self, name: str, method: Chain, forwards: Iterator[tuple[Forward, bool]]
    ) -> float:
        """Return the norm of one term's own gradient, which takes passes of its own."""
        with set_aside(self._updater.parameters):
            for _ in self._descend(method, forwards, lambda loss: loss.terms[name].value):
                pass
            return gradient_norm(self._updater.parameters).item()

    def _current_logprob(self, mini_batch: Batch) -> Tensor:
        """Return the log-probabilities of a mini-batch by the weights as they are."""
        scored_now = self._updater.updates == self._scored_after and not mini_batch.replayed
        if scored_now and mini_batch.old_logprob_BT is not None:
            return mini_batch.old_logprob_BT
        return self._scores(self._lm, mini_batch).logprob_BT

    def _forwards(
        self, mini_batch: Batch, step: int, scores: Scores | None
    ) -> Iterator[tuple[Forward, bool]]:
        """Run the model over this process's rows of a mini-batch, a micro-batch at a time.

        Args:
            mini_batch: The rows.
            step: Counted from 1.
            scores: Takes what this pass says, where nobody scored the batch before.

        Yields:
            What the model says of some rows, and whether they count (:class:`Pass`).
        """
        weights = MiniBatchWeights(mini_batch)
        for part in passes(mini_batch, self._options.micro_batch_tokens, self._ranks):
            reduce_next(self._lm, part.last or self._parallel.reduce == "each")
            rows = mini_batch.rows(part.rows)
            logprob_BT, entropy_BT = self._lm.score(
                rows.ids_BT, rows.mask_BT, mini_batch.temperature
            )
            if scores is not None:
                old_BT, before_BT = logprob_BT.detach(), entropy_BT.detach()
                if part.counts:
                    scores.put(part.rows, old_BT, before_BT)
                rows = rows.with_(old_logprob_BT=old_BT, entropy_BT=before_BT)
            rows = rows.to(logprob_BT.device)
            forward = Forward(rows, logprob_BT, entropy_BT, step, weights, part.rows)
            yield forward, part.counts

    # Checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return optimisers, counters and the critic; the policy's weights are saved with it.

        Nothing in it is sharded. Every process must ask; the first one alone has all of it.
        """
        keep = self._ranks.is_first
        state = self._updater.state_dict(keep=keep)
        if self._critic is not None:
            state["critic"] = self._critic.state_dict(keep=keep)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        self._updater.load_state_dict(state)
        if self._critic is not None:
            self._critic.load_state_dict(state["critic"])


def _told(loss: Loss) -> dict[str, Tensor]:
    """Return what is logged of a micro-batch's loss; sums over its tokens."""
    terms = {f"loss/{name}": term.value for name, term in loss.terms.items()}
    return {**terms, **loss.metrics, "loss/total": loss.total()}
