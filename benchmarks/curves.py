"""The methods beside GRPO, each on the environments where its paper or its means apply.

    python benchmarks/curves.py --folder runs/curves --env webshop --seeds 0
    python benchmarks/curves.py --folder runs/curves --write

EPO on ALFWorld and ScienceWorld, EMPG on ALFWorld, SPEAR on WebShop, IGPO and AEPO on search. A
cell is one arm in one environment with one seed (``cells.py``), and takes minutes. All arms of a
comparison share the environment's laptop recipe and the base, GRPO; they differ in the method's own
terms alone. What both arms change of the recipe stands with them below (ScienceWorld: temperature
1.5, four tasks a step). Every arm's final checkpoint plays all tasks of a held-out suite once.

``--write`` puts the tables of what is done into ``curves.md``, between the two comments that say
so, and the picture into ``curves.png`` beside this file; it needs ``agentgym[benchmarks]``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from cells import Cell, do_all, draw_curves, interval, missing, rises

UNTRAINED, BASE = "no training", "GRPO"
# About ten minutes on a core of its own; ALFWorld's cells have the recipe's own steps, and are the
# main job's, and the simulator takes its time for ScienceWorld's.
STEPS = {"alfworld": 50, "scienceworld": 20, "webshop": 30, "search": 20}
# With the group's deviation, SPEAR's reward of calls would be all the signal of groups that won, as
# large as winning is in others; its authors train without, and so do both arms.
PLAIN = ["--set", "method.normalise=false"]
# Calls are paid for an outcome of 10; here the outcome is 1. SPEAR's own base would change what
# both arms are to share.
SPEAR = ["spear", "--set", "method.base=grpo", *PLAIN]
SPEAR += ["--set", "method.tool_reward=0.01", "--set", "method.tool_cap=0.1"]
# The share of tokens that its published scripts effectively hold back, and the README's 0.02.
SPARING = "SPEAR, Clip-Cov 0.0002"
# At temperature 1 the bundled model wins nearly every training task, and groups have no signal; the
# simulator sets the pace, and half the tasks a step keep a cell within minutes.
HOT = ["--set", "policy.sampling.temperature=1.5", "--set", "rollout.tasks_per_step=4"]
COMPARISONS: dict[str, dict[str, list[str] | None]] = {
    "alfworld": {UNTRAINED: None, BASE: ["grpo"], "EPO": ["epo"], "EMPG": ["empg"]},
    "scienceworld": {UNTRAINED: None, BASE: ["grpo", *HOT], "EPO": ["epo", *HOT]},
    "webshop": {
        UNTRAINED: None,
        BASE: ["grpo", *PLAIN],
        "SPEAR": SPEAR,
        SPARING: [*SPEAR, "--set", "method.clip_cov_ratio=0.0002"],
    },
    "search": {UNTRAINED: None, BASE: ["grpo"], "IGPO": ["igpo"], "AEPO": ["aepo"]},
}
"""By environment and arm: what follows ``--method``; nothing is told of what is not trained."""

SUITES = {
    "alfworld": "alfworld/gen-unseen",
    "scienceworld": "scienceworld/short-panel-test",
    "webshop": "webshop/gen-easy-test",
    "search": "search/gen-easy-test",
}
"""The held-out tasks by environment; each cell plays all of them."""
METRICS = {
    "reward/mean": "reward",
    "episode/success_rate": "success",
    "actor/entropy": "entropy (nats a token)",
}
SEEDS = (0, 1, 2)
HERE = Path(__file__).parent
BEGIN, END = "<!-- written by curves.py: begin -->", "<!-- written by curves.py: end -->"

Arms = dict[str, list[Cell]]


def main() -> None:
    """Run what is not done, or write down what is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/curves"))
    parser.add_argument("--env", choices=COMPARISONS, action="append", help="only these")
    parser.add_argument("--seeds", type=int, choices=SEEDS, nargs="+", default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--write", action="store_true", help="write curves.md and curves.png")
    options = parser.parse_args()
    if options.write:
        write({env: cells_by_arm(options.folder, env) for env in COMPARISONS})
        return
    cells = [
        cell
        for env in options.env or COMPARISONS
        for arm in cells_by_arm(options.folder, env).values()
        for cell in arm
        if cell.seed in options.seeds
    ]
    do_all(sorted(cells, key=lambda cell: cell.seed), options.jobs)


def cells_by_arm(folder: Path, env: str) -> Arms:
    """Return the cells of each arm of an environment's comparison."""
    return {
        arm: [
            Cell(
                name=arm,
                folder=folder / f"{env}-{_slug(arm)}-{seed}",
                env=env,
                arm=told and ["--steps", str(STEPS[env]), "--method", *told],
                suite=SUITES[env],
                seed=seed,
            )
            for seed in SEEDS
        ]
        for arm, told in COMPARISONS[env].items()
    }


def _slug(arm: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", arm.lower())


def write(comparisons: dict[str, Arms]) -> None:
    """Write the tables and the picture of all cells that are done."""
    path = HERE / "curves.md"
    before, _, rest = path.read_text().partition(BEGIN)
    tables = "\n\n".join(table(env, arms) for env, arms in comparisons.items())
    path.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.partition(END)[2]}")
    draw(comparisons)
    print(tables)


def table(env: str, arms: Arms) -> str:
    """Return the table of an environment."""
    rows = [row(name, arms) for name, cells in arms.items() if any(c.is_done for c in cells)]
    head = ["arm", "seeds", "minutes", "success of each", "mean", "rise"]
    head += ["95 % interval of the rise", "above GRPO", "95 % interval of that"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    found = ["\n".join([*lines, *rows])] if rows else []
    unfinished = missing([cell for cells in arms.values() for cell in cells])
    return "\n\n".join(part for part in (f"## {SUITES[env]}", *found, unfinished) if part)


def row(name: str, arms: Arms) -> str:
    """Return an arm's line of the table."""
    cells = arms[name]
    rates = [cell.success for cell in cells if cell.is_done]
    each = ", ".join(f"{rate:.3f}" for rate in rates)
    above = [] if name == UNTRAINED else difference(cells, arms[UNTRAINED])
    beside = [] if name in (UNTRAINED, BASE) else difference(cells, arms[BASE])
    took = [] if name == UNTRAINED else [f"{cell.minutes:.0f}" for cell in cells if cell.is_done]
    columns = [name, str(len(rates)), ", ".join(took), each, f"{fmean(rates):.3f}"]
    columns += above or ["", ""]
    return f"| {' | '.join([*columns, *(beside or ['', ''])])} |"


def difference(cells: Sequence[Cell], base: Sequence[Cell]) -> list[str]:
    """Return the mean difference of cells with the same seed, and its interval."""
    found = rises(cells, base)
    return [f"{fmean(found):+.3f}", interval(found)] if found else []


def draw(comparisons: dict[str, Arms]) -> None:
    """Draw each metric of training by step: a row an environment, a line an arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = {
        env: arms
        for env, arms in comparisons.items()
        if any(cell.is_done and cell.run.exists() for cells in arms.values() for cell in cells)
    }
    figure = pyplot.figure(figsize=(12, 3 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), len(METRICS), squeeze=False)
    for line, (env, arms) in zip(grid, shown.items(), strict=True):
        for axes, (metric, label) in zip(line, METRICS.items(), strict=True):
            for arm, cells in arms.items():
                draw_curves(axes, arm, cells, metric)
            axes.set(title=env, xlabel="step", ylabel=label)
        line[-1].legend(title="arm (seeds)", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(HERE / "curves.png", dpi=100)


if __name__ == "__main__":
    main()
