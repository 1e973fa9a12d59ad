"""What memory a run needs on each GPU, by arithmetic: nothing is loaded.

Axes and sizes as in :mod:`agentgym.model_shape`: h hidden, q questions, k keys, i intermediate, V
vocabulary. With P parameters, S processes that share them in shards (1 where each has all), T
padded tokens of a micro-batch and L layers, in bytes:

    weights      4 P / S                       2 P frozen in bfloat16, and 4 A of an adapter
                 4 P                           more in shards, where this process samples or sends
                                               them from GPU to GPU; on the CPU where it does not
    a copy       4 P - 8 P / S                 at the start of shards, where the whole weights are
    gradients    4 P / S                       4 P more while the sum over micro-batches is whole
    optimiser    8 P / S                       AdamW's two moments
    activations  T (L a + f)                   what the backward pass needs
                 T (L b h + a + f)             with gradient checkpointing; b of a residual: 4 or 2
      a          2 norms + inputs of matrices + 2 w (q + k) + 4 w i + 4 heads + 8
                 w = 4 in float32, 2 in bfloat16; each term is counted in ``_layer_activations``
    logits       4 min(T V, 2^25) kept, blocks of 2^21, and copies of the output's matrix
    keys, values 2 w L k                       a token of context and episode

``a`` is what transformers' layers save with fused attention, to the byte; a test compares. Not
calculated, but allowed for: what CUDA and its libraries take, and what lies between tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agentgym.errors import UsageError
from agentgym.model_shape import ModelShape

GIB = 2**30
ALLOWANCE = 2 * GIB
"""For each process on a GPU: context, libraries' workspaces, fragments. An assumption."""

KEPT_LOGITS = 2**25
BLOCK_LOGITS = 2**21
_BLOCKS_AT_ONCE = 4
_SUMMED = 2**28
PREFILL_TOKENS = 8192
"""Tokens of prompts that a vLLM server takes through the model at once, by default."""

Phase = Literal["always", "start", "update", "rollout"]


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained, and how.

    Attributes:
        half: Whether products are computed in bfloat16.
        lora_rank: Of the adapter that is trained; None trains all weights.
        checkpointing: Whether layers are computed again in the backward pass.
        micro_batch_tokens: Padded tokens of one pass; a longer context goes alone.
        context: The longest row, in tokens.
        episodes: That a step plays.
        reference: Whether divergences are measured from a frozen copy.
        critic: Whether there is one.
        in_process: Whether the learner's own process samples.
        nccl: Whether servers are sent weights from GPU to GPU.
    """

    half: bool
    context: int
    episodes: int
    lora_rank: int | None = None
    checkpointing: bool = False
    micro_batch_tokens: int = 4096
    reference: bool = False
    critic: bool = False
    in_process: bool = False
    nccl: bool = False

    @property
    def tokens(self) -> int:
        """Padded tokens of the largest pass."""
        return max(self.context, self.micro_batch_tokens)

    @property
    def frozen_half(self) -> bool:
        """Whether weights lie in bfloat16, frozen under an adapter."""
        return self.half and self.lora_rank is not None


@dataclass(frozen=True, slots=True)
class Trainers:
    """The GPUs that train.

    Attributes:
        gpus: How many, a process each.
        bytes: Of each.
        sharded: Whether weights, gradients and optimiser states are shared out (FSDP2).
        reduce_each: Whether gradients are added up after each micro-batch, so that no process
            holds them whole.
        offload: Whether the shards lie in the memory of the CPU.
    """

    gpus: int
    bytes: float
    sharded: bool = False
    reduce_each: bool = False
    offload: bool = False

    @property
    def shards(self) -> int:
        """Among how many the state is shared."""
        return self.gpus if self.sharded else 1

    @property
    def share(self) -> float:
        """The share of the state that lies on each GPU."""
        return 0.0 if self.sharded and self.offload else 1 / self.shards


@dataclass(frozen=True, slots=True)
class Item:
    """One use of a GPU's memory.

    Attributes:
        name: What.
        bytes: On each GPU.
        how: The arithmetic.
        phase: When it is there.
    """

    name: str
    bytes: float
    how: str
    phase: Phase = "always"


ASLEEP = Item("a server asleep", ALLOWANCE, "vLLM's context and graphs stay: assumed", "update")


def total(items: Sequence[Item], phase: Phase | None = None) -> float:
    """Return the bytes of a phase, what is always there included; of the largest by default."""
    if phase is None:
        return max(total(items, one) for one in ("start", "update", "rollout"))
    return sum(item.bytes for item in items if item.phase in ("always", phase))


# Training -----------------------------------------------------------------------------------------


def training_items(shape: ModelShape, training: Training, trainers: Trainers) -> list[Item]:
    """Return what each training GPU holds.

    Raises:
        UsageError: The model does not read such contexts.
    """
    if shape.positions is not None and training.context > shape.positions:
        raise UsageError(
            f"the model reads {shape.positions:,} tokens, and contexts are {training.context:,};"
            " lower policy.sampling.max_context or --context"
        )
    found = [
        *_state(shape, training, trainers),
        *_others(shape, training, trainers),
        *_pass(shape, training, trainers),
        Item("allowance", ALLOWANCE, "CUDA, its libraries, fragments: assumed, not calculated"),
    ]
    return [item for item in found if item.bytes]


def _state(shape: ModelShape, training: Training, trainers: Trainers) -> Iterator[Item]:
    """Yield weights, gradients and moments."""
    share, trained = trainers.share, _trained(shape, training)
    among = f" / {trainers.shards}" if trainers.sharded else ""
    weights, how = _weights(shape, training)
    yield Item("weights", weights * share, f"{how}{among}")
    moments = 8 * trained * share
    if trainers.sharded and not _on_host(training, trainers):
        yield Item("whole weights", weights, f"{how}: what sampling and saving are given")
        copied = max(0.0, weights - moments)
        said = "whole until it is divided; less the moments, which come later"
        yield Item("a copy", copied, said, "start")
    gradients, how = 4 * trained * share, f"4 x {trained:,}{among}"
    if trainers.sharded and not trainers.reduce_each:
        gradients, how = gradients + 4 * trained, f"{how}, and whole until the last micro-batch"
    elif trainers.gpus > 1 and not trainers.sharded:
        gradients, how = gradients + _SUMMED, f"{how}, and 256 MiB that are being summed"
    yield Item("gradients", gradients, how, "update")
    yield Item("optimiser", moments, f"2 x 4 x {trained:,}{among}, AdamW's")


def _trained(shape: ModelShape, training: Training) -> int:
    """Return how many numbers are trained of the policy."""
    return shape.parameters if training.lora_rank is None else shape.adapter(training.lora_rank)


def _weights(shape: ModelShape, training: Training) -> tuple[float, str]:
    """Return the bytes of the policy's weights, adapter and all, and the arithmetic."""
    each = 2 if training.frozen_half else 4
    weights, how = each * shape.parameters, f"{each} x {shape.parameters:,}"
    if training.lora_rank is None:
        return weights, how
    adapter = shape.adapter(training.lora_rank)
    return weights + 4 * adapter, f"{how} frozen, 4 x {adapter:,} of the adapter"


def _critic(shape: ModelShape, training: Training) -> int:
    """Return how many numbers are trained of the critic."""
    decoder = shape.parameters - (0 if shape.tied else shape.embedding)
    return decoder if training.lora_rank is None else shape.adapter(training.lora_rank)


def _on_host(training: Training, trainers: Trainers) -> bool:
    """Return whether the whole weights lie on the CPU, as neither learner nor sampler uses them."""
    return trainers.sharded and not training.in_process and not training.nccl


@dataclass(frozen=True, slots=True)
class Host:
    """What the processes that train take of their hosts' memory, beside libraries.

    Attributes:
        beginning: Bytes of each process while it loads what a run goes on from.
        first: Of the first one later, while it saves.
        others: Of each other one later.
    """

    beginning: float
    first: float
    others: float


def host_memory(shape: ModelShape, training: Training, trainers: Trainers) -> Host:
    """Return what lies in the memory of the CPU: whole weights, checkpoints, offloaded shards."""
    trained, critic = _trained(shape, training), training.critic * _critic(shape, training)
    given = _weights(shape, training)[0] * _on_host(training, trainers)
    reference = given * (training.reference and training.lora_rank is None)
    checkpoint = 8.0 * trained + 12.0 * critic  # moments, and weights that are the critic's alone
    away = trainers.sharded and trainers.offload
    kept = (_weights(shape, training)[0] + 12 * trained + reference + 16 * critic) * away
    kept /= trainers.shards
    saving = checkpoint * trainers.sharded  # what is not in shards is written from where it lies
    return Host(given + max(given + reference, checkpoint) + kept, given + saving + kept, kept)


def _others(shape: ModelShape, training: Training, trainers: Trainers) -> Iterator[Item]:
    """Yield the other models, and what samples in this process."""
    share = trainers.share
    if training.reference and training.lora_rank is None:
        yield Item("reference", 4 * shape.parameters * share, "4 x parameters, frozen")
    if training.critic:
        own = _critic(shape, training)
        yield Item("critic", 12 * own * share, f"(4 + 8) x {own:,}: weights and moments")
        yield Item("critic's gradients", 4 * own * share, f"4 x {own:,}", "update")
    if training.in_process:
        slots = _grown(16, training.episodes) * _grown(256, training.context)
        # Keys are turned in the residual's precision, values are products.
        pair = 4 if training.frozen_half else 6 if training.half else 8
        size = pair * shape.layers * shape.keys * slots
        how = f"{pair} x {shape.layers} layers x {shape.keys} x {slots:,} tokens"
        yield Item("keys and values", size, how, "rollout")


def _grown(least: int, needed: int) -> int:
    """Return the room that doubling from ``least`` ends with."""
    while least < needed:
        least *= 2
    return least


def _pass(shape: ModelShape, training: Training, trainers: Trainers) -> Iterator[Item]:
    """Yield what a forward and backward pass over a micro-batch needs."""
    sharded_half = trainers.sharded and training.half
    lora, tokens = training.lora_rank or 0, training.tokens
    layer = _layer_activations(shape, training, moved_half=sharded_half)
    residual = 2 if sharded_half or training.frozen_half else 4
    states = residual + 2 if training.half else 4  # what the last norm gives, and its cast
    ends = (4 + (0 if lora else residual) + states) * shape.hidden
    kept = residual * shape.hidden if training.checkpointing else layer
    how = f"{tokens:,} tokens x {shape.layers} layers x {kept:,}"
    activations = tokens * (shape.layers * kept + ends)
    if training.checkpointing:
        activations += tokens * layer
        how += f", and one layer of {layer:,}"
    yield Item("activations", activations, how, "update")
    width = 2 if training.half else 4
    working = tokens * width * (3 * shape.intermediate + 2 * shape.hidden)
    yield Item("their gradients", working, "three of the feed-forward part, two of h", "update")
    if trainers.sharded:
        unit = 2 * shape.layer + shape.ends
        yield Item("gathered", width * unit, f"{width} x (2 layers + ends)", "update")
    elif training.half and not lora:
        cast = 2 * shape.layers * shape.layer_matrices
        yield Item("casts", cast, "2 x parameters of the layers' matrices", "update")
    yield _logits(shape, training, trainers)


def _layer_activations(shape: ModelShape, training: Training, *, moved_half: bool) -> int:
    """Return the bytes a token that a layer saves for its backward pass.

    Args:
        shape: The model's.
        training: Precision and adapter.
        moved_half: Whether whole weights arrive in bfloat16, as shards do.
    """
    h, q, k = shape.hidden, shape.queries, shape.keys
    rank = training.lora_rank or 0
    w = 2 if training.half else 4
    residual = 2 if moved_half or training.frozen_half else 4
    norms = 2 * (4 + (0 if rank else residual)) * h  # in float32; what was normed, for its weight
    if training.half and (rank or residual == 4):  # each matrix casts its input for itself
        inputs = 5 * w * h + (w * q if rank else 0)
    else:
        inputs = 2 * w * h
    saved = norms + inputs + 2 * w * (q + k) + 4 * w * shape.intermediate
    saved += 4 * shape.heads + 8 + 7 * w * rank
    if shape.head_norms:
        saved += (4 + (0 if rank else w)) * (q + k) + 4 * (shape.heads + shape.kv_heads)
    return saved


def _logits(shape: ModelShape, training: Training, trainers: Trainers) -> Item:
    """Return what log-probabilities and entropies take, block by block."""
    kept = 4 * min(KEPT_LOGITS, training.tokens * shape.vocabulary)
    blocks = 4 * _BLOCKS_AT_ONCE * BLOCK_LOGITS
    states = 4 * training.tokens * shape.hidden  # their gradient
    how = f"{kept / GIB:.2f} GiB kept, {blocks / GIB:.2f} of blocks"
    copies = 0
    if training.lora_rank is None:
        # Cast, gradient in the cast's precision, and that in the weights' own.
        copies = 8 if training.half and not trainers.sharded else 6 if training.half else 4
        how += f", {copies} x {shape.embedding:,} for the output's matrix and its gradient"
    return Item("logits", kept + blocks + states + copies * shape.embedding, how, "update")


# Serving ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serving:
    """vLLM servers.

    Attributes:
        gpus: In all.
        bytes: Of each.
        tensor_parallel: GPUs that share one server's weights.
        half: Whether weights and keys and values are in bfloat16.
        utilization: Share of each GPU that vLLM may take.
    """

    gpus: int
    bytes: float
    tensor_parallel: int = 1
    half: bool = True
    utilization: float = 0.9

    def __post_init__(self) -> None:
        if self.gpus % self.tensor_parallel:
            raise UsageError(
                f"{self.gpus} serving GPUs are no multiple of --tensor-parallel"
                f" {self.tensor_parallel}"
            )

    @property
    def replicas(self) -> int:
        """How many servers."""
        return self.gpus // self.tensor_parallel


@dataclass(frozen=True, slots=True)
class Served:
    """What of a serving GPU is taken, and what is left for keys and values.

    Attributes:
        items: Weights, passes, allowance.
        token: Bytes of keys and values of one token, on each GPU.
        room: Bytes for keys and values.
        at_once: Episodes of full length that all servers hold together.
    """

    items: tuple[Item, ...]
    token: float
    room: float
    at_once: int


def served(shape: ModelShape, training: Training, serving: Serving) -> Served:
    """Return what the servers hold, and how many episodes fit."""
    width, parallel = (2 if serving.half else 4), serving.tensor_parallel
    heads = max(1, shape.kv_heads / parallel)  # fewer heads than GPUs are copied
    token = 2 * width * shape.layers * heads * shape.head_dim
    state = PREFILL_TOKENS * width * (3 * shape.intermediate / parallel + 4 * shape.hidden)
    among = f" / {parallel}" if parallel > 1 else ""
    items = (
        Item("weights", width * shape.parameters / parallel, f"{width} x parameters{among}"),
        Item("a pass", state, f"{PREFILL_TOKENS:,} tokens of prompts; an estimate"),
        Item("allowance", ALLOWANCE, "CUDA, its graphs and libraries: assumed, not calculated"),
    )
    room = serving.utilization * serving.bytes - total(items, "rollout")
    each = int(room // (token * training.context)) if room > 0 else 0
    return Served(items, token, room, each * serving.replicas)
