"""Two evaluations of the same tasks, paired by task.

What both find hard or easy cancels out, so that a difference shows with far fewer tasks than two
intervals that do not overlap would need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from agentgym.episodes import Episode
from agentgym.errors import UsageError
from agentgym.results import EvalProtocol, Evaluation
from agentgym.run_files import flat

_SAME = (
    "env",
    "options",
    "suite",
    "digest",
    "task_types",
    "tasks",
    "samples",
    "max_turns",
)
_NOTED = ("agentgym", "commit", "versions", "seed", "prompt", "tokenizer", "sampling")
_RESAMPLES = 10_000
_AT_ONCE = 2_000_000  # entries of one draw


@dataclass(frozen=True, slots=True)
class Difference:
    """A quantity in both evaluations; ``low`` and ``high`` bound the difference with 95 %."""

    kind: str  # of task, or "all"
    tasks: int
    first: float
    second: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The second less the first."""
        return self.second - self.first


@dataclass(frozen=True, slots=True)
class Flip:
    """A task that one of the two solved more often."""

    task: str
    first: int  # samples won
    second: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two evaluations differ in."""

    success: tuple[Difference, ...]  # by task type where there are several, then all
    score: Difference
    flips: tuple[Flip, ...]  # in the suite's order
    notes: tuple[str, ...]  # what else differs, beside the policy


def compare(first: Evaluation, second: Evaluation, seed: int = 0) -> Comparison:
    """Compare two evaluations task by task.

    Intervals are of a paired bootstrap: tasks are drawn with replacement, both results of a task
    together, 10,000 times; the interval leaves 2.5 % of the differences out on either side.

    Args:
        first: The one to compare with.
        second: The one whose change is wanted.
        seed: Of the bootstrap.

    Raises:
        UsageError: They are not of the same tasks under the same rules; the message says where
            they differ.
    """
    refuse_unlike(first, second)
    ours, theirs = _by_task(first.episodes), _by_task(second.episodes)
    kinds = {task: episodes[0].task_type for task, episodes in ours.items()}

    def difference(kind: str, quantity: Callable[[Episode], float]) -> Difference:
        tasks = [task for task in ours if kind in ("all", kinds[task])]
        pairs = [
            (fmean(map(quantity, ours[task])), fmean(map(quantity, theirs[task]))) for task in tasks
        ]
        low, high = paired_bootstrap([b - a for a, b in pairs], seed)
        a, b = (fmean(side) for side in zip(*pairs, strict=True))
        return Difference(kind, len(tasks), a, b, low, high)

    several = sorted(set(kinds.values())) if len(set(kinds.values())) > 1 else []
    return Comparison(
        success=tuple(difference(kind, lambda e: float(e.won)) for kind in (*several, "all")),
        score=difference("all", lambda e: e.score),
        flips=tuple(
            Flip(task, a, b)
            for task in ours
            if (a := sum(e.won for e in ours[task])) != (b := sum(e.won for e in theirs[task]))
        ),
        notes=_notes(first.protocol, second.protocol),
    )


def refuse_unlike(first: Evaluation, second: Evaluation) -> None:
    """Refuse two evaluations whose tasks or rules differ.

    Raises:
        UsageError: They do; the message says where.
    """
    for name in _SAME:
        a, b = getattr(first.protocol, name), getattr(second.protocol, name)
        if a != b:
            raise UsageError(
                f"these evaluations do not compare: {name} is {a!r} in the first and {b!r} in the"
                " second; evaluate both alike"
            )
    for a, b in zip(first.episodes, second.episodes, strict=True):
        if (a.task, a.sample) != (b.task, b.sample):
            raise UsageError(
                f"these evaluations do not compare: the first played {a.task} where the second"
                f" played {b.task}"
            )
        if None not in (a.shown, b.shown) and a.shown != b.shown:
            raise UsageError(
                f"these evaluations do not compare: task {a.task} showed something else in each;"
                " the data behind the suite, or the seed, is not the same"
            )


def paired_bootstrap(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean of the tasks' differences."""
    import numpy as np

    d = np.asarray(differences, dtype=np.float64)
    draw = np.random.default_rng(seed)
    part = max(1, _AT_ONCE // len(d))
    sizes = [min(part, _RESAMPLES - done) for done in range(0, _RESAMPLES, part)]
    means = [d[draw.integers(len(d), size=(size, len(d)))].mean(axis=1) for size in sizes]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def _by_task(episodes: Sequence[Episode]) -> dict[str, list[Episode]]:
    tasks: dict[str, list[Episode]] = {}
    for episode in episodes:
        tasks.setdefault(episode.task, []).append(episode)
    return tasks


def _notes(first: EvalProtocol, second: EvalProtocol) -> tuple[str, ...]:
    """Say what differs of what both have; a policy without a model has no prompt, for one."""
    a, b = (flat(asdict(protocol)) for protocol in (first, second))
    return tuple(
        f"{name} is {a[name]} in the first and {b[name]} in the second"
        for name in a
        if name.partition(".")[0] in _NOTED
        and None not in (a[name], b.get(name))
        and a[name] != b[name]
    )
