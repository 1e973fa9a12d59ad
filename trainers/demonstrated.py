"""Demonstrations as a step that was played before the first one, for methods that replay.

Nobody sampled them, so the model itself says how likely they were: log-probabilities, those of the
behaviour too, are of the weights that the run begins with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from agentgym.errors import UsageError
from agentgym.policies.conversation import Script
from agentgym.trainers.batch import Batch, pack
from agentgym.trainers.demonstrations import Demonstration, row_of
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain
from agentgym.trainers.recorded import FromFile
from agentgym.types import Group, Key, Stop, Trajectory, Turn


def remember_demonstrations(
    method: Chain, scripts: Mapping[str, Script], learner: Learner, temperature: float
) -> int:
    """Let each link that wants demonstrations remember those of its file.

    Args:
        method: What a run trains by.
        scripts: What its model is told in each environment that it trains in.
        learner: Has the weights that the run begins with.
        temperature: At which the run samples.

    Returns:
        How many demonstrations were remembered.

    Raises:
        UsageError: They are of another environment or of a held-out suite, or the model does not
            answer with an action only in a conversation that grows.
        DataError: A file cannot be read, or holds no won demonstration.
    """
    count = 0
    for link in method.links:
        if link.demonstrations is None:
            continue
        found = FromFile(Path(link.demonstrations).expanduser())
        script = scripts.get(found.env)
        if script is None:
            here = " and ".join(scripts)
            raise UsageError(f"{link.demonstrations} is of {found.env}, and the run is in {here}")
        shown = [found[number] for number in range(len(found.tasks))]
        batch = _batch([_group(n, one, script) for n, one in enumerate(shown)], method)
        # The second time the behaviour is known, and nothing has to be corrected for it.
        scored = learner.score(batch, temperature)
        assert scored.old_logprob_BT is not None
        again = scored.with_(behaviour_logprob_BT=scored.old_logprob_BT)
        link.remember(learner.score(again, temperature))
        count += len(shown)
    return count


def _batch(groups: Sequence[Group], method: Chain) -> Batch:
    batch = pack(groups, method.turn_rewards(groups, 1))
    # All of them did well, which is why somebody shows them.
    return batch.with_(advantage_BT=torch.ones_like(batch.mask_BT) * batch.mask_BT)


def _group(number: int, shown: Demonstration, script: Script) -> Group:
    turns = tuple(
        Turn(one.view.observation, one.action, one.action, None, True, 0.0, one.view.observation)
        for one in shown.turns
    )
    trajectory = Trajectory(
        key=Key(shown.task, number),
        suite="",
        task_type="",
        goal=shown.turns[0].view.goal,
        turns=turns,
        rows=(row_of(shown, script),),
        stop=Stop.TERMINATED,
        won=shown.won,
        score=float(shown.won),
    )
    return Group(shown.task, (trajectory,))
