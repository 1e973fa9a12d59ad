"""Does training teach? The main job over seeds, against its baselines, on unseen rooms.

    python benchmarks/main_job.py --folder runs/main-job --jobs 2
    python benchmarks/main_job.py --folder runs/main-job --write

Arms: no training, GRPO, EPO's entropy bonus without its corridor (alpha = 0), EPO; three seeds
each, everything else the laptop recipe. A cell is one arm with one seed; a cell that is done is not
done again, one that was cut off goes on from its last checkpoint. Every arm's final checkpoint
plays all 300 games of ``alfworld/gen-unseen`` once, at the temperature of training. No checkpoint
is chosen by anything: the last one counts.

``--jobs`` cells at a time, each on one thread. ``--write`` writes the table of what is done into
``main_job.md`` and the picture into ``main_job.png`` beside this file; it needs
``agentgym[benchmarks]``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev

ARMS: dict[str, list[str] | None] = {
    "no training": None,
    "EPO": ["--method", "epo"],
    "GRPO": ["--method", "grpo"],
    "entropy bonus": ["--method", "epo", "--set", "method.alpha=0"],
}
SEEDS = (0, 1, 2)
SUITE = "alfworld/gen-unseen"
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # Student's t by degrees of freedom
HERE = Path(__file__).parent


def main() -> None:
    """Run what is not done, or write down what is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/main-job"))
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--write", action="store_true", help="write main_job.md and main_job.png")
    options = parser.parse_args()
    if options.write:
        write(options.folder)
        return
    cells = [(arm, seed) for arm in ARMS for seed in SEEDS]
    with ThreadPoolExecutor(options.jobs) as pool:
        for line in pool.map(lambda cell: run_cell(options.folder, *cell), cells):
            print(line, flush=True)


def run_cell(folder: Path, arm: str, seed: int) -> str:
    """Train and evaluate one arm with one seed, unless that is done; return a line about it."""
    cell = cell_folder(folder, arm, seed)
    if not is_done(cell):
        model = "alfworld-tiny" if ARMS[arm] is None else train(cell, ARMS[arm] or [], seed)
        agentgym(
            *("eval", "--suite", SUITE, "--model", model, "--max-turns", "30"),
            *(
                "--max-tokens",
                "16",
                "--temperature",
                "1.0",
                "--seed",
                str(seed),
                "--output",
                str(cell / "panel"),
            ),
        )
    return f"{arm}, seed {seed}: {success(cell):.3f}"


def train(cell: Path, arm: list[str], seed: int) -> str:
    """Train to the end, from the last checkpoint if there is one; return the model's folder."""
    run = cell / "run"
    latest = run / "checkpoints" / "latest"
    if not latest.exists():
        begin = ["--env", "alfworld", *arm, "--seed", str(seed), "--output", str(run)]
        agentgym("train", *begin) if not run.exists() else agentgym("train", "--resume", str(run))
    elif not (run / "eval" / steps_of(run) / "results.json").exists():
        agentgym("train", "--resume", str(run))
    return str(run / "checkpoints" / latest.read_text().strip() / "hf")


def steps_of(run: Path) -> str:
    """Return the name of the run's last step."""
    line = next(x for x in (run / "config.toml").read_text().splitlines() if x.startswith("steps"))
    return f"step_{int(line.partition('=')[2]):06d}"


def agentgym(*arguments: str) -> None:
    """Run the command on one thread; its output goes to the log of the process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "agentgym", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}:\n{done.stderr}")


def cell_folder(folder: Path, arm: str, seed: int) -> Path:
    """Return where a cell keeps what it did."""
    return folder / f"{arm.replace(' ', '-').lower()}-{seed}"


def is_done(cell: Path) -> bool:
    """Return whether a cell was trained and evaluated to its end."""
    return (cell / "panel" / "results.json").exists()


def success(cell: Path) -> float:
    """Return the success rate of a cell that is done."""
    results = json.loads((cell / "panel" / "results.json").read_text())
    rate = results["summary"]["success"]
    return float(rate["won"] / rate["episodes"])


def write(folder: Path) -> None:
    """Write the table and the picture of all cells that are done."""
    done = {
        arm: [
            success(cell_folder(folder, arm, seed))
            for seed in SEEDS
            if is_done(cell_folder(folder, arm, seed))
        ]
        for arm in ARMS
    }
    base = done["no training"]
    rows = [row(arm, rates, base) for arm, rates in done.items() if rates]
    text = "\n".join(
        [
            "# The main job: held-out success before and after training",
            "",
            f"`python benchmarks/main_job.py`, {datetime.now(UTC):%Y-%m-%d}: the laptop recipe, the"
            f" last checkpoint of each run on all 300 games of `{SUITE}`, temperature 1, 30 turns."
            " Generated games: not comparable with published numbers. The interval is Student's,"
            " over the seeds' rises above no training with the same seed.",
            "",
            "| arm | seeds | success of each | mean | rise | 95 % interval of the rise |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "Three seeds rank nothing." + missing(folder),
            "",
            "![Success during training](main_job.png)",
            "",
        ]
    )
    (HERE / "main_job.md").write_text(text)
    draw(folder)
    print(text)


def missing(folder: Path) -> str:
    """Return a sentence about the cells that are not done, if there are any."""
    cells = [
        f"{arm}, seed {seed}"
        for arm in ARMS
        for seed in SEEDS
        if not is_done(cell_folder(folder, arm, seed))
    ]
    return f" Not done yet: {'; '.join(cells)}." if cells else ""


def row(arm: str, rates: list[float], base: list[float]) -> str:
    """Return a line of the table."""
    each = ", ".join(f"{rate:.3f}" for rate in rates)
    rises = [after - before for after, before in zip(rates, base, strict=False)]
    if rates is base:
        return f"| {arm} | {len(rates)} | {each} | {fmean(rates):.3f} | | |"
    interval = "too few seeds"
    if len(rises) > 1:
        half = T_975[len(rises) - 1] * stdev(rises) / math.sqrt(len(rises))
        interval = f"{fmean(rises) - half:+.3f} to {fmean(rises) + half:+.3f}"
    return (
        f"| {arm} | {len(rates)} | {each} | {fmean(rates):.3f} | {fmean(rises):+.3f} | {interval} |"
    )


def draw(folder: Path) -> None:
    """Draw success in training, its mean over the seeds with the range, by arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for arm in ARMS:
        curves = [
            curve(path)
            for seed in SEEDS
            if is_done(cell_folder(folder, arm, seed))
            and (path := cell_folder(folder, arm, seed) / "run" / "metrics.jsonl").exists()
        ]
        if not curves:
            continue
        steps = min(len(c) for c in curves)
        columns = [[c[i] for c in curves] for i in range(steps)]
        x = range(1, steps + 1)
        (line,) = axes.plot(x, [fmean(c) for c in columns], label=f"{arm} ({len(curves)})")
        low, high = [min(c) for c in columns], [max(c) for c in columns]
        axes.fill_between(x, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    axes.set(xlabel="step", ylabel="success in training, mean of 5 steps", ylim=(0, 1))
    axes.legend(title="arm (seeds); band: range")
    figure.savefig(HERE / "main_job.png", dpi=120)


def curve(path: Path) -> list[float]:
    """Return success by step, each the mean of the last five steps."""
    rates = [json.loads(line)["episode/success_rate"] for line in path.read_text().splitlines()]
    return [fmean(rates[max(0, i - 4) : i + 1]) for i in range(len(rates))]


if __name__ == "__main__":
    main()
