"""Watches the metrics of a run for the ways in which agents' training is known to collapse.

Each detector compares a metric with what it was in the run's first steps, or with a bound, and
alarms once, when it has been wrong for some steps in a row. What it knows is a function of the
metrics alone, so a resumed run takes it from the steps that were written and nothing else is
saved. A guard that does not alarm, or only warns, touches nothing that is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Metrics = Mapping[str, float]


class GuardOptions(BaseModel):
    """What is taken for a collapse, and what is done then.

    Factors and drops are against the mean of the first ``baseline`` steps. 0 turns a detector off.

    Attributes:
        on_collapse: ``warn`` says it; the others too, and ``save`` saves a checkpoint, ``lower-lr``
            multiplies the policy's learning rate by ``lr_factor`` from the next step on, once
            however many detectors alarm in a step, ``stop`` saves and ends the run.
        baseline: Steps that tell what is usual.
        patience: Steps in a row that must be wrong.
        entropy_low: Entropy may fall to so much of what it was,
        entropy_high: and rise to so much.
        length_factor: Responses may become so many times longer, or shorter.
        valid_drop: So much may the share of turns that follow the action format fall,
        admissible_drop: and that of actions which the environment knows.
        repeated_rise: So much may the share of turns that repeat the action before rise.
        no_signal: Largest share of groups whose returns are all the same.
        drift: Largest mean difference of log-probabilities, sampler against trainer, in nats.
        lr_factor: See ``lower-lr``.
        stall_after: Seconds without any advance after which the stage is named; 0 never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    on_collapse: Literal["warn", "save", "lower-lr", "stop"] = "warn"
    baseline: int = Field(default=5, ge=1)
    patience: int = Field(default=3, ge=1)
    entropy_low: float = Field(default=0.1, ge=0, lt=1)
    entropy_high: float = Field(default=3.0, ge=0)
    length_factor: float = Field(default=3.0, ge=0)
    valid_drop: float = Field(default=0.3, ge=0, lt=1)
    admissible_drop: float = Field(default=0.3, ge=0, lt=1)
    repeated_rise: float = Field(default=0.3, ge=0, lt=1)
    no_signal: float = Field(default=0.99, ge=0, lt=1)
    drift: float = Field(default=0.1, ge=0)
    lr_factor: float = Field(default=0.5, gt=0, lt=1)
    stall_after: float = Field(default=600.0, ge=0)

    @field_validator("entropy_high", "length_factor")
    @classmethod
    def _off_or_above_one(cls, factor: float) -> float:
        if 0 < factor <= 1:
            raise ValueError("expected a factor above 1, or 0 for none")
        return factor


@dataclass(frozen=True, slots=True)
class Detector:
    """Finds one way to collapse.

    ``bounds`` returns the lowest and the highest value that is still good, given what was usual;
    ``compared`` tells whether it needs to know that.
    """

    name: str
    metric: str
    about: str
    bounds: Callable[[float], tuple[float, float]]
    compared: bool = True


Table = tuple[tuple[float, Detector], ...]
"""Detectors, each after the setting that turns it on: 0 is off."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A collapse that was found."""

    detector: Detector
    step: int
    value: float
    low: float
    high: float
    usual: float | None  # in the first steps; None where it is not compared with them

    @property
    def written(self) -> str:
        """The metric that tells of it."""
        return f"guard/{self.detector.name}"

    def __str__(self) -> str:
        bound = f"below {self.low:.4g}" if self.value < self.low else f"above {self.high:.4g}"
        was = "" if self.usual is None else f"; it was {self.usual:.4g} in the first steps"
        return (
            f"step {self.step}: {self.detector.about}: {self.detector.metric} is"
            f" {self.value:.4g}, {bound}{was}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a step's metrics ask for."""

    alarms: Sequence[Alarm] = ()
    save: bool = False
    stop: bool = False

    @property
    def metrics(self) -> dict[str, float]:
        """What is written into the step's metrics; nothing where nothing alarmed."""
        return {alarm.written: 1.0 for alarm in self.alarms}


@dataclass
class _Watch:
    """What is known of one detector's metric so far."""

    detector: Detector
    first: list[float] = field(default_factory=list)
    wrong: int = 0  # steps in a row
    alarmed: bool = False

    def see(self, metrics: Metrics, options: GuardOptions) -> Alarm | None:
        value = metrics.get(self.detector.metric, math.nan)
        if self.alarmed or math.isnan(value):
            return None
        if self.detector.compared and len(self.first) < options.baseline:
            self.first.append(value)
            return None
        usual = fmean(self.first) if self.first else None
        low, high = self.detector.bounds(0.0 if usual is None else usual)
        self.wrong = 0 if low <= value <= high else self.wrong + 1
        if self.wrong < options.patience:
            return None
        self.alarmed = True
        return Alarm(self.detector, int(metrics["step"]), value, low, high, usual)


class Guard:
    """Sees the metrics of each step, once and in order.

    Args:
        options: What is watched, and what is done.
        say: Told each alarm, in one line.
        scale_rate: Takes what the learning rate is multiplied by from the next step on.
        past: Metrics of the steps that a resumed run has behind it; their alarms are not said
            again, and what they did to the learning rate is done again. What no metric tells of
            did nothing: the detector, or its bound, is newer than the step.
    """

    def __init__(
        self,
        options: GuardOptions,
        say: Callable[[str], None] = lambda _: None,
        scale_rate: Callable[[float], None] = lambda _: None,
        past: Iterable[Metrics] = (),
    ) -> None:
        self._options, self._say, self._scale_rate = options, say, scale_rate
        self._watches = [_Watch(detector) for detector in detectors(options)]
        self._collapses = 0  # steps that alarmed
        for metrics in past:
            self._count([alarm for alarm in self._see(metrics) if alarm.written in metrics])

    def __call__(self, metrics: Metrics) -> Verdict:
        """Say what is wrong with a step, and return what is to be done."""
        alarms = self._see(metrics)
        self._count(alarms)
        for alarm in alarms:
            self._say(f"collapse? {alarm} (guard.on_collapse is {self._options.on_collapse})")
        action = self._options.on_collapse if alarms else "warn"
        return Verdict(tuple(alarms), action in ("save", "stop"), action == "stop")

    def _see(self, metrics: Metrics) -> list[Alarm]:
        seen = [watch.see(metrics, self._options) for watch in self._watches]
        return [alarm for alarm in seen if alarm is not None]

    def _count(self, alarms: Sequence[Alarm]) -> None:
        self._collapses += bool(alarms)  # one collapse may raise several: no format, no action
        if alarms and self._options.on_collapse == "lower-lr":
            self._scale_rate(self._options.lr_factor**self._collapses)


def detectors(options: GuardOptions) -> list[Detector]:
    """Return the detectors that are on."""
    return [
        detector for on, detector in (*_against_usual(options), *_against_bounds(options)) if on
    ]


def _against_usual(o: GuardOptions) -> Table:
    """Return what is compared with the first steps."""
    high = o.entropy_high or math.inf
    return (
        (
            o.entropy_low + o.entropy_high,
            Detector(
                "entropy",
                "actor/entropy",
                "entropy left its band",
                lambda usual: (o.entropy_low * usual, high * usual if usual else math.inf),
            ),
        ),
        (
            o.length_factor,
            Detector(
                "length",
                "response_length/mean",
                "the length of responses jumped",
                lambda usual: (usual / o.length_factor, usual * o.length_factor),
            ),
        ),
        (
            o.valid_drop,
            Detector(
                "valid",
                "episode/valid_action_rate",
                "fewer turns follow the action format",
                lambda usual: (usual - o.valid_drop, math.inf),
            ),
        ),
        (
            o.admissible_drop,
            Detector(
                "admissible",
                "episode/admissible_rate",
                "the environment knows fewer of the actions",
                lambda usual: (usual - o.admissible_drop, math.inf),
            ),
        ),
        (
            o.repeated_rise,
            Detector(
                "repeated",
                "episode/repeated_action_rate",
                "more turns repeat the action before",
                lambda usual: (-math.inf, usual + o.repeated_rise),
            ),
        ),
    )


def _against_bounds(o: GuardOptions) -> Table:
    """Return what has a bound of its own."""
    return (
        (
            o.no_signal,
            Detector(
                "signal",
                "group/frac_zero_std",
                "hardly any group has something to learn from: all its returns are the same",
                lambda _: (-math.inf, o.no_signal),
                compared=False,
            ),
        ),
        (
            o.drift,
            Detector(
                "drift",
                "rollout/logprob_abs_diff",
                "sampler and trainer drift apart",
                lambda _: (-math.inf, o.drift),
                compared=False,
            ),
        ),
    )
