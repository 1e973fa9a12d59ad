"""Does training teach? The main job over seeds, against its baselines, on unseen rooms.

    python benchmarks/main_job.py --folder runs/main-job --jobs 2
    python benchmarks/main_job.py --folder runs/main-job --write

Arms: no training, GRPO, EPO's entropy bonus without its corridor (alpha = 0), EPO; three seeds
each, everything else the laptop recipe. A cell is one arm with one seed (``cells.py``). The final
checkpoint of each plays all 300 games of ``alfworld/gen-unseen`` once, at the temperature of
training.

``--jobs`` cells at a time, each on one thread. ``--write`` writes the table of what is done into
``main_job.md`` and the picture into ``main_job.png`` beside this file; it needs
``agentgym[benchmarks]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from cells import Cell, do_all, draw_curves, interval, missing, rises

BASE = "no training"
ARMS: dict[str, list[str] | None] = {
    BASE: None,
    "EPO": ["--method", "epo"],
    "GRPO": ["--method", "grpo"],
    "entropy bonus": ["--method", "epo", "--set", "method.alpha=0"],
}
SEEDS = (0, 1, 2)
SUITE = "alfworld/gen-unseen"
HERE = Path(__file__).parent

Arms = dict[str, list[Cell]]


def main() -> None:
    """Run what is not done, or write down what is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/main-job"))
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--write", action="store_true", help="write main_job.md and main_job.png")
    options = parser.parse_args()
    arms = cells_by_arm(options.folder)
    if options.write:
        write(arms)
    else:
        do_all([cell for cells in arms.values() for cell in cells], options.jobs)


def cells_by_arm(folder: Path) -> Arms:
    """Return the cells of each arm."""
    return {
        arm: [
            Cell(
                name=arm,
                folder=folder / f"{arm.replace(' ', '-').lower()}-{seed}",
                env="alfworld",
                arm=told,
                suite=SUITE,
                seed=seed,
            )
            for seed in SEEDS
        ]
        for arm, told in ARMS.items()
    }


def write(arms: Arms) -> None:
    """Write the table and the picture of all cells that are done."""
    unfinished = missing([cell for cells in arms.values() for cell in cells])
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
            *(row(arm, cells, arms[BASE]) for arm, cells in arms.items() if done(cells)),
            "",
            f"Three seeds rank nothing. {unfinished}".rstrip(),
            "",
            "![Success during training](main_job.png)",
            "",
        ]
    )
    (HERE / "main_job.md").write_text(text)
    draw(arms)
    print(text)


def done(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that are done."""
    return [cell for cell in cells if cell.is_done]


def row(arm: str, cells: Sequence[Cell], base: Sequence[Cell]) -> str:
    """Return a line of the table."""
    rates = [cell.success for cell in done(cells)]
    each = ", ".join(f"{rate:.3f}" for rate in rates)
    line = f"| {arm} | {len(rates)} | {each} | {fmean(rates):.3f} |"
    rise = [] if cells is base else rises(cells, base)
    return f"{line} {fmean(rise):+.3f} | {interval(rise)} |" if rise else f"{line} | |"


def draw(arms: Arms) -> None:
    """Draw success in training, its mean over the seeds with the range, by arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for arm, cells in arms.items():
        draw_curves(axes, arm, cells, "episode/success_rate")
    axes.set(xlabel="step", ylabel="success in training, mean of 5 steps", ylim=(0, 1))
    axes.legend(title="arm (seeds); band: range")
    figure.savefig(HERE / "main_job.png", dpi=120)


if __name__ == "__main__":
    main()
