"""Dr.BoT: GRPO with the tricks that proved useful, the base under SPEAR.

    A_i = R_i - mean_group R                       no division by the standard deviation (Dr. GRPO)
    L   = mean over trajectories of (sum over tokens of the surrogate) / constant        (Dr. GRPO)
    clip(r, 1 - 0.2, 1 + 0.28), no divergence from a reference                           (DAPO)
    left out: trajectories that are overlong, incomplete, repetitive or unreadable,
              and the quarter of the groups whose returns differ least                   (RAGEN)

"Learn the Ropes, Then Trust the Wins: Self-imitation with Progressive Exploration for Agentic
Reinforcement Learning", arXiv 2509.22601, where it is the bag of tricks that SPEAR stands on. With
``omega`` above 0 it is Dr.BoT on GiGPO, which the paper has too.

What a filter takes for bad, of a trajectory as a whole:

- ``overlong``: it ran out of context, or a turn has ``overlong_limit`` tokens
- ``incomplete``: a turn said no action
- ``repetitive``: ``ngram`` tokens stand in the same order ``ngram_times`` times in one turn
- ``unreadable``: a turn holds what is no text, as bytes that are no UTF-8

Departures: what is left out is left out of its group's mean too, where released code trains on the
rest against the mean of all. A group of which fewer than two stay goes; where no group would stay,
all do, so that a run goes on whose model cannot yet follow the format. Released code then draws a
power of two of rows at random, to suit its machines; here all stay. Its sum over tokens is divided
by the padded width and not by the number of trajectories.

``drbot:released`` counts each turn in a group's statistics and sums tokens by row; a row is a turn,
as in the scripts, with ``policy.context = "window(k)"``.

What to watch: ``drbot/incomplete`` and the other filters' shares of trajectories;
``rollout/left_out``, the episodes that nothing was learnt from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import pstdev
from typing import Any, ClassVar, Literal
from unicodedata import category

from pydantic import Field

from agentgym.trainers.aggregate import Aggregation
from agentgym.trainers.dapo import turn_lengths
from agentgym.trainers.gigpo import GiGPO, GiGPOOptions
from agentgym.trainers.method import Options
from agentgym.trainers.selection import Selection
from agentgym.types import Stop, Trajectory

Fault = Literal["overlong", "incomplete", "repetitive", "unreadable"]
FAULTS: tuple[Fault, ...] = ("overlong", "incomplete", "repetitive", "unreadable")


class DrBoTOptions(GiGPOOptions):
    """The settings of Dr.BoT."""

    omega: float = Field(
        0.0, ge=0, description="weight of the comparison of turns (paper, on GRPO: 0; on GiGPO: 1)"
    )
    clip_high: float = Field(0.28, ge=0, description="how far a ratio may rise (README: 0.28)")
    dual_clip: float = Field(
        math.inf,
        gt=1,
        description="bound where the advantage is negative (released code: inf, none)",
    )
    aggregation: Aggregation = Field(
        Aggregation.SEQ_MEAN_TOKEN_SUM_NORM,
        description="how token losses become one (README: seq-mean-token-sum-norm)",
    )
    sum_norm: int | None = Field(
        1024,
        gt=0,
        description="its constant, in tokens; best what a trajectory may sample at most"
        " (Dr. GRPO: the budget)",
    )
    filters: tuple[Fault, ...] = Field(
        FAULTS, description="which faults cost a trajectory its place (README: all four)"
    )
    overlong_limit: int | None = Field(
        None,
        gt=0,
        description="tokens from which a turn is overlong; best the most it may sample"
        " (README: a filter; the number is ours)",
    )
    ngram: int = Field(20, ge=1, description="tokens of what is repeated (released code)")
    ngram_times: int = Field(10, ge=2, description="repetitions that are too many (released code)")
    keep_groups: float = Field(
        0.75, gt=0, le=1, description="share of the groups that stay, by deviation (README: 0.75)"
    )


class DrBoT(GiGPO):
    """The bag of tricks that SPEAR stands on."""

    name = "drbot"
    summary = "GRPO without its divisions, a higher upper clip, on sound trajectories and groups"
    paper = "arXiv 2509.22601"
    options_type: ClassVar[type[Options]] = DrBoTOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {"unit": "turn", "sequence": "row", "sum_norm": 512}
    }
    options: DrBoTOptions

    def __init__(self, options: DrBoTOptions, steps: int) -> None:
        super().__init__(options, steps)
        self._filtered: dict[str, float] = {}

    def select(self, selection: Selection, step: int) -> Selection:
        """Leave out faulty trajectories, then the groups whose returns differ least."""
        o = self.options
        found = [self._faults(trajectory) for trajectory in selection.trajectories]
        self._filtered = {
            f"drbot/{fault}": sum(fault in faults for faults in found) / max(1, len(found))
            for fault in o.filters
        }
        if any(found):
            sound = selection.keep([not faults for faults in found])
            sound = sound.keep_groups([len(group.trajectories) > 1 for group in sound.groups])
            selection = sound if sound.groups else selection
        stays = widest(selection.returns, o.keep_groups)
        return selection if all(stays) else selection.keep_groups(stays)

    def _faults(self, trajectory: Trajectory) -> set[Fault]:
        o = self.options
        return {fault for fault in o.filters if _has(trajectory, fault, o)}

    def metrics(self, step: int) -> dict[str, float]:
        """Return the share of trajectories with each fault, and what GiGPO says if it counts."""
        return self._filtered | (super().metrics(step) if self.options.omega else {})


def _has(trajectory: Trajectory, fault: Fault, options: DrBoTOptions) -> bool:
    if fault == "incomplete":
        return any(turn.parse_error is not None for turn in trajectory.turns)
    if fault == "unreadable":
        return any(unreadable(turn.text) for turn in trajectory.turns)
    if fault == "repetitive":
        ids_of_turn = turn_ids(trajectory)
        return any(repetitive(ids, options.ngram, options.ngram_times) for ids in ids_of_turn)
    limit = options.overlong_limit
    too_long = limit is not None and max(turn_lengths(trajectory), default=0) >= limit
    return too_long or trajectory.stop is Stop.TOKENS


def turn_ids(trajectory: Trajectory) -> list[list[int]]:
    """Return the tokens that were sampled in each turn."""
    found: list[list[int]] = [[] for _ in trajectory.turns]
    for row in trajectory.rows:
        for token, turn in zip(row.ids, row.turns, strict=True):
            if turn >= 0:
                found[turn].append(token)
    return found


def repetitive(ids: Sequence[int], ngram: int, times: int) -> bool:
    """Return whether some ``ngram`` tokens stand in the same order ``times`` times or more."""
    grams = zip(*(islice(ids, start, None) for start in range(ngram)), strict=False)
    return max(Counter(grams).values(), default=0) >= times


def unreadable(text: str) -> bool:
    """Return whether a text holds characters that stand for none: bytes, controls, private ones."""
    return any(
        one == "\ufffd" or (category(one) in ("Cc", "Cn", "Co", "Cs") and not one.isspace())
        for one in text
    )


def widest(return_GG: Sequence[Sequence[float]], share: float) -> list[bool]:
    """Return which groups stay: that share of them, at least one, whose returns differ most.

    Args:
        return_GG: The returns of each group; of equal deviations the first ones stay.
        share: Above 0 to 1.
    """
    count = max(1, int(share * len(return_GG)))
    order = sorted(range(len(return_GG)), key=lambda g: -pstdev(return_GG[g]))
    stays = set(order[:count])
    return [g in stays for g in range(len(return_GG))]
