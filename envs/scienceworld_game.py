"""One episode of ScienceWorld, on a simulator: what an action does and what it scores.

A step asks the simulator for what an agent needs and no more. What is only looked at (the objects
in sight, the list of valid actions) never changes what happens: the simulator draws random
numbers while it names objects, so the state of its generator is put back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agentgym.envs.scienceworld_jvm import guarded
from agentgym.envs.scienceworld_simulators import IsolatedSimulator
from agentgym.errors import EnvFault, UsageError

UNKNOWN = "No known action matches that input."
"""What the simulator answers to text that is no action."""

RESET = "reset task"
"""An action of the simulator that forgives every mistake; never offered and never understood."""

PERFECT = 100
"""The score of a task that is done; a failed one has -100."""

_LOOK = "look around"
_HELP = frozenset({"help", "objects", "task"})  # answered by the simulator without a step
_AMBIGUOUS = "Ambiguous request:"
_CHOICE = re.compile(r"^(\d+):\t", re.MULTILINE)
_STOP_WORDS = frozenset({"a", "an", "the"})
_BLANK = "".join(map(chr, range(33)))  # what Java's trim takes away
_SILENT = (
    "Unknown action.  Type 'help' for a list of actions, and 'objects' for a list of possible"
    " object referents. "
)


@dataclass(frozen=True, slots=True)
class Variation:
    """What is played: a task, which variation of it, and how it is simplified."""

    task: str
    number: int
    simplifications: str = ""  # names separated by commas


class Game:
    """A task in play.

    Attributes:
        goal: The task in words.
        observation: What the last action led to; at first what is seen around.
        known: Whether the simulator knew the last action.
        score: -100 (failed) to 100 (done).
        completed: Whether the simulator is through with the task.

    Raises:
        EnvFault: The simulator raised an exception; :class:`SimulatorLost` where it is gone.
        UsageError: The simulator has no such task.
    """

    def __init__(self, simulator: IsolatedSimulator, variation: Variation) -> None:
        self._simulator = simulator
        with guarded(simulator.jvm):
            _load(simulator, variation)
            self._start()

    @property
    def over(self) -> bool:
        """Whether the task is done or failed."""
        return self.completed or self.score < 0

    def do(self, action: str) -> None:
        """Do an action.

        Where the simulator has asked which of several actions was meant, a number that it named
        answers. Anything else withdraws the question and is done in its place.
        """
        # A lone surrogate, which a decoder can leave behind, has no form that can be sent.
        action = action.encode(errors="replace").decode()
        with guarded(self._simulator.jvm):
            if self._choices:
                action = action.strip()
                if action not in self._choices:
                    self._step("")
            self._do(action)

    def templates(self) -> tuple[str, ...]:
        """Return the actions there are, with OBJ where an object is to be named.

        Where the simulator has asked which action was meant, they are the numbers it named.
        """
        return self._choices or self._templates

    def objects(self) -> tuple[str, ...]:
        """Return what can be named for OBJ now."""
        return () if self._choices else self._look_up("getPossibleObjects")

    def valid_actions(self) -> tuple[str, ...]:
        """Return every action that can be done now: hundreds to thousands."""
        actions = self._look_up("getValidActionObjectCombinations")
        return tuple(action for action in actions if action != RESET)

    def _start(self) -> None:
        """Take up the task that the simulator has loaded."""
        simulator = self._simulator
        self._agent = simulator.agent()
        self._choices: tuple[str, ...] = ()
        self.goal = str(simulator.ask("getTaskDescription"))
        actions = simulator.ask_for_list("getPossibleActions")
        self._templates = tuple(action for action in actions if action != RESET)
        self._do(_LOOK)

    def _do(self, action: str) -> None:
        word = action.strip(_BLANK).lower()
        if _is_reset(word):
            self.observation = UNKNOWN
        elif word in _HELP:
            said = str(self._simulator.ask("step", word))
            self.observation = said.replace(f"\n\t{RESET}", "")
        else:
            self._step(action)
        self.known = self.observation != UNKNOWN
        asked = self.observation.startswith(_AMBIGUOUS)
        self._choices = tuple(_CHOICE.findall(self.observation)) if asked else ()

    def _step(self, action: str) -> None:
        simulator = self._simulator
        # Asked of the agent's interface: the simulator's own first looks around and takes stock.
        answer = simulator.text(simulator.ask_agent(self._agent, "step", action))
        said, score, completed = answer[1:-1].rsplit(",", 2)
        self.observation = said or _SILENT
        self.score = round(PERFECT * float(score))
        self.completed = completed == "true"
        if self.score < 0 and simulator.ask_agent(self._agent, "isInErrorState"):
            raise EnvFault(f"the simulator raised {said}")

    def _look_up(self, method: str) -> tuple[str, ...]:
        simulator = self._simulator
        with guarded(simulator.jvm):
            state = simulator.random_state()
            found = simulator.ask_for_list(method)
            simulator.set_random_state(state)
        return found


def gold_path(simulator: IsolatedSimulator, variation: Variation) -> tuple[str, ...]:
    """Return actions that do a task, as the simulator's own planner finds them.

    Takes the simulator up to half a minute, and takes it out of any game it is in.

    Raises:
        EnvFault: The simulator raised an exception; :class:`SimulatorLost` where it is gone.
    """
    with guarded(simulator.jvm):
        _load(simulator, variation, gold=True)
        return simulator.ask_for_list("getGoldActionSequence")


def _load(simulator: IsolatedSimulator, variation: Variation, gold: bool = False) -> None:
    task, number = variation.task, variation.number
    error = simulator.ask("load", task, number, variation.simplifications, gold)
    if error:
        raise UsageError(f"the simulator does not load {task}/{number}: {error}")
    simulator.jvm.tidy()  # the task before is garbage now


def _is_reset(word: str) -> bool:
    """Return whether the simulator's parser would read a text as :data:`RESET`."""
    words = [word for word in re.split(r"[ \t\n\v\f\r]+", word) if word not in _STOP_WORDS]
    return " ".join(words).strip(_BLANK) == RESET
