"""The one bag of tensors that methods and learner share, and how trajectories are packed into it.

Axes: **B** rows, **T** tokens of a row, **N** trajectories, **K** turns of a trajectory. A row is
an unbroken token sequence; ``trajectory_B`` and ``turn_BT`` say which trajectory and turn a token
belongs to, so that nothing here or above asks how the context was built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from agentgym.types import Group, Trajectory


@dataclass(frozen=True, slots=True)
class Batch:
    """All rows of one step, right-padded.

    A token with ``mask_BT`` 0 is never trained: padding, prompts, and what environments said.
    ``turn_BT`` is -1 there. Log-probabilities and entropies are in nats, at the sampling
    temperature, and 0 where the mask is 0. Index ``t`` of a per-token tensor is about the token
    ``ids_BT[:, t]`` given those before it.
    """

    ids_BT: Tensor  # long
    length_B: Tensor  # long; tokens that are no padding
    mask_BT: Tensor  # float; 1 on tokens that the policy sampled
    turn_BT: Tensor  # long
    behaviour_logprob_BT: Tensor  # as the sampler reported them
    trajectory_B: Tensor  # long, in [0, N)
    group_N: Tensor  # long; which group a trajectory belongs to
    turns_N: Tensor  # long; how many turns a trajectory has
    trajectories: tuple[Trajectory, ...]  # N, in the order of the axis
    # Rewards, as named parts; the sum over parts and turns is the return.
    reward_NK: Mapping[str, Tensor]
    reward_mask_NK: Tensor  # bool; True where the trajectory has that turn
    # What the learner computed before the update; None until it did, or where nobody needs it.
    old_logprob_BT: Tensor | None = None
    entropy_BT: Tensor | None = None
    ref_logprob_BT: Tensor | None = None
    value_BT: Tensor | None = None  # before the token, in rewards
    # What the method gave: credit, and what the critic learns.
    advantage_BT: Tensor | None = None
    value_target_BT: Tensor | None = None
    # What the surrogate of the token is weighted by; None where sampler and learner are one.
    correction_BT: Tensor | None = None
    temperature: float = 1.0  # that it was sampled at and is scored at
    replayed: bool = False  # played in an earlier step; ``trajectories`` is empty then

    @property
    def return_N(self) -> Tensor:
        """Sum of all reward parts over the turns of each trajectory."""
        total_NK = torch.stack(tuple(self.reward_NK.values())).sum(0)
        return (total_NK * self.reward_mask_NK).sum(-1)

    def with_(self, **changes: Tensor | float) -> Batch:
        """Return a copy in which some fields are others."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def rows(self, index: Tensor) -> Batch:
        """Return the batch of some rows only, cut to their longest; trajectories stay whole."""
        width = int(self.length_B[index].max()) if len(index) else 0
        changes: dict[str, Tensor | float] = {n: getattr(self, n)[index] for n in _PER_ROW}
        for name in _PER_TOKEN:
            tensor = getattr(self, name)
            if tensor is not None:
                changes[name] = tensor[index, :width]
        return self.with_(**changes)

    def digest(self) -> str:
        """Return what is another for rows with other tokens, credit or log-probabilities."""
        known = hashlib.sha256()
        for tensor in (self.ids_BT, self.mask_BT, self.advantage_BT, self.old_logprob_BT):
            known.update(b"" if tensor is None else tensor.contiguous().numpy().tobytes())
        return known.hexdigest()

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its per-row and per-token tensors on a device."""
        tensors = {name: getattr(self, name) for name in _PER_ROW + _PER_TOKEN}
        return self.with_(**{n: t.to(device) for n, t in tensors.items() if t is not None})


_PER_ROW = ("length_B", "trajectory_B")
_PER_TOKEN = (
    "ids_BT",
    "mask_BT",
    "turn_BT",
    "behaviour_logprob_BT",
    "old_logprob_BT",
    "entropy_BT",
    "ref_logprob_BT",
    "value_BT",
    "advantage_BT",
    "value_target_BT",
    "correction_BT",
)


def pack(groups: Sequence[Group], rewards: Mapping[str, Sequence[Sequence[float]]]) -> Batch:
    """Pack the trajectories of a step.

    Args:
        groups: Every group of the step.
        rewards: For each named part, for each trajectory in the order of the groups, the reward
            of each of its turns.
    """
    trajectories = tuple(t for group in groups for t in group.trajectories)
    group_N = torch.tensor([g for g, group in enumerate(groups) for _ in group.trajectories])
    rows = [(n, row) for n, trajectory in enumerate(trajectories) for row in trajectory.rows]
    width = max((len(row.ids) for _, row in rows), default=0)
    turn_BT = _padded([row.turns for _, row in rows], width, -1, torch.long)
    turns_N = torch.tensor([len(t.turns) for t in trajectories])
    longest = int(turns_N.max()) if len(trajectories) else 0
    return Batch(
        ids_BT=_padded([row.ids for _, row in rows], width, 0, torch.long),
        length_B=torch.tensor([len(row.ids) for _, row in rows]),
        mask_BT=(turn_BT >= 0).float(),
        turn_BT=turn_BT,
        behaviour_logprob_BT=_padded([row.logprobs for _, row in rows], width, 0, torch.float),
        trajectory_B=torch.tensor([n for n, _ in rows]),
        group_N=group_N,
        turns_N=turns_N,
        trajectories=trajectories,
        reward_NK={
            name: _padded(per_turn, longest, 0, torch.float) for name, per_turn in rewards.items()
        },
        reward_mask_NK=torch.arange(longest) < turns_N[:, None],
    )


def _padded(rows: Sequence[Sequence[float]], width: int, fill: float, dtype: torch.dtype) -> Tensor:
    padded = torch.full((len(rows), width), fill, dtype=dtype)
    for b, row in enumerate(rows):
        padded[b, : len(row)] = torch.tensor(row, dtype=dtype)
    return padded
