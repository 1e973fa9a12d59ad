"""The held-out panels under chance, the expert and the models that come with the package.

    python benchmarks/panels.py            # what is not there yet; below runs/panels
    python benchmarks/panels.py --write    # and write panels.md beside this file

Each cell is one ``agentgym eval`` into a folder of its own, so a run that was interrupted goes on
where it was; what another version of a model played is refused by name. Each plays every task.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cells import env_words, recipe_of

from agentgym.console import markdown_table
from agentgym.models import folder_digest
from agentgym.policies.bundled import resolve_model
from agentgym.results import Evaluation, read_results

PANELS = {
    "alfworld/gen-unseen": "alfworld-tiny",
    "alfworld/gen-seen": "alfworld-tiny",
    "webshop/gen-test": "webshop-tiny",
    "webshop/gen-easy-test": "webshop-tiny",
    "search/gen-test": "search-tiny",
    "search/gen-easy-test": "search-tiny",
    "scienceworld/short-panel-test": "scienceworld-tiny",
    "corridor/test": None,
}
WORKERS = {"scienceworld": 1}
NOTES = """\
Success with Wilson's 95 % interval, at temperature 0.4 for models, seed 0, each task once. No panel
here is a published test set; the numbers do not compare with published ones. The models are those
that `agentgym train` begins with on a laptop: they were cloned from demonstrations of the training
suites, and are where a run starts, not where it ends. They play with the options and the limit on
turns of the laptop recipes, chance and expert with the environment's own.
"""


def cells() -> Iterator[tuple[str, str, list[str]]]:
    """Yield panel, who plays, and the words of the command that evaluates it."""
    for suite, model in PANELS.items():
        env = suite.partition("/")[0]
        workers = ["--workers", str(WORKERS.get(env, 0))]
        for policy in ("random", "expert"):
            yield suite, policy, ["--policy", policy, *workers]
        if model is not None:
            yield suite, model, ["--model", model, *env_words(recipe_of(env)), *workers]


def main() -> None:
    """Evaluate what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/panels"))
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    rows, last = [], None
    for suite, who, words in cells():
        folder = asked.out / suite.replace("/", "-") / who
        if not (folder / "results.json").exists():  # of whichever version: the table says it
            command = [sys.executable, "-m", "agentgym", "eval", "--suite", suite, *words]
            subprocess.run([*command, "-o", str(folder)], check=True)
        last = read_results(folder)
        refuse_another_model(folder, who, last)
        rows.append(row(suite, who, last))
    columns = ("panel", "policy", "options", "at most", "tasks", "success", "95 % interval",
               "score", "turns", "valid", "admissible", "ended by")  # fmt: skip
    table = "\n".join(markdown_table(columns, rows))
    print(table)
    if asked.write and last is not None:
        text = f"# Held-out panels\n\n{NOTES}\n```\npython benchmarks/panels.py --write\n```\n\n"
        text += f"{table}\n\nRecorded with agentgym {last.protocol.agentgym}.\n"
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


def refuse_another_model(folder: Path, who: str, evaluation: Evaluation) -> None:
    """Refuse what weights played that the model of that name has no more."""
    played, present = evaluation.protocol.weights, None
    if who in PANELS.values():
        present = folder_digest(resolve_model(who))
    if played != present:
        raise SystemExit(
            f"{folder} was played by weights {played}, and {who} has {present} now; remove it, and"
            " it is played again"
        )


def row(suite: str, who: str, evaluation: Evaluation) -> tuple[str, ...]:
    """Return a line of the table."""
    summary = evaluation.summary
    rate = summary.success
    parsed = "" if evaluation.protocol.sampling is None else f"{summary.parsed_rate:.3f}"
    stops = ", ".join(f"{stop} {count}" for stop, count in summary.stops.items())
    return (
        suite,
        who,
        ", ".join(f"{name}={value}" for name, value in evaluation.protocol.options.items()),
        f"{evaluation.protocol.max_turns} turns",
        str(rate.tasks),
        f"{rate.value:.3f}",
        f"{rate.low:.3f}-{rate.high:.3f}",
        f"{summary.score:.3f}",
        f"{summary.turns:.1f}",
        parsed,
        "" if summary.admissible_rate is None else f"{summary.admissible_rate:.3f}",
        stops,
    )


if __name__ == "__main__":
    main()
