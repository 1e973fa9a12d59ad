"""Whether a run would fit: its configuration, a model's sizes and GPUs, put into the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from agentgym.config import Config
from agentgym.errors import UsageError
from agentgym.memory_plan import (
    ASLEEP,
    GIB,
    Item,
    Served,
    Serving,
    Trainers,
    Training,
    served,
    total,
    training_items,
)
from agentgym.model_shape import ModelShape
from agentgym.trainers.method import Need
from agentgym.trainers.registry import build_chain

_TRIED_GPUS = (2, 4, 8, 16, 32, 64)
_RANK = 16  # of the adapter that is proposed


@dataclass(frozen=True, slots=True)
class Plan:
    """What trains, on what, and what samples.

    Attributes:
        shape: The model's.
        training: What is trained.
        trainers: On which GPUs.
        serving: The vLLM servers; on the GPUs that train where ``shared``. None samples in the
            learner's process.
        shared: Whether the servers are on the GPUs that train.
        sleeps: Whether they sleep there while the learner learns.
    """

    shape: ModelShape
    training: Training
    trainers: Trainers
    serving: Serving | None = None
    shared: bool = False
    sleeps: bool = False

    @property
    def items(self) -> list[Item]:
        """What each training GPU holds of the learner, and of a server that sleeps there."""
        items = training_items(self.shape, self.training, self.trainers)
        return [*items, ASLEEP] if self.sleeps else items

    @property
    def needed(self) -> float:
        """Bytes of each training GPU that are needed at once for the learner to learn."""
        return total(self.items)

    @property
    def servers(self) -> Serving | None:
        """The servers; those that share GPUs may take what the learner leaves of them.

        Of servers that sleep while it learns, that is what it leaves while it does not.
        """
        if self.serving is None or not self.shared:
            return self.serving
        taken = total(self.items, "rollout") if self.sleeps else self.needed
        left = (self.trainers.bytes - taken) / self.trainers.bytes
        return replace(self.serving, utilization=max(0, math.floor(100 * left)) / 100)

    @property
    def served(self) -> Served | None:
        """What the servers hold."""
        return None if self.servers is None else served(self.shape, self.training, self.servers)

    @property
    def trains(self) -> bool:
        """Whether the learner fits."""
        return self.needed <= self.trainers.bytes

    @property
    def serves(self) -> bool:
        """Whether every server has room for one episode at least."""
        return self.served is None or self.served.at_once > 0

    @property
    def fits(self) -> bool:
        """Whether all of it fits."""
        return self.trains and self.serves

    @property
    def largest(self) -> Item:
        """What takes most of a training GPU."""
        return max(self.items, key=lambda item: item.bytes)


def training_of(config: Config, *, in_process: bool) -> Training:
    """Return what of a run's configuration decides about memory.

    Raises:
        UsageError: The method is not there, or its settings do not fit.
    """
    needs = build_chain(config.method, config.steps, config.reward).needs
    policy, optim = config.policy, config.optim
    return Training(
        half=policy.dtype == "bfloat16",
        context=policy.sampling.max_context,
        episodes=config.rollout.tasks_per_step * config.rollout.group_size,
        lora_rank=None if policy.lora is None else policy.lora.rank,
        checkpointing=optim.gradient_checkpointing,
        micro_batch_tokens=optim.micro_batch_tokens,
        reference=Need.REFERENCE in needs,
        critic=Need.VALUES in needs,
        in_process=in_process,
        nccl=policy.server.sync == "nccl" and not in_process,
    )


def trainers_of(config: Config, gpus: int, bytes_each: float) -> Trainers:
    """Return the GPUs that train, with the configuration's way to share the work.

    Raises:
        UsageError: There are none.
    """
    if gpus < 1 or bytes_each <= 0:
        raise UsageError(f"no run on {gpus} GPUs of {bytes_each / GIB:g} GiB; --gpus is 1 or more")
    parallel = config.parallel
    sharded = parallel.weights == "sharded" and gpus > 1
    return Trainers(gpus, bytes_each, sharded, parallel.reduce == "each", parallel.offload)


def mends(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Yield each change that makes the learner smaller, or gives the servers more.

    Each comes with the plan that it leads to.
    """
    training, trainers = plan.training, plan.trainers
    for said, changed in _other_training(training):
        other = replace(plan, training=changed)
        if other.needed < plan.needed:
            yield said, other
    if trainers.sharded and not trainers.reduce_each:
        yield "parallel.reduce=each", replace(plan, trainers=replace(trainers, reduce_each=True))
    if trainers.sharded and not trainers.offload:
        yield "parallel.offload=true", replace(plan, trainers=replace(trainers, offload=True))
    if trainers.gpus > 1 and not trainers.sharded:
        yield "parallel.weights=sharded", replace(plan, trainers=replace(trainers, sharded=True))
    in_turns = replace(plan, sleeps=True)
    if plan.shared and not plan.sleeps and trainers.gpus == 1 and in_turns.fits:
        yield "policy.server.sleep=true", in_turns
    for gpus in _TRIED_GPUS:
        more = replace(trainers, gpus=gpus, sharded=True, reduce_each=True)
        other = replace(plan, trainers=more)
        if gpus > trainers.gpus and other.trains:
            yield f"{gpus} GPUs, parallel.weights=sharded, parallel.reduce=each", other
            return


def _other_training(training: Training) -> Iterator[tuple[str, Training]]:
    if not training.checkpointing:
        said = "optim.gradient_checkpointing=true"
        yield said, replace(training, checkpointing=True)
    if not training.half:
        yield "policy.dtype=bfloat16", replace(training, half=True)
    if training.micro_batch_tokens > training.context:
        said = f"optim.micro_batch_tokens={training.context}"
        yield said, replace(training, micro_batch_tokens=training.context)
    if training.reference and training.lora_rank is None:
        yield "method.kl_coef=0", replace(training, reference=False)
    if training.lora_rank is None:
        yield f"policy.lora.rank={_RANK}", replace(training, lora_rank=_RANK)
