"""ScienceWorld: elementary school science in text, in ten rooms full of things.

Thirty tasks (boil something, grow a plant, measure a melting point, find an animal, …) in 7,207
variations, played by the benchmark's own simulator. The score goes from 0 to 1; a wrong choice
where a task asks for one fails it at once. An episode is won with the whole score.

Source: Wang et al., "ScienceWorld: Is your Agent Smarter than a 5th Grader?", EMNLP 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from agentgym.envs.base import Outcome, TextEnv
from agentgym.envs.scienceworld_game import PERFECT, Game, Variation, gold_path
from agentgym.envs.scienceworld_jvm import SimulatorLost
from agentgym.envs.scienceworld_simulators import POOL, SIMULATORS, IsolatedSimulator
from agentgym.envs.scienceworld_tasks import SELECTIONS, is_electrical, parse_id, task_ids
from agentgym.errors import EnvFault, UsageError, unknown
from agentgym.types import Info, Suite

ACTIONS = ("templates", "all", "none")
SIMPLIFICATIONS = (
    "easy",
    "teleportAction",
    "selfWateringFlowerPots",
    "openContainers",
    "openDoors",
    "noElectricalAction",
)
_NO_ELECTRICITY = "noElectricalAction"

_GOLD: dict[Variation, tuple[str, ...]] = {}  # of what was asked for; under a kilobyte each
_HEALINGS = 2  # how often one action is done again after its Java process was lost

T = TypeVar("T")


class ScienceWorldEnv(TextEnv):
    """ScienceWorld.

    Args:
        suite: ``scienceworld/train``, ``dev`` or ``test`` (the simulator's); ``L0-``, ``L1-`` or
            ``L2-train`` or ``-test`` (the papers'); ``panel-test``, ``short-train``,
            ``short-test`` or ``short-panel-test`` (for quick looks).
        max_turns: Actions an episode may take; 100 by default.
        simplifications: Names separated by commas, of :data:`SIMPLIFICATIONS`; empty for none.
            ``easy`` is all but ``openContainers``; in tasks about electricity it leaves out
            ``noElectricalAction`` too.
        actions: What info tells of the actions there are: ``templates`` and the objects in sight;
            ``all``, every valid action, which costs more than the step itself; ``none``.

    Raises:
        UsageError: An unknown suite, simplification or way to tell of actions, or tasks about
            electricity without electrical actions.
    """

    name: ClassVar[str] = "scienceworld"
    default_suite: ClassVar[str] = "scienceworld/short-train"
    default_max_turns: ClassVar[int] = 100
    copies_per_process: ClassVar[int | None] = SIMULATORS
    has_expert: ClassVar[bool] = True

    def __init__(
        self,
        suite: str | None = None,
        max_turns: int | None = None,
        simplifications: str = "easy",
        actions: str = "templates",
    ) -> None:
        if actions not in ACTIONS:
            raise unknown("way of scienceworld to tell of actions", str(actions), ACTIONS)
        self._shown = actions
        self._simplifications = _checked(simplifications)
        self._simulator: IsolatedSimulator | None = None
        super().__init__(suite, max_turns)

    @classmethod
    def suite_names(cls) -> tuple[str, ...]:
        """Return the simulator's sets, the papers', and the short ones."""
        return tuple(f"{cls.name}/{short}" for short in SELECTIONS)

    def load_suite(self, name: str) -> Suite:
        """Return a suite; that takes no simulator."""
        if name not in self.suite_names():
            raise self.unknown_suite(name)
        short = name.removeprefix(f"{self.name}/")
        selection = SELECTIONS[short]
        if _NO_ELECTRICITY in self._simplifications and any(map(is_electrical, selection.tasks)):
            raise UsageError(
                f"{name} has tasks about electricity, which cannot be done with"
                f" {_NO_ELECTRICITY}; take easy, which leaves it out where it has to"
            )
        return Suite(
            name=name,
            tasks=task_ids(short),
            official=selection.official,
            held_out=selection.split != "train",
            about=selection.about,
        )

    def task_type(self, task: str) -> str:
        """Return which of the thirty tasks a task id is a variation of."""
        return parse_id(task)[0]

    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        """Load a variation. It alone decides everything: the seed changes nothing."""
        self._id = task
        self._variation = Variation(*parse_id(task), self._simplifications)
        self._played: list[str] = []
        self._healing(self._replay)
        return self._game.observation, self._healing(self._info)

    def act(self, action: str) -> Outcome:
        """Do an action; the reward is the change of the score, -1 at failure, in hundredths."""
        before = self._game.score
        self._healing(lambda: self._game.do(action))
        self._played.append(action)
        reward = (self._game.score - before) / PERFECT
        info = self._healing(self._info)
        return Outcome(self._game.observation, reward, self._game.over, info)

    def expert(self) -> str | None:
        """Return the next action of the simulator's gold path; None once it has been left.

        The path is made at the first call in a task, which takes seconds, and kept for all
        environments of this process.
        """
        if self._over or self._game.over:
            return None
        gold = _GOLD.get(self._variation) or self._healing(self._make_gold)
        done = len(self._played)
        return gold[done] if list(gold[:done]) == self._played and done < len(gold) else None

    def close(self) -> None:
        """Give the simulator back."""
        if self._simulator is not None:
            POOL.take_back(self._simulator)
            self._simulator = None
        super().close()

    def _healing(self, act: Callable[[], T]) -> T:
        """Act; where the Java process is gone, bring the episode back in another and act again."""

        def again() -> T:
            self._replay()
            return act()

        attempt = act
        for _ in range(_HEALINGS):
            try:
                return attempt()
            except SimulatorLost:
                self._simulator, attempt = None, again
        try:
            return attempt()
        except SimulatorLost as lost:
            raise EnvFault(f"{lost}, for the third time in one action") from lost

    def _replay(self) -> None:
        """Bring the simulator to where the episode is."""
        if self._simulator is None:
            self._simulator = POOL.lend()
        self._game = Game(self._simulator, self._variation)
        for action in self._played:
            self._game.do(action)

    def _make_gold(self) -> tuple[str, ...]:
        assert self._simulator is not None, "an episode has a simulator"
        gold = gold_path(self._simulator, self._variation)
        _GOLD[self._variation] = gold
        self._replay()  # the planner has played in the same simulator
        return gold

    def _info(self) -> Info:
        game = self._game
        won = game.score >= PERFECT
        info = Info(
            task_id=self._id,
            task_type=self._variation.task,
            goal=game.goal,
            won=won,
            score=max(game.score, 0) / PERFECT,
            admissible=game.known,
            anchor=game.observation,
        )
        if self._shown == "all":
            info["admissible_actions"] = () if game.over else game.valid_actions()
        elif self._shown == "templates":
            info["templates"] = () if game.over else game.templates()
            info["objects"] = () if game.over else game.objects()
        return info


def _checked(simplifications: str) -> str:
    """Return the names in their order, if all are known."""
    names = [name.strip() for name in str(simplifications).split(",") if name.strip()]
    for name in names:
        if name not in SIMPLIFICATIONS:
            raise unknown("simplification of scienceworld", name, SIMPLIFICATIONS)
    if "easy" in names and len(names) > 1:
        raise UsageError(f"easy stands alone, got simplifications={simplifications!r}")
    return ",".join(names)
