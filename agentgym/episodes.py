"""What an evaluation knows of each episode, and the statistics over them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from agentgym.errors import UsageError
from agentgym.types import Stop, Suite, Trajectory, Usage


@dataclass(frozen=True, slots=True)
class Episode:
    """How one episode of an evaluation went."""

    task: str
    sample: int  # 0 at the first of a task
    task_type: str
    won: bool
    score: float  # the benchmark's own, in [0, 1]; 0 where stop is error
    turns: int
    parsed: int  # turns whose text followed the action format
    admissible: int  # turns whose action the environment knew
    stop: Stop
    error: str | None  # why, where stop is error
    faults: int  # outside faults that were healed
    shown: str | None = None  # digest of goal and first observation; None before the first turn
    usage: Usage | None = None  # what an endpoint counted


def episode_of(trajectory: Trajectory) -> Episode:
    """Return what an evaluation keeps of a trajectory; its member is the sample."""
    turns = trajectory.turns
    return Episode(
        task=trajectory.key.task,
        sample=trajectory.key.member,
        task_type=trajectory.task_type,
        won=trajectory.won,
        score=trajectory.score,
        turns=len(turns),
        parsed=sum(turn.parse_error is None for turn in turns),
        admissible=sum(turn.admissible for turn in turns),
        stop=trajectory.stop,
        error=trajectory.error,
        faults=trajectory.faults,
        shown=_shown(trajectory.goal, turns[0].observation) if turns else None,
        usage=trajectory.usage,
    )


def _shown(goal: str, observation: str) -> str:
    return hashlib.sha256(f"{goal}\n{observation}".encode()).hexdigest()[:16]


def data_digest(episodes: Iterable[Episode]) -> str:
    """Return SHA-256 over what the tasks showed at first, in hexadecimal.

    A suite's digest is of the names of its tasks; this is of what stood behind the names: the same
    whatever was played, and another one when the data or what is made of it has changed.
    """
    shown = {episode.task: episode.shown for episode in episodes if episode.shown is not None}
    lines = (f"{task} {shown[task]}" for task in sorted(shown))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Rate:
    """A success rate with its 95 % interval.

    ``low`` and ``high`` are Wilson's, with the number of *tasks* as the number of trials: several
    samples of one task are not independent, and counting them as if they were would make the
    interval too narrow. With one sample a task it is the usual interval.
    """

    value: float  # won / episodes
    low: float
    high: float
    won: int
    episodes: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The statistics of an evaluation.

    An episode that a fault ended counts in every denominator: it is not won and scores 0.
    """

    success: Rate
    by_type: Mapping[str, Rate]  # sorted by type
    score: float  # mean over episodes
    score_by_type: Mapping[str, float]
    turns: float  # mean over episodes
    parsed_rate: float | None  # over all turns; None when there was no turn
    admissible_rate: float | None  # likewise
    # pass@k by k, 1 and the powers of two up to the samples and the samples themselves: the chance
    # that at least one of k samples solves a task, mean over tasks. avg@k is success.value.
    pass_at: Mapping[int, float]
    stops: Mapping[str, int]  # episodes by why they ended
    errors: Mapping[str, int]  # episodes by the fault that ended them
    faults: int  # outside faults that were healed
    usage: Usage | None = None  # of an endpoint, over all episodes


def wilson(rate: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion.

    Args:
        rate: The observed proportion, in [0, 1].
        trials: How many independent trials it was observed in, at least 1.
        confidence: Of the two-sided interval.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927).
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def summarise(episodes: Sequence[Episode]) -> Summary:
    """Return the statistics of an evaluation.

    Raises:
        UsageError: There are no episodes.
    """
    if not episodes:
        raise UsageError("there are no episodes to summarise; evaluate at least one task")
    turns = sum(episode.turns for episode in episodes)
    types = sorted({episode.task_type for episode in episodes})
    return Summary(
        success=_rate(episodes),
        by_type={kind: _rate([e for e in episodes if e.task_type == kind]) for kind in types},
        score=fmean(episode.score for episode in episodes),
        score_by_type={
            kind: fmean(e.score for e in episodes if e.task_type == kind) for kind in types
        },
        turns=turns / len(episodes),
        parsed_rate=sum(e.parsed for e in episodes) / turns if turns else None,
        admissible_rate=sum(e.admissible for e in episodes) / turns if turns else None,
        pass_at=_pass_at(episodes),
        stops=_count(episode.stop for episode in episodes),
        errors=_count(episode.error for episode in episodes if episode.error is not None),
        faults=sum(episode.faults for episode in episodes),
        usage=sum_usage([e.usage for e in episodes if e.usage is not None]),
    )


def pass_at_k(won: int, samples: int, k: int) -> float:
    """Return the chance that k samples, drawn from these without replacement, hold a won one.

    Source: Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374.
    """
    return 1.0 - math.comb(samples - won, k) / math.comb(samples, k)


def _pass_at(episodes: Sequence[Episode]) -> dict[int, float]:
    wins: dict[str, list[bool]] = {}
    for episode in episodes:
        wins.setdefault(episode.task, []).append(episode.won)
    least = min(map(len, wins.values()))  # tasks all have the same number of samples
    ks = {k for k in (2**n for n in range(least.bit_length())) if k <= least} | {least}
    return {k: fmean(pass_at_k(sum(won), len(won), k) for won in wins.values()) for k in sorted(ks)}


def sum_usage(parts: Sequence[Usage]) -> Usage | None:
    """Return the sum of what was counted; None of nothing.

    The cost is None unless all parts have one: a sum that left some out would be too low.
    """
    if not parts:
        return None
    costs = [part.cost for part in parts]
    return Usage(
        requests=sum(part.requests for part in parts),
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        cached_tokens=sum(part.cached_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
        reasoning_tokens=sum(part.reasoning_tokens for part in parts),
        cost=math.fsum(cost for cost in costs if cost is not None) if None not in costs else None,
    )


def unpublished_note(suite: Suite) -> str | None:
    """Return what must stand beside results on a suite; None if it is a published test set."""
    if suite.official:
        return None
    return (
        f"{suite.name} ({suite.about}) is not a published test set; results on it do not compare"
        " with published numbers"
    )


def _rate(episodes: Sequence[Episode]) -> Rate:
    won = sum(episode.won for episode in episodes)
    tasks = len({episode.task for episode in episodes})
    value = won / len(episodes)
    low, high = wilson(value, tasks)
    return Rate(value, low, high, won, len(episodes), tasks)


def _count(names: Iterable[str]) -> dict[str, int]:
    """Count names, the most frequent first, then by name."""
    return dict(sorted(Counter(map(str, names)).items(), key=lambda item: (-item[1], item[0])))
