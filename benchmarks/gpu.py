"""The learner's log-probabilities on a GPU: speed against plain products, memory, and rounding.

    python benchmarks/gpu.py --write                       # on a GPU: measure, print, write gpu.md
    python benchmarks/gpu.py --device cpu --shape tiny     # on any machine: that it runs

Two things are measured in bfloat16, forward and backward, with random weights in the sizes of a
model of 1.5 billion parameters: the blocks of the output projection alone (:func:`head`), and the
whole model through the class that the learner scores and trains with (:func:`model`).

The ceiling is what one large product in bfloat16 reaches in the same run. Of the projection two
shares of it are told: of the products that any way of computing this has (three: forward, and two
backward), and of those that are made here (four: all but the first 2^25 logits are computed again
in the backward pass instead of being kept). Of the model the share counts 6 operations a parameter
and token, as is usual, and 8 where layers are computed again; attention's own products are left
out, so that it is a little too low.

Rounding is told against float32 on the same device with the same weights. Half precision is
another function, so there is no right answer but its size: the gap of log-probabilities in nats,
and the cosine of the gradients.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentgym.policies.precision import Compute
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.logprobs import token_logprobs

GIB = 2**30
WARM, TIMED = 2, 5


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model of Qwen2's kind, and of what goes through it."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    rows: int
    tokens: int  # of a row
    square: int  # side of the product that is the ceiling

    @property
    def all_tokens(self) -> int:
        """Tokens of all rows."""
        return self.rows * self.tokens


SHAPES = {
    # Qwen2.5-1.5B; four rows of a context of 2,048.
    "1.5b": Shape(1536, 8960, 28, 12, 2, 151_936, 4, 2048, 8192),
    "tiny": Shape(32, 64, 2, 4, 2, 3000, 2, 16, 128),
}


@dataclass(frozen=True, slots=True)
class Timed:
    """One repeated measurement."""

    seconds: float  # median
    peak: int  # bytes above what was there before; 0 where the device does not tell


def measure(device: torch.device, work: Callable[[], object]) -> Timed:
    """Return the time and the highest memory of some work, after warming up."""
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    for _ in range(WARM):
        work()
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(TIMED):
        begun = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else 0
    return Timed(median(seconds), peak)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceiling(shape: Shape, device: torch.device) -> float:
    """Return the operations a second of one large product in bfloat16."""
    left, right = (
        torch.randn(shape.square, shape.square, device=device, dtype=torch.bfloat16)
        for _ in range(2)
    )
    return 2 * shape.square**3 / measure(device, lambda: left @ right).seconds


# The projection -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeadInputs:
    """What the projection takes; float32 copies have the very same numbers."""

    hidden_MD: Tensor
    weight_VD: Tensor
    target_M: Tensor

    def float(self) -> HeadInputs:
        """Return them in float32."""
        hidden_MD = self.hidden_MD.detach().float().requires_grad_()
        return HeadInputs(
            hidden_MD, self.weight_VD.detach().float().requires_grad_(), self.target_M
        )

    def run(self) -> tuple[Tensor, Tensor]:
        """Compute both outputs and their gradients; return the outputs."""
        self.hidden_MD.grad = self.weight_VD.grad = None
        logprob_M, entropy_M = token_logprobs(self.hidden_MD, self.weight_VD, None, self.target_M)
        (0.1 * entropy_M - logprob_M).mean().backward()
        return logprob_M.detach(), entropy_M.detach()


def head(shape: Shape, device: torch.device, most: float) -> list[str]:
    """Measure the projection and return the rows of its table.

    Args:
        shape: The sizes.
        device: Where.
        most: Operations a second of the ceiling.
    """
    half = torch.bfloat16
    hidden_MD = torch.randn(shape.all_tokens, shape.hidden, device=device, dtype=half)
    weight_VD = 0.02 * torch.randn(shape.vocabulary, shape.hidden, device=device, dtype=half)
    target_M = torch.randint(shape.vocabulary, (shape.all_tokens,), device=device)
    inputs = HeadInputs(hidden_MD.requires_grad_(), weight_VD.requires_grad_(), target_M)
    timed = measure(device, inputs.run)
    product = 2 * shape.all_tokens * shape.vocabulary * shape.hidden
    rate = shape.all_tokens / timed.seconds
    whole = 4 * shape.all_tokens * shape.vocabulary
    rows = [
        ("tokens a second", f"{rate:,.0f}"),
        ("share of the ceiling, of three products", f"{3 * product / timed.seconds / most:.1%}"),
        ("share of the ceiling, of the four made", f"{4 * product / timed.seconds / most:.1%}"),
        ("memory above inputs, gradients included", _memory(timed.peak, device)),
        ("all logits in float32 would be", f"{whole / GIB:.2f} GiB"),
    ]
    logprob_M, entropy_M = inputs.run()
    exact = inputs.float()
    true_logprob_M, true_entropy_M = exact.run()
    rows += _gaps(logprob_M, true_logprob_M, "log-probability")
    rows += _gaps(entropy_M, true_entropy_M, "entropy")
    for name, ours, theirs in (
        ("hidden states", inputs.hidden_MD, exact.hidden_MD),
        ("matrix", inputs.weight_VD, exact.weight_VD),
    ):
        rows.append((f"gradient of the {name}, cosine", _cosine([ours.grad], [theirs.grad])))
    return _table(rows)


# The model ----------------------------------------------------------------------------------------


def model(shape: Shape, device: torch.device, most: float, *, recompute: bool) -> list[str]:
    """Measure a whole model as the learner trains it, and return the rows of its table."""
    config = Qwen2Config(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=True,
    )
    with device:
        network = Qwen2ForCausalLM(config)
    ids_BT = torch.randint(shape.vocabulary, (shape.rows, shape.tokens), device=device)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[:, 0] = 0

    def run(compute: Compute) -> tuple[Tensor, Tensor]:
        network.zero_grad(set_to_none=True)
        logprob_BT, entropy_BT = lms[compute].score(ids_BT, mask_BT, 1.0)
        (0.1 * entropy_BT - logprob_BT).sum().div(mask_BT.sum()).backward()
        return logprob_BT.detach(), entropy_BT.detach()

    computes: tuple[Compute, ...] = ("bfloat16", "float32")
    lms = {compute: CausalLM(network, compute, recompute) for compute in computes}
    timed = measure(device, lambda: run("bfloat16"))
    parameters = sum(p.numel() for p in network.parameters())
    operations = (8 if recompute else 6) * parameters * shape.all_tokens
    rows = [
        ("parameters", f"{parameters:,}"),
        ("tokens a second", f"{shape.all_tokens / timed.seconds:,.0f}"),
        ("share of the ceiling", f"{operations / timed.seconds / most:.1%}"),
        ("memory above weights, gradients included", _memory(timed.peak, device)),
    ]
    logprob_BT, entropy_BT = run("bfloat16")
    ours = [p.grad for p in network.parameters()]
    true_logprob_BT, true_entropy_BT = run("float32")
    theirs = [p.grad for p in network.parameters()]
    chosen = mask_BT.bool()
    rows += _gaps(logprob_BT[chosen], true_logprob_BT[chosen], "log-probability")
    rows += _gaps(entropy_BT[chosen], true_entropy_BT[chosen], "entropy")
    rows.append(("gradient of the weights, cosine", _cosine(ours, theirs)))
    return _table(rows)


# Telling ------------------------------------------------------------------------------------------


def _gaps(ours_M: Tensor, theirs_M: Tensor, name: str) -> list[tuple[str, str]]:
    gap_M = (ours_M.float() - theirs_M.float()).abs()
    said = f"{gap_M.mean():.2g} on average, {gap_M.max():.2g} at most"
    return [(f"{name}, nats from float32", said)]


def _cosine(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> str:
    """Return the cosine of two gradients, given in parts; sums are in float64."""

    def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
        pairs = zip(left, right, strict=True)
        return sum((a.double() * b.double()).sum().item() for a, b in pairs)

    return f"{dot(ours, theirs) / math.sqrt(dot(ours, ours) * dot(theirs, theirs)):.6f}"


def _memory(peak: int, device: torch.device) -> str:
    return f"{peak / GIB:.2f} GiB" if device.type == "cuda" else "not told on this device"


def _table(rows: list[tuple[str, str]]) -> list[str]:
    return ["| what | measured |", "|---|---|", *(f"| {name} | {said} |" for name, said in rows)]


def report(shape: Shape, device: torch.device) -> list[str]:
    """Measure everything and return a page."""
    torch.manual_seed(0)
    most = ceiling(shape, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    command = shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    return [
        "# The learner's log-probabilities on a GPU",
        "",
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, {name}:"
        f" sizes {shape}.",
        "",
        f"Ceiling: {most / 1e12:.1f} TFLOP/s, a product of two {shape.square:,} x {shape.square:,}"
        f" matrices in bfloat16. Times are medians of {TIMED}.",
        "",
        "## Output projection, forward and backward",
        "",
        *head(shape, device, most),
        "",
        "## Whole model, forward and backward",
        "",
        *model(shape, device, most, recompute=False),
        "",
        "## The same with gradient checkpointing",
        "",
        *model(shape, device, most, recompute=True),
    ]


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="1.5b")
    parser.add_argument("--write", action="store_true", help="write gpu.md; only of a GPU")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use; --device cpu --shape tiny tries the code")
    if options.write and (options.device, options.shape) != ("cuda", "1.5b"):
        parser.error("gpu.md is about a GPU and 1.5b; leave out --write")
    page = report(SHAPES[options.shape], torch.device(options.device))
    print("\n".join(page))
    if options.write:
        Path(__file__).with_suffix(".md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
