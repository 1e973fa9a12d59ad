"""Updates on many processes against those of one: how far apart they are, method by method.

    python benchmarks/scale.py            # compare and print
    python benchmarks/scale.py --write    # and write scale.md beside this file

All processes are on this machine and talk over gloo (benchmarks/scale_job.py is what each one
does). Two cores cannot show that more processes are faster; the last table shows what sharing the
work costs where it cannot be gained.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from scale_job import run

PROCESSES = (2, 4)
PAGE = Path(__file__).with_suffix(".md")
BOUND = {"float64": 1e-10, "float32": 1e-5}

HALVES = ("muon", "bfloat16")
"""Cases that multiply in bfloat16, and cannot be as exact."""

Found = list[dict[str, Any]]


def page(folder: Path) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# Training on many processes: the same numbers as on one"
    yield ""
    yield (
        "`make test-scale` checks this, and `python benchmarks/scale.py --write` wrote it: two"
        " updates of a small Llama (two epochs of three mini-batches, clipped gradients) by"
        " processes together, against the same by one. The largest difference of a weight; weights"
        " moved by about 0.1."
    )
    yield ""
    yield (
        f"Measured {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, {platform.machine()},"
        " processes of one machine over gloo, one thread each. No GPU, no NCCL, no second host."
    )
    yield ""
    compared = {size: run(size, "compare", folder / "compared.json") for size in PROCESSES}
    yield from _differences(compared)
    yield from _answers(compared)
    yield from _checkpoints(folder)
    yield from _speed(folder)


def _differences(compared: dict[int, Found]) -> Iterator[str]:
    columns = [(s, w) for s in PROCESSES for w in ("whole", "sharded")]
    heads = " | ".join(f"{size} processes, {weights}" for size, weights in columns)
    yield f"| case | precision | {heads} |"
    yield "|---|---|" + "---|" * len(columns)
    table: dict[tuple[str, str], dict[tuple[int, str], float]] = {}
    for size, found in compared.items():
        for one in (one for one in found if "dtype" in one):
            row = table.setdefault((one["case"], one["dtype"]), {})
            row[size, one["weights"]] = one["difference"]
    for (case, dtype), row in table.items():
        cells = (f"{row[c]:.1e}" if c in row else "" for c in columns)
        yield f"| {case} | {dtype} | {' | '.join(cells)} |"
    yield ""
    for dtype, bound in BOUND.items():
        worst = max(
            difference
            for (case, precision), row in table.items()
            if precision == dtype and case not in HALVES
            for difference in row.values()
        )
        apart = "" if dtype == "float64" else ", but for `muon` and `bfloat16`,"
        yield f"The largest of {dtype}{apart} is {worst:.1e}; the bound is {bound:g}."
    yield ""
    shares = [(s, max(one.get("share", 0) for one in found)) for s, found in compared.items()]
    held = ", ".join(f"{share:.2f} of {size}" for size, share in shares)
    half = [one for found in compared.values() for one in found if one["case"] == "bfloat16"]
    worst = max(one["mean_difference"] for one in half)
    yield (
        "Those two multiply in bfloat16: Muon whatever the weights are, and in the case `bfloat16`"
        " shards are moved in it, which can change the sign of a small gradient, and AdamW makes a"
        f" whole step of any sign: the mean difference is {worst:.2f} of the mean movement."
    )
    yield ""
    yield (
        "Sharded: each trained parameter is a DTensor, and the first process holds at most this"
        f" share of the numbers: {held}. Each group's trajectories were dealt to several processes."
    )
    yield ""


def _answers(compared: dict[int, Found]) -> Iterator[str]:
    scored = [one for found in compared.values() for one in found if one["case"] == "answer scores"]
    worst = max(one["difference"] for one in scored)
    yield f"Scores of gold answers, dealt by rows: the largest difference is {worst:.1e} nats."
    yield ""


def _checkpoints(folder: Path) -> Iterator[str]:
    run(2, "save", folder / "saved.json")
    yield "A checkpoint of two processes with shards, gone on from for two steps, against four"
    yield "unbroken ones of one process:"
    yield ""
    yield "| gone on by | weights | largest difference |"
    yield "|---|---|---|"
    for size in (1, 4):
        for one in run(size, "resume", folder / "resumed.json"):
            yield f"| {size} | {one['weights']} | {one['difference']:.1e} |"
    yield ""


def _speed(folder: Path) -> Iterator[str]:
    alone = run(1, "speed", folder / "speed.json")[0]
    yield "Tokens a second of an update (a Llama of 4 million weights, 32 rows of 126 tokens), as a"
    yield "share of one process's, all on the same two cores, which other work was using too:"
    yield ""
    yield "| processes | weights | share |"
    yield "|---|---|---|"
    for size in PROCESSES:
        for one in run(size, "speed", folder / "speed.json"):
            yield f"| {size} | {one['weights']} | {alone['seconds'] / one['seconds']:.2f} |"


def main() -> None:
    """Compare, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="write scale.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = "\n".join(page(Path(folder))) + "\n"
    print(text)
    if asked.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
