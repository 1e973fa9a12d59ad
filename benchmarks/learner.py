"""Memory and time of log-probability and entropy, forward and backward, against the plain formula.

    python benchmarks/learner.py            # measure and print
    python benchmarks/learner.py --write    # and write learner.md beside this file

Each case runs in a process of its own. Memory is the highest resident set that the kernel saw
during forward and backward, above what was resident before (the weights and the hidden states)
and above the weights' gradient. Time is processor time on one thread, which other work on the
machine disturbs least; the best of some repetitions, the two versions in turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from agentgym.trainers.logprobs import token_logprobs

HIDDEN = 896
SHAPES = {"152k x 2k": (151936, 2048), "49k x 8k": (49152, 8192), "2k x 16k": (2048, 16384)}
ALONE = {"152k x 8k": (151936, 8192)}
GIB = 2**30


def plain(hidden_MD: Tensor, weight_VD: Tensor, target_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies by the plain formula."""
    logp_MV = torch.log_softmax(hidden_MD @ weight_VD.T, -1)
    entropy_M = -(logp_MV.exp() * logp_MV).sum(-1)
    return logp_MV.gather(1, target_M[:, None])[:, 0], entropy_M


def chunked(hidden_MD: Tensor, weight_VD: Tensor, target_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies as the learner does."""
    return token_logprobs(hidden_MD, weight_VD, None, target_M)


VERSIONS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "plain": plain,
    "chunked": chunked,
}


def status(field: str) -> int:
    """Return a memory field of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def one_case(version: str, vocabulary: int, tokens: int, repetitions: int) -> dict[str, float]:
    """Measure in this process: peak memory of the first repetition, best time of all."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden_MD = torch.randn(tokens, HIDDEN, requires_grad=True)
    weight_VD = torch.randn(vocabulary, HIDDEN).mul_(0.02).requires_grad_()
    target_M = torch.randint(vocabulary, (tokens,))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = status("VmRSS")
    seconds = []
    peak = 0
    for _ in range(repetitions):
        hidden_MD.grad = weight_VD.grad = None
        begun = time.process_time()
        logprob_M, entropy_M = VERSIONS[version](hidden_MD, weight_VD, target_M)
        (0.1 * entropy_M - logprob_M).sum().backward()
        seconds.append(time.process_time() - begun)
        peak = peak or status("VmHWM")
        del logprob_M, entropy_M
    assert weight_VD.grad is not None
    return {
        "seconds": min(seconds),
        "above": peak - before - weight_VD.grad.nbytes,
        "process": peak,
        "checksum": weight_VD.grad.square().sum().sqrt().item(),
    }


def measure(version: str, shape: tuple[int, int], repetitions: int) -> dict[str, float]:
    """Measure in a process of its own."""
    case = json.dumps([version, *shape, repetitions])
    command = [sys.executable, __file__, "--case", case]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def table(repetitions: int) -> list[str]:
    """Measure all cases and return the lines of a table."""
    lines = [
        "| vocabulary x tokens | version | seconds | GiB above weights and gradient |"
        " process peak, GiB |",
        "|---|---|---|---|---|",
    ]

    def row(name: str, version: str, found: dict[str, float]) -> str:
        figures = (found["seconds"], found["above"] / GIB, found["process"] / GIB)
        return f"| {name} | {version} | " + " | ".join(f"{f:.2f}" for f in figures) + " |"

    for name, shape in SHAPES.items():
        found = {version: measure(version, shape, repetitions) for version in VERSIONS}
        again = {version: measure(version, shape, repetitions) for version in VERSIONS}
        for version in VERSIONS:
            seconds = min(found[version]["seconds"], again[version]["seconds"])
            found[version]["seconds"] = seconds
            lines.append(row(name, version, found[version]))
        ours, theirs = found["chunked"], found["plain"]
        assert abs(ours["checksum"] / theirs["checksum"] - 1) < 1e-4
        lines.append(
            f"| | **chunked / plain** | **{ours['seconds'] / theirs['seconds']:.2f}** |"
            f" **1 / {theirs['above'] / ours['above']:.1f}** | |"
        )
    for name, shape in ALONE.items():
        lines.append(row(name, "chunked", measure("chunked", shape, 1)))
    return lines


def processor() -> str:
    """Return what the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repetitions", type=int, default=1, help="of each of two rounds")
    parser.add_argument("--write", action="store_true", help="write learner.md")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one_case(*json.loads(options.case))))
        return
    report = [
        "# Log-probability and entropy without a [tokens, vocabulary] tensor",
        "",
        "`python benchmarks/learner.py --write`: float32, hidden size"
        f" {HIDDEN}, forward and backward of both outputs, against `log_softmax`.",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, one thread, processor"
        f" time, {processor()}. Goals at 152k x 2k: at most 1/6 of the memory, at most 1.45 of the"
        " time (one more product is inherent); 152k x 8k alone below 2 GiB in all.",
        "",
        *table(options.repetitions),
    ]
    print("\n".join(report))
    if options.write:
        Path(__file__).with_suffix(".md").write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
