"""How likely the gold answer is before each turn of the trajectories that were played.

The learner scores it, or the sampler; both have the weights that played. In a context that grows
a trajectory is one row with a prefix for each turn; in a rebuilt one each turn has a row.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from statistics import fmean

from agentgym.envs.base import TextEnv
from agentgym.errors import EnvFault, UsageError
from agentgym.policies.conversation import Script
from agentgym.policies.gold_answer import AnswerForm, WrittenAnswer
from agentgym.rollout import env_seed
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain, Need
from agentgym.trainers.prefix_copies import PrefixCopies
from agentgym.trainers.ranks import Ranks
from agentgym.types import Group, Policy, Row, Snapshot, Trajectory
from agentgym.workers import Worker, WorkerPool

Score = Callable[[Sequence[PrefixCopies]], Sequence[Sequence[float]]]
"""Returns the mean log-probability of each row's answers after their prefixes, in nats."""

Answers = Callable[[Sequence[Trajectory], WorkerPool, str], Sequence[Sequence[str | None]]]
"""Returns the answer of each trajectory before each of its turns, or None where there is none.

It is given where the episodes were played, and where their environments' seeds came from, too.
"""

LOST = ""
"""The plan of an expert that has no action to begin with."""


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """Scores gold answers: a trajectory comes back with :attr:`Trajectory.answer_logprobs`."""

    form: AnswerForm
    score: Score
    answers: Answers
    room: int  # tokens of a prompt and an answer together; what is longer is not scored

    def __call__(self, groups: Sequence[Group], pool: WorkerPool, seed: str) -> list[Group]:
        """Return the groups with the score of the answer before each turn, NaN without one.

        Args:
            groups: What was played.
            pool: Where.
            seed: Where the environments of these episodes had their seeds from.
        """
        trajectories = [t for group in groups for t in group.trajectories]
        asked: list[PrefixCopies] = []
        places: list[list[tuple[int, int]]] = []  # the trajectory and turn of each prefix
        for n, answers in enumerate(self.answers(trajectories, pool, seed)):
            tails = [None if one is None else self.form.write(one) for one in answers]
            for copies, turns in prefix_copies(trajectories[n], tails, self.room):
                asked.append(copies)
                places.append([(n, turn) for turn in turns])
        found = [[math.nan] * len(t.turns) for t in trajectories]
        for where, scores in zip(places, self.score(asked), strict=True):
            for (n, turn), value in zip(where, scores, strict=True):
                found[n][turn] = value
        scored = iter(
            replace(t, answer_logprobs=tuple(s)) for t, s in zip(trajectories, found, strict=True)
        )
        return [Group(g.task, tuple(next(scored) for _ in g.trajectories)) for g in groups]


def answer_scorer(
    method: Chain, script: Script, learner: Learner, policy: Policy, *, by_first: bool = False
) -> AnswerScorer | None:
    """Return what scores answers as a method wants it; None where it needs none.

    On many processes each one does its share, and all know the scores.

    Args:
        method: Says whether and how.
        script: What the model is told.
        learner: Scores answers, unless the sampler shall.
        policy: The sampler.
        by_first: Whether the sampler is the first process's alone.

    Raises:
        UsageError: No answer can be written in the script's format, or as the method says, or the
            model has no room for one.
    """
    options = method.answers
    if options is None:
        return None
    write = AnswerForm(
        script.prompt.template.format, script.chat.tokenizer, options.answer_template
    )
    shortest = write.write("a")
    if shortest is None or len(shortest.ids) >= policy.max_context:
        raise UsageError(
            f"the hook turn_rewards of {method.name} needs {Need.ANSWER_SCORES.name}, and the"
            f" model reads {policy.max_context} tokens, too few for a prompt and the shortest"
            " answer; take another model, or a shorter method.answer_template"
        )
    ranks = learner.ranks
    score: Score = learner.score_answers
    if options.scored_by == "sampler":
        own = partial(scores_of_policy, policy)
        score = partial(ranks.deal, work=own, first=by_first)
    answers: Answers = own_answers if options.answer == "environment" else partial(_dealt, ranks)
    # A server samples one token beside what it scores.
    return AnswerScorer(write, score, answers, policy.max_context - 1)


def own_answers(
    trajectories: Sequence[Trajectory], pool: WorkerPool, seed: str
) -> list[list[str | None]]:
    """Return the environment's answer for each turn of each trajectory."""
    return [[t.answer] * len(t.turns) for t in trajectories]


def _dealt(
    ranks: Ranks, trajectories: Sequence[Trajectory], pool: WorkerPool, seed: str
) -> list[list[str | None]]:
    """Return :func:`expert_plans`, of which each process makes its share."""
    return ranks.deal(trajectories, lambda mine: expert_plans(mine, pool, seed))


def prefix_copies(
    trajectory: Trajectory, tails: Sequence[WrittenAnswer | None], room: int
) -> Iterator[tuple[PrefixCopies, list[int]]]:
    """Yield the rows of a trajectory with an answer where each turn begins.

    Args:
        trajectory: With rows.
        tails: The answer at each turn.
        room: Prefixes that leave none for their answer are left out.

    Yields:
        Each row that has a turn with an answer, and the turns of its prefixes.
    """
    for row in trajectory.rows:
        wanted = [
            (cut, tail, turn)
            for cut, turn in turn_starts(row)
            if (tail := tails[turn]) is not None and cut + len(tail.ids) <= room
        ]
        if wanted:
            cuts, written, turns = zip(*wanted, strict=True)
            yield PrefixCopies(row.ids[: max(cuts)], cuts, written), list(turns)


def turn_starts(row: Row) -> list[tuple[int, int]]:
    """Return how many tokens stand before each turn of a row, and which turn it is."""
    before = pairwise((-1, *row.turns))
    return [(n, turn) for n, (last, turn) in enumerate(before) if turn >= 0 and turn != last]


def scores_of_policy(policy: Policy, asked: Sequence[PrefixCopies]) -> list[list[float]]:
    """Let the sampler score answers, each behind its own prefix.

    Args:
        policy: The sampler, which may be a server; it keeps what prefixes have in common.
        asked: What to score.
    """
    parts = [part for copies in asked for part in copies.apart()]
    rows = [(*part.ids, *part.tails[0].ids) for part in parts]
    starts = [part.cuts[0] + part.tails[0].start for part in parts]
    means = iter([fmean(logprobs) for logprobs in asyncio.run(policy.score(rows, starts))])
    return [[next(means) for _ in copies.cuts] for copies in asked]


def refuse_without_answers(method: Chain, env: type[TextEnv] | TextEnv) -> None:
    """Refuse a method that needs to know how likely the answer is, where there is none.

    Raises:
        UsageError: The environment has no answer, or no expert where its plan shall stand in.
    """
    options = method.answers
    if options is None:
        return
    if options.answer == "expert" and not env.has_expert:
        raise UsageError(
            f"method.answer is expert, and {env.name} has no expert; train where there is one"
        )
    if options.answer == "environment" and not env.has_answer:
        plan = "; or set method.answer = expert, for its expert's remaining plan to stand in"
        raise UsageError(
            f"the hook turn_rewards of {method.name} needs {Need.ANSWER_SCORES.name}, how likely"
            f" the gold answer is, and {env.name} has no answer; train where there is one, as in"
            f" search or webshop{plan if env.has_expert else ''}"
        )


def expert_plans(
    trajectories: Sequence[Trajectory], pool: WorkerPool, seed: str
) -> list[list[str | None]]:
    """Return what the expert would do from each turn on to the end, one action a line.

    Each turn is restored from the episode's actions and played to its end by the expert, once for
    all episodes that began alike. Where the expert is lost, as one with a fixed path is off it, the
    last plan that it had still stands. None where it never had one, or where its plan does not end
    in the turns that are left: half a plan is another answer.

    Args:
        trajectories: The episodes.
        pool: Where they were played.
        seed: Where their environments' seeds came from.
    """
    asked = [_before_turns(trajectory, seed) for trajectory in trajectories]
    plans = asyncio.run(_plans(asked, pool))
    return [_standing([plans[start] for start in starts]) for starts in asked]


def _before_turns(trajectory: Trajectory, seed: str) -> list[Snapshot]:
    """Return what brings an episode back to before each of its turns."""
    actions = tuple(turn.action for turn in trajectory.turns)
    task = trajectory.key.task
    first = Snapshot(trajectory.suite, task, env_seed(seed, task), ())
    return [replace(first, actions=actions[:turn]) for turn in range(len(actions))]


async def _plans(
    asked: Sequence[Sequence[Snapshot]], pool: WorkerPool
) -> dict[Snapshot, str | None]:
    """Return the plan of each start; an episode takes a worker for those that no other took."""
    found: dict[Snapshot, str | None] = {}

    async def look(starts: Sequence[Snapshot]) -> None:
        async with pool.worker() as worker:
            for start in starts:
                if start not in found:
                    found[start] = None  # until it is known
                    found[start] = await _remaining_plan(worker, start)

    await asyncio.gather(*(look(starts) for starts in asked))
    return found


def _standing(plans: Sequence[str | None]) -> list[str | None]:
    """Return a plan before each turn: the last one there was, where the expert is lost."""
    standing: list[str | None] = []
    last: str | None = None
    for plan in plans:
        last = last if plan == LOST else plan
        standing.append(last)
    return standing


async def _remaining_plan(worker: Worker, start: Snapshot) -> str | None:
    """Return an expert's way to the end: LOST if it has none, None if it is too long."""
    plan: list[str] = []
    truncated = False
    try:
        await worker.restore(start)
        while not truncated and (action := await worker.expert()) is not None:
            plan.append(action)
            _, _, terminated, truncated, _ = await worker.step(action)
            if terminated:
                return "\n".join(plan)
    except EnvFault:
        return None
    return None if plan else LOST
