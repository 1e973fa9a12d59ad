"""The standard curves of a run: which metrics stand in one picture, and how seeds become a band."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import fmean, stdev
from typing import Any, Literal

from agentgym.run_files import Run, flat, metric_names, series

Band = Literal["range", "sd", "none"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: metrics that share an axis.

    ``names`` may hold patterns with ``*``. A ``heat`` panel has a row for each of the metrics that
    its one pattern finds, in the order of the number at their end.
    """

    title: str
    names: tuple[str, ...]
    unit: str = ""
    low: float | None = None  # where the axis begins; None lets the data say
    high: float | None = None
    heat: bool = False


PANELS = (
    Panel("Success", ("episode/success_rate", "eval/*/success_rate"), "share of episodes", 0, 1),
    Panel("Reward", ("reward/mean",), "return of an episode"),
    Panel("Success by task type", ("episode/*/success_rate",), "share of episodes", 0, 1),
    Panel("Entropy", ("actor/entropy",), "nats a token", 0),
    Panel("Entropy by turn", ("actor/entropy_turn_*",), "nats a token", heat=True),
    Panel("KL", ("actor/ppo_kl", "actor/ref_kl"), "nats a token"),
    Panel("Turns", ("episode/turns",), "turns an episode", 0),
    Panel("Response length", ("response_length/mean",), "tokens a turn", 0),
    Panel(
        "Actions", ("episode/valid_action_rate", "episode/admissible_rate"), "share of turns", 0, 1
    ),
    Panel("Groups without signal", ("group/frac_zero_std",), "share of groups", 0, 1),
    Panel("Clipped tokens", ("actor/clip_frac",), "share of tokens", 0),
    Panel("Gradient", ("optim/grad_norm",), "norm before clipping", 0),
    Panel("Trainer against sampler", ("rollout/logprob_abs_diff",), "nats a token", 0),
    Panel(
        "Time",
        (
            "time/generate",
            "time/env",
            "time/score",
            "time/answers",
            "time/update",
            "time/sync",
            "time/eval",
        ),
        "seconds a step",
        0,
    ),
    Panel("Throughput", ("perf/tokens_per_s",), "tokens a second", 0),
)
"""In the order in which they are shown."""


ONE_UPDATE = ("actor/ppo_kl", "actor/clip_frac")
"""Exactly 0 in a step that makes one update, and then not shown."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A mean over runs and how far they lie apart; one entry a step that any of them has."""

    step: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def found(panel: Panel, names: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics of a panel that are there, in the panel's order."""
    picked = dict.fromkeys(
        name for pattern in panel.names for name in names if fnmatchcase(name, pattern)
    )
    return tuple(sorted(picked, key=_number) if panel.heat else picked)


def panels_of(runs: Sequence[Run]) -> list[tuple[Panel, tuple[str, ...]]]:
    """Return the panels that have anything to show, each with its metrics."""
    still = {n for n in ONE_UPDATE if not any(v for run in runs for _, v in series(run.steps, n))}
    names = sorted({name for run in runs for name in metric_names(run.steps)} - still)
    shown = ((panel, found(panel, names)) for panel in PANELS)
    return [(panel, metrics) for panel, metrics in shown if metrics]


def label(name: str) -> str:
    """Return a metric's name as people read it in a panel."""
    if name.startswith("eval/"):
        return f"held out, {'/'.join(name.split('/')[1:-1])}"
    known = {"episode/success_rate": "training", "actor/ppo_kl": "to the sampler (ppo_kl)"}
    if name in known:
        return known[name]
    typed = re.fullmatch(r"episode/(.+)/success_rate", name)
    return typed[1].replace("_", " ") if typed else name.rpartition("/")[2].replace("_", " ")


def curve(runs: Sequence[Run], name: str, band: Band, smooth: int = 1) -> Curve:
    """Return the mean of a metric over runs that differ in their seed.

    Args:
        runs: At least one.
        name: The metric.
        band: ``range`` from the lowest run to the highest; ``sd`` one standard deviation of the
            runs (ddof 1) to each side; ``none``.
        smooth: Each run is first averaged over so many of its values, this one and those before.
    """
    values: dict[float, list[float]] = {}
    for run in runs:
        for step, value in _smoothed(series(run.steps, name), smooth):
            values.setdefault(step, []).append(value)
    steps = sorted(values)
    means = [fmean(values[step]) for step in steps]
    bounds = [_bounds(values[s], mean, band) for s, mean in zip(steps, means, strict=True)]
    return Curve(
        tuple(steps),
        tuple(means),
        tuple(low for low, _ in bounds),
        tuple(high for _, high in bounds),
    )


def by_seed(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs that differ in nothing but their seed; the keys are short names of the groups.

    A run whose configuration cannot be read stands alone.
    """
    groups: dict[str, list[Run]] = {}
    for number, run in enumerate(runs):
        key = repr(sorted(_settings(run).items())) if run.config else f"alone {number}"
        groups.setdefault(key, []).append(run)
    members = list(groups.values())
    return dict(zip(_names(members), members, strict=True))


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Return a name for each group: its method, and what else sets it apart from the others."""
    if len(groups) == 1:
        return [groups[0][0].title.partition(", seed")[0]]
    flats = [_settings(group[0]) for group in groups]
    keys = sorted({key for flat in flats for key in flat})
    apart = [key for key in keys if len({str(flat.get(key)) for flat in flats}) > 1]
    others = [key for key in apart if key != "method.name"][:3]
    names: list[str] = []
    for group, told in zip(groups, flats, strict=True):
        method = str(told.get("method.name", group[0].name if not told else "grpo"))
        same = [one for one in flats if one.get("method.name") == told.get("method.name")]
        said = ", ".join(f"{key} {told[key]}" for key in others if key in told)
        name = f"{method}, {said}" if len(same) > 1 and said else method
        names.append(name if name not in names else f"{name} ({group[0].name})")
    return names


def _settings(run: Run) -> dict[str, Any]:
    """Return what a run was told by dotted names, without the seed."""
    return {name: value for name, value in flat(run.config).items() if name != "seed"}


def _smoothed(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    values = [value for _, value in points]
    return [
        (step, fmean(values[max(0, i - width + 1) : i + 1])) for i, (step, _) in enumerate(points)
    ]


def _bounds(values: Sequence[float], mean: float, band: Band) -> tuple[float, float]:
    if band == "none" or len(values) < 2:
        return mean, mean
    if band == "range":
        return min(values), max(values)
    spread = stdev(values)
    return mean - spread, mean + spread


def _number(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else -1
