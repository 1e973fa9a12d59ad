"""What a step is measured by. The names are those that users of other trainers know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

import torch
from torch import Tensor

from agentgym.trainers.batch import Batch
from agentgym.types import Stop, Trajectory


def episode_metrics(trajectories: Sequence[Trajectory], max_tokens: int) -> dict[str, float]:
    """Measure episodes.

    Args:
        trajectories: The whole episodes of a step; broken ones are counted elsewhere.
        max_tokens: The longest turn that was allowed, in tokens.
    """
    if not trajectories:
        return {}
    by_type: defaultdict[str, list[bool]] = defaultdict(list)
    for trajectory in trajectories:
        by_type[trajectory.task_type].append(trajectory.won)
    stops = Counter(t.stop for t in trajectories)
    lengths = [length for t in trajectories for length in _turn_lengths(t)]
    metrics = _episodes("episode", trajectories)
    if lengths:
        metrics["response_length/mean"] = fmean(lengths)
        metrics["response_length/clip_ratio"] = fmean(n >= max_tokens for n in lengths)
    for task_type, won in sorted(by_type.items()):
        metrics[f"episode/{task_type}/success_rate"] = fmean(won)
    for stop in Stop:
        metrics[f"stop/{stop.value}"] = stops[stop] / len(trajectories)
    return metrics


def _episodes(prefix: str, trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Measure how episodes went."""
    if not trajectories:
        return {}
    turns = [turn for t in trajectories for turn in t.turns]
    metrics = {
        f"{prefix}/success_rate": fmean(t.won for t in trajectories),
        f"{prefix}/score": fmean(t.score for t in trajectories),
        f"{prefix}/turns": fmean(len(t.turns) for t in trajectories),
        f"{prefix}/faults": float(sum(t.faults for t in trajectories)),
    }
    if turns:
        metrics[f"{prefix}/valid_action_rate"] = fmean(t.parse_error is None for t in turns)
        metrics[f"{prefix}/admissible_rate"] = fmean(t.admissible for t in turns)
    if pairs := [pair for t in trajectories for pair in pairwise(t.turns)]:
        same = fmean(before.action == turn.action for before, turn in pairs)
        metrics[f"{prefix}/repeated_action_rate"] = same
    return metrics


def metrics_by_environment(
    names: Sequence[str],
    played: Sequence[Trajectory],
    broken: Sequence[Trajectory],
    batch: Batch,
) -> dict[str, float]:
    """Measure a step in each of its environments; of a single one there is nothing to add.

    Args:
        names: Of the environments.
        played: The whole episodes of the step.
        broken: Those that broke.
        batch: What is learnt from.
    """
    if len(names) == 1:
        return {}
    metrics: dict[str, float] = {}
    errors = Counter(_environment(t) for t in broken)
    for name in names:
        metrics |= _episodes(f"episode/{name}", [t for t in played if _environment(t) == name])
        metrics[f"rollout/{name}/errors"] = float(errors[name])
        in_N = torch.tensor([_environment(t) == name for t in batch.trajectories])
        if in_N.any():
            return_N = batch.return_N[in_N]
            metrics[f"reward/{name}/mean"] = return_N.mean().item()
            metrics[f"reward/{name}/std"] = return_N.std(unbiased=False).item()
            silent = _share_without_signal(return_N, batch.group_N[in_N])
            metrics[f"group/{name}/frac_zero_std"] = silent
    return metrics


def _environment(trajectory: Trajectory) -> str:
    return trajectory.suite.partition("/")[0]


def age_metrics(trajectories: Sequence[Trajectory], version: int) -> dict[str, float]:
    """Measure by how old weights tokens were sampled, in versions behind those that are updated.

    Args:
        trajectories: What is learnt from.
        version: Of the weights that are updated.
    """
    rows = (row for t in trajectories for row in t.rows)
    ages = [version - sampled for row in rows for sampled in row.versions if sampled >= 0]
    if not ages:
        return {}
    return {
        "rollout/age_mean": fmean(ages),
        "rollout/age_max": float(max(ages)),
        "rollout/stale_share": fmean(age > 0 for age in ages),
    }


def _turn_lengths(trajectory: Trajectory) -> list[int]:
    lengths: Counter[int] = Counter()
    for row in trajectory.rows:
        lengths.update(turn for turn in row.turns if turn >= 0)
    return list(lengths.values())


def batch_metrics(batch: Batch) -> dict[str, float]:
    """Measure rewards, groups, advantages and entropies of a packed step."""
    return_N = batch.return_N
    metrics = {
        "reward/mean": return_N.mean().item(),
        "reward/std": return_N.std(unbiased=False).item(),
        "group/frac_zero_std": _share_without_signal(return_N, batch.group_N),
    }
    for name, reward_NK in batch.reward_NK.items():
        metrics[f"reward/{name}"] = (reward_NK * batch.reward_mask_NK).sum(-1).mean().item()
    mask_BT = batch.mask_BT.bool()
    if batch.advantage_BT is not None:
        a = batch.advantage_BT[mask_BT]
        metrics |= {
            "advantage/mean": a.mean().item(),
            "advantage/std": a.std(unbiased=False).item(),
            "advantage/min": a.min().item(),
            "advantage/max": a.max().item(),
        }
    if batch.old_logprob_BT is not None:
        gap = (batch.old_logprob_BT - batch.behaviour_logprob_BT)[mask_BT].abs()
        metrics["rollout/logprob_abs_diff"] = gap.mean().item()
        metrics["rollout/logprob_abs_diff_max"] = gap.max().item()
    if batch.entropy_BT is not None:
        metrics["actor/entropy"] = batch.entropy_BT[mask_BT].mean().item()
        for turn in range(int(batch.turns_N.max())):
            cells = batch.turn_BT == turn
            if cells.any():
                metrics[f"actor/entropy_turn_{turn}"] = batch.entropy_BT[cells].mean().item()
    return metrics


def _share_without_signal(return_N: Tensor, group_N: Tensor) -> float:
    groups = [return_N[group_N == g] for g in torch.unique(group_N)]
    return fmean(bool((r == r[0]).all()) for r in groups)
