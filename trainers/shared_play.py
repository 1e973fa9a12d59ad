"""Rounds of play that the processes of a run share, after which all of them know all of it."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.trainers.collect import Play
from agentgym.trainers.ranks import Ranks
from agentgym.trainers.worlds import World
from agentgym.types import Group, Trajectory


def shared(play: Play, ranks: Ranks, worlds: Sequence[World], *, by_first: bool = False) -> Play:
    """Return what lets each process play its share of the tasks, and gathers what was played.

    A group is played by one process, from the task's own seeds, so that who plays it decides
    nothing.

    Args:
        play: Plays tasks in this process.
        ranks: The processes.
        worlds: Where tasks are at home, in the order in which a process alone plays in them.
        by_first: Whether the first one plays all tasks.

    Returns:
        What plays tasks together, and returns groups in the order in which a process alone does.
    """
    if ranks.size == 1:
        return play
    home = {task: n for n, world in enumerate(worlds) for task in world.deck.tasks}

    def together(tasks: Sequence[str]) -> tuple[list[Group], list[Trajectory]]:
        mine = ranks.share(tasks, first=by_first)
        played = ranks.gather(play(mine) if mine else ([], []))
        groups = [group for found, _ in played for group in found]
        broken = [trajectory for _, faults in played for trajectory in faults]
        return (
            sorted(groups, key=lambda g: (home[g.task], g.task)),
            sorted(broken, key=lambda t: (home[t.key.task], t.key)),
        )

    return together
