"""The standard curves of runs as pictures for papers: PNG and SVG, seeds as bands."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from agentgym.curves import Band, Panel, by_seed, curve, label, panels_of
from agentgym.errors import UsageError
from agentgym.files import make_folder, write_atomic
from agentgym.run_files import Run, series

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's, which people who do not see all colours tell apart."""

_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (1, 4)), (0, (8, 2)))
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.framealpha": 0.7,
    "legend.edgecolor": "none",
    "legend.fontsize": 8,
    "svg.hashsalt": "agentgym",  # the same runs are the same file
    "svg.fonttype": "none",  # text stays text
}
_WIDE, _HIGH = 3.6, 2.6  # inches of one panel
_COLUMNS = 3
_FEW = 3  # names that a legend inside a panel may have
_BANDS = 4  # lines of a panel whose bands can be told apart


def plot(
    runs: Sequence[Run],
    out: Path,
    band: Band = "range",
    smooth: int = 1,
    only: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Draw the standard curves of runs.

    Runs that differ in nothing but their seed become one line, the mean, with a band. What is of
    one run at a time, the entropy by turn, is the first run's.

    Args:
        runs: At least one.
        out: Where to; the suffix is replaced by ``.png`` and ``.svg``.
        band: What the band is (see :func:`agentgym.curves.curve`).
        smooth: Over how many values each run is averaged first.
        only: Titles of the panels that are wanted; all when empty.

    Returns:
        The two files.

    Raises:
        UsageError: One is an evaluation, matplotlib is not installed, the runs have no metrics, or
            none of a panel's.
        DataError: The files cannot be written.
    """
    for run in runs:
        if run.is_evaluation:
            raise UsageError(f"{run.path} is an evaluation, which has no curves; expected a run")
    panels = _chosen(panels_of(runs), only)
    figures = _import("matplotlib.figure")
    make_folder(out.parent)
    with _import("matplotlib").rc_context(_STYLE):
        across = min(_COLUMNS, len(panels))
        down = math.ceil(len(panels) / across)
        figure = figures.Figure((_WIDE * across, _HIGH * down), layout="constrained")
        places = list(figure.subplots(down, across, squeeze=False).flat)
        groups = by_seed(runs)
        for axes, (panel, names) in zip(places, panels, strict=False):
            if panel.heat:
                has_it = (run for run in runs if any(series(run.steps, name) for name in names))
                _heat(figure, axes, panel, names, next(has_it), named=len(runs) > 1)
            else:
                _lines(axes, panel, names, groups, band, smooth)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        _name_groups(figure, groups, band, smooth)
        return _written(figure, out, "png"), _written(figure, out, "svg")


def _chosen(
    panels: list[tuple[Panel, tuple[str, ...]]], only: Sequence[str]
) -> list[tuple[Panel, tuple[str, ...]]]:
    if not panels:
        raise UsageError("the runs have no metrics to draw; give them a step first")
    titles = {panel.title.lower(): panel for panel, _ in panels}
    for title in only:
        if title.lower() not in titles:
            known = ", ".join(panel.title for panel, _ in panels)
            raise UsageError(f"the runs have no panel {title!r}; they have: {known}")
    wanted = {title.lower() for title in only} or set(titles)
    return [(panel, names) for panel, names in panels if panel.title.lower() in wanted]


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"drawing needs matplotlib ({error}); install it with: pip install 'agentgym[plot]'"
        ) from error


def _lines(
    axes: Any,
    panel: Panel,
    names: Sequence[str],
    groups: Mapping[str, Sequence[Run]],
    band: Band,
    smooth: int,
) -> None:
    """Draw a panel: colours tell groups apart, strokes the metrics; with one group, colours do."""
    named: set[str] = set()  # by the first group that has it
    for g, runs in enumerate(groups.values()):
        for n, name in enumerate(names):
            found = curve(runs, name, band, smooth)
            if not found.step:
                continue
            colour = COLOURS[(n if len(groups) == 1 else g) % len(COLOURS)]
            line = _LINES[(n if len(groups) > 1 else 0) % len(_LINES)]
            mark = "o" if len(found.step) < 12 else None
            axes.plot(found.step, found.mean, ls=line, color=colour, lw=1.5, marker=mark, ms=3,
                      label=None if name in named else label(name))  # fmt: skip
            named.add(name)
            if len(names) * len(groups) <= _BANDS:
                axes.fill_between(found.step, found.low, found.high, color=colour, alpha=0.2, lw=0)
    _frame(axes, panel)
    if len(names) > _FEW:  # below: no corner is free of so many lines
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    elif len(names) > 1:
        axes.legend()


def _tick(value: float, _: int) -> str:
    """Return a tick whole: a power of ten above the axis would run into the picture above."""
    return f"{value:.6g}"


def _frame(axes: Any, panel: Panel) -> None:
    axes.set(title=panel.title, xlabel="step", ylabel=panel.unit)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(_tick)
    if panel.low is not None and panel.high is not None:
        axes.set_ylim(panel.low - 0.02, panel.high + 0.02)
    elif panel.low is not None:
        axes.set_ylim(bottom=panel.low)


def _heat(
    figure: Any, axes: Any, panel: Panel, names: Sequence[str], run: Run, *, named: bool
) -> None:
    """Draw a map of one run, which is named where there are others."""
    columns = sorted({step for name in names for step, _ in series(run.steps, name)})
    rows = [dict(series(run.steps, name)) for name in names]
    cells = [[row.get(step, math.nan) for step in columns] for row in rows]
    edges = [step - 0.5 for step in columns] + [columns[-1] + 0.5]
    turns = [turn - 0.5 for turn in range(len(names) + 1)]
    drawn = axes.pcolormesh(edges, turns, cells, cmap="viridis", rasterized=True)
    figure.colorbar(drawn, ax=axes, label=panel.unit)
    axes.grid(visible=False)
    title = f"{panel.title}\n{run.title}" if named else panel.title
    axes.set(title=title, xlabel="step", ylabel="turn")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)


def _name_groups(figure: Any, groups: Mapping[str, Sequence[Run]], band: Band, smooth: int) -> None:
    """Say above all panels what was run, what the bands are, and over what was averaged."""
    many = max(map(len, groups.values()))
    bands = {"range": "lowest to highest seed", "sd": "one standard deviation of the seeds"}
    said = f"; band: {bands[band]}" if many > 1 and band in bands else ""
    said += f"; mean of {smooth} steps" if smooth > 1 else ""
    if len(groups) == 1:
        seeds = f", {many} seeds" if many > 1 else ""
        figure.suptitle(f"{next(iter(groups))}{seeds}{said}")
        return
    lines = _import("matplotlib.lines")
    handles = [
        lines.Line2D([], [], color=COLOURS[g % len(COLOURS)], lw=2,
                     label=f"{name} ({len(runs)} seeds)" if len(runs) > 1 else name)
        for g, (name, runs) in enumerate(groups.items())
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)),
                  title=said.removeprefix("; ") or None)  # fmt: skip


def _written(figure: Any, out: Path, kind: str) -> Path:
    path = out.with_suffix(f".{kind}")
    picture = io.BytesIO()
    dated = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(picture, format=kind, dpi=200, metadata=dated)
    write_atomic(path, picture.getvalue())
    return path
