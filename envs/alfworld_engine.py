"""The native engine of ALFWorld: plays a game file as TextWorld does, some hundred times faster.

The game file is played, not a fixed idea of the game: actions and goal come from its planning
domain and problem, every word from its grammar, so older and newer releases of the data play
alike. What TextWorld's players see, quirks included, is reproduced to the letter:

- A fact that an action made false is itself a fact, ``not_…``, and grammars ask for it; a fact
  that was false from the start is not. So *Next to it, you see* names only objects that were
  taken from one receptacle and put into another at the same place.
- ``look`` before the first ``go to`` sees nothing: the place where the agent stands is known, and
  no receptacle is there.
- Going to a receptacle where the agent already stands is no action, whatever it is called.
- Of the things of one class, the first in the order of their identifiers has the highest number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol

from agentgym.envs.alfworld_actions import Action, Domain, Problem
from agentgym.envs.alfworld_files import GameFiles
from agentgym.envs.alfworld_grammar import read_grammar, read_phrase
from agentgym.envs.alfworld_logic import Arguments, Facts, Literal
from agentgym.envs.alfworld_pddl import read_domain, read_problem
from agentgym.envs.alfworld_phrases import Grammar, Scene, Wording
from agentgym.errors import DataError

NOTHING_HAPPENS = "Nothing happens."
GOAL_MARK = "Your task is to: "

_BAR = "_bar_"  # how identifiers write |
_INTRO = read_phrase("#intro#")


class GameEngine(Protocol):
    """What plays one ALFWorld game: the native engine, or TextWorld."""

    goal: str
    """The task in one sentence."""
    task_type: str

    @property
    def won(self) -> bool:
        """Whether the goal holds now."""

    @property
    def admissible(self) -> tuple[str, ...]:
        """The commands that do something now, sorted, each once."""

    def reset(self) -> str:
        """Start the game over and return its opening text."""

    def step(self, command: str) -> str:
        """Do a command and return what the game says to it."""

    def close(self) -> None:
        """Release what the engine holds; closing twice is the same as closing once."""


class Move(NamedTuple):
    """An action with its arguments, in the order of the domain's parameters."""

    action: str
    arguments: Arguments


class Engine:
    """Plays one game.

    Args:
        files: The game.

    Attributes:
        facts: What holds now, ``not_…`` facts included; to be read only.
        names: The name of every entity.
        moves: What each admissible command does.

    Raises:
        DataError: The game's texts are broken or use what is not supported; the message names
            the game.
    """

    def __init__(self, files: GameFiles) -> None:
        self.task_type = str(files.trajectory["task_type"])
        try:
            self.domain, self.problem, self._grammar = _read(files)
            self.names = entity_names(self.problem.entities)
            self._commands = _commands(self.domain, self._grammar)
            self._goal_predicates = frozenset().union(*(q.predicates for q in self.problem.goal))
            self.goal = task_sentence(self.reset())
        except DataError as error:
            raise DataError(f"the game {files.name} cannot be played: {error}") from error
        except RecursionError as error:
            raise DataError(
                f"the game {files.name} cannot be played: its rules refer to each other for ever"
            ) from error

    def reset(self) -> str:
        """Start the game over and return its opening text."""
        self.facts = Facts(self.problem.facts, self.problem.members)
        self._scene = Scene(self.facts, self.names)
        self._possible = {
            name: command.moves(self._grammar, self._scene)
            for name, command in self._commands.items()
        }
        self.moves = self._all_moves()
        self.won = self._is_won()
        return self._grammar.say(_INTRO, self._scene, {})

    def step(self, command: str) -> str:
        """Do a command and return what the game says to it.

        Commands are compared to the letter, surrounding white space left out.
        """
        move = self.moves.get(command.strip())
        if move is None:
            return NOTHING_HAPPENS
        done = self._commands[move.action]
        self._refresh(self._apply(done.action.changes(self.facts, move.arguments)))
        binding = dict(zip(done.action.parameters, move.arguments, strict=True))
        return self._grammar.say(done.wording.feedback, self._scene, binding)

    def command(self, move: Move) -> str:
        """Return how ``move`` is said, whether or not it is possible now."""
        return self._commands[move.action].text(move.arguments, self._grammar, self._scene)

    def close(self) -> None:
        """Do nothing: nothing is held."""

    @property
    def admissible(self) -> tuple[str, ...]:
        """The commands that do something now, sorted, each once."""
        return tuple(sorted(self.moves))

    def _apply(self, changes: Iterable[tuple[Literal, bool]]) -> set[str]:
        """Make facts true or false; return the predicates that this touched."""
        touched = set()
        for (predicate, arguments), adds in changes:
            gone, come = (
                (f"not_{predicate}", predicate) if adds else (predicate, f"not_{predicate}")
            )
            self.facts.remove(gone, arguments)
            self.facts.add(come, arguments)
            touched |= {gone, come}
        return touched

    def _refresh(self, touched: AbstractSet[str]) -> None:
        """Find anew what depends on the predicates that were touched, and only that."""
        stale = [name for name, command in self._commands.items() if command.depends_on & touched]
        for name in stale:
            self._possible[name] = self._commands[name].moves(self._grammar, self._scene)
        if stale:
            self.moves = self._all_moves()
        if self._goal_predicates & touched:
            self.won = self._is_won()

    def _all_moves(self) -> dict[str, Move]:
        moves: dict[str, Move] = {}
        for possible in reversed(self._possible.values()):  # of two alike the first counts
            moves.update(possible)
        return moves

    def _is_won(self) -> bool:
        return any(query.solutions(self.facts, {}) for query in self.problem.goal)


class _Command:
    """An action with its wording; finds what can be done with it now."""

    def __init__(
        self, action: Action, wording: Wording, asked: frozenset[str], fixed: bool
    ) -> None:
        self.action = action
        self.wording = wording
        self.depends_on = action.predicates | asked
        self._fixed = fixed
        self._texts: dict[Arguments, str] = {}

    def moves(self, grammar: Grammar, scene: Scene) -> dict[str, Move]:
        """Return every command of this action that is possible now, with what it does."""
        possible = self.action.possible(scene.facts)
        return {
            self.text(arguments, grammar, scene): Move(self.action.name, arguments)
            for arguments in reversed(possible)
        }

    def text(self, arguments: Arguments, grammar: Grammar, scene: Scene) -> str:
        """Return the command that does the action with ``arguments``."""
        text = self._texts.get(arguments)
        if text is None:
            binding = dict(zip(self.action.parameters, arguments, strict=True))
            text = grammar.say(self.wording.template, scene, binding)
            if self._fixed:
                self._texts[arguments] = text
        return text


def _read(files: GameFiles) -> tuple[Domain, Problem, Grammar]:
    texts = []
    for key in ("pddl_domain", "pddl_problem", "grammar"):
        if not isinstance(files.game[key], str):
            raise DataError(f"its {key} is {type(files.game[key]).__name__}, expected a text")
        texts.append(files.game[key])
    domain = read_domain(texts[0])
    return domain, read_problem(texts[1], domain), read_grammar(texts[2])


def _commands(domain: Domain, grammar: Grammar) -> dict[str, _Command]:
    commands = {}
    changing = domain.fluents | {f"not_{predicate}" for predicate in domain.fluents}
    for action in domain.actions:
        wording = grammar.actions.get(action.name)
        if wording is None:
            raise DataError(f"its grammar has no words for the domain's action {action.name}")
        asked = wording.template.predicates(grammar)
        wording.feedback.predicates(grammar)  # finds references to rules that do not exist
        commands[action.name] = _Command(action, wording, asked, not asked & changing)
    return commands


def task_sentence(intro: str) -> str:
    """Return the task that an opening text names: what follows *Your task is to:*.

    Raises:
        DataError: It names none.
    """
    _, mark, task = intro.partition(GOAL_MARK)
    if not mark:
        raise DataError(f"its opening text does not say {GOAL_MARK!r}")
    return task.strip()


def entity_names(entities: Iterable[str]) -> dict[str, str]:
    """Return the name of every entity: its class and its number within the class.

    The class is what stands before the first bar of the identifier, and basins are a class of
    their own (``sinkbasin``). The first of a class in the order of identifiers has the highest
    number. What has no bar has no number, and keeps the blank before it.
    """
    ordered = sorted(entities)
    left = Counter(_class_of(one) for one in ordered if _BAR in one)
    names = {}
    for one in ordered:
        kind = _class_of(one)
        names[one] = f"{kind} {left[kind]}" if _BAR in one else f"{one} "
        left[kind] -= 1
    return names


def _class_of(entity: str) -> str:
    kind = entity.partition(_BAR)[0]
    return f"{kind}basin" if _BAR in entity and "basin" in entity else kind
