"""A person at the terminal, or a script on standard input, plays an environment.

A line is an action, or the number of a listed action, or a command that begins with a colon. The
session only reads and writes lines through two functions, so it does not know whether a terminal
is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from agentgym.console import in_columns
from agentgym.envs.base import TextEnv
from agentgym.errors import DataError, UsageError, unknown
from agentgym.game import Game, Taken
from agentgym.trajectory_line import json_line, trajectory_line

OVER = "the episode is over; :undo, :reset or :quit"

HELP = """\
  ACTION or its number   do it
  :actions               list the admissible actions
  :expert                show what the expert would do; `:expert N` lets it act N times
  :undo                  take back the last action; `:undo N` the last N
  :back                  go back to the start; `:back N` to where N turns were taken
  :branches              list the ways that were left
  :branch                `:branch N` goes to the end of one of them
  :goal                  show the task again
  :history               show the actions so far
  :save                  `:save FILE` appends the episode, once it is over, as a demonstration
  :reset                 start again; `:reset TASK` another task
  :help                  this list
  :quit                  leave"""


class Session:
    """One person's episodes in one environment.

    Args:
        env: What is played; the caller closes it.
        say: Shows a line, or several.
        list_actions: Whether the admissible actions are listed after each observation.
    """

    help = HELP

    def __init__(self, env: TextEnv, say: Callable[[str], None], list_actions: bool = True) -> None:
        self.env = env
        self.game = Game(env)
        self.say = say
        self.list_actions = list_actions
        self._commands: dict[str, Callable[[str], None]] = {
            ":actions": lambda _: self._show_actions(),
            ":back": lambda turn: self._go_back(_number(turn or "0")),
            ":branch": lambda number: self._switch(count(number)),
            ":branches": lambda _: self._show_branches(),
            ":expert": self._expert,
            ":goal": lambda _: self.say(f"goal: {self.game.info['goal']}"),
            ":help": lambda _: self.say(self.help),
            ":history": lambda _: self._show_history(),
            ":reset": self._reset,
            ":save": self._save,
            ":undo": self._undo,
        }

    @property
    def over(self) -> bool:
        """Whether the episode is over."""
        return self.game.over

    def start(self, task: str | None, seed: int) -> None:
        """Start an episode; None draws a task of the suite.

        Raises:
            UsageError: The suite has no such task.
        """
        self.game.start(task, seed)
        self.forget()
        self.say(f"task: {self.game.info['task_id']}\ngoal: {self.game.info['goal']}\n")
        self._show()

    @property
    def prompt(self) -> str:
        """What stands before the next line: the turn and the score so far."""
        return f"[{self.state}] > "

    @property
    def state(self) -> str:
        """The turn and the score so far."""
        return f"turn {len(self.game.taken)}, score {self.game.info['score']:g}"

    def handle(self, line: str) -> bool:
        """Do what a line says; return False when it says to leave.

        Raises:
            UsageError: The line is a command that does not exist, or one that does not fit.
            DataError: A file cannot be written.
        """
        line = line.strip()
        if not line.startswith(":"):
            if line:
                self.act(self.numbered(line))
            else:
                self.nothing()
            return True
        command, _, argument = line.partition(" ")
        if command in (":quit", ":q"):
            return False
        if command not in self._commands:
            reason = unknown("command", command, [*self._commands, ":quit"])
            raise UsageError(f"{reason} (:help tells what each does)")
        self._commands[command](argument.strip())
        return True

    def complete(self, text: str) -> list[str]:
        """Return the lines that begin with ``text``: commands, or the admissible actions."""
        known = [*self._commands, ":quit"] if text.startswith(":") else self.actions() or ()
        return [name for name in known if name.startswith(text)]

    # What is shown ----------------------------------------------------------------------------

    def actions(self) -> Sequence[str] | None:
        """Return the admissible actions; None where none are listed."""
        return None if self.over else self.game.view.admissible_actions

    def numbered(self, line: str) -> str:
        """Return the action that a line is, or names by its number.

        Raises:
            UsageError: No action has that number.
        """
        actions = self.actions()
        if not actions or not line.isdecimal() or line in actions:
            return line  # where nothing is listed, a number is an action like any other
        if not 1 <= int(line) <= len(actions):
            raise UsageError(f"there is no action {line}; :actions lists {len(actions)}")
        return actions[int(line) - 1]

    def _show(self) -> None:
        self.say(self.game.view.observation)
        if self.list_actions and not self.over and self.actions():
            self._show_actions()

    def _show_actions(self) -> None:
        actions = self.actions()
        if actions is None:
            self.say("the episode is over" if self.over else "this environment lists no actions")
            return
        self.say(in_columns([f"{number:4} {action}" for number, action in enumerate(actions, 1)]))

    def _show_end(self) -> None:
        turns, info = self.game.taken, self.game.info
        why = "out of turns" if self.game.truncated else "won" if info["won"] else "lost"
        reward = turns[-1].reward
        self.say(f"{why}: turns {len(turns)}, score {info['score']:g}, last reward {reward:g}")

    def _show_history(self) -> None:
        lines = [
            f"  {turn:3} {taken.action}{'  (the model)' if taken.sample else ''}"
            for turn, taken in enumerate(self.game.taken, 1)
        ]
        self.say("\n".join(lines) or "no actions yet")

    def _show_branches(self) -> None:
        lines = [
            f"  {number:3} turns {len(branch.taken)}, score {branch.score:g}, last:"
            f" {branch.taken[-1].action}"
            for number, branch in enumerate(self.game.branches, 1)
        ]
        self.say("\n".join(lines) or "no way was left yet; :undo or :back leaves one")

    # What is done -----------------------------------------------------------------------------

    def nothing(self) -> None:
        """Do what an empty line says: nothing."""

    def forget(self) -> None:
        """Drop what was about to be done: the episode is elsewhere now."""

    def act(self, action: str) -> None:
        """Take a turn in a person's own words."""
        self.refuse_over()
        self.show_taken(self.game.act(action, action))

    def show_taken(self, taken: Taken) -> None:
        """Show what came of a turn."""
        self.forget()
        if not taken.admissible:
            self.say(f"({self.env.name} does not know the action {taken.action!r})")
        self._show()
        if self.over:
            self._show_end()

    def refuse_over(self) -> None:
        """Refuse to act when the episode is over.

        Raises:
            UsageError: It is.
        """
        if self.over:
            raise UsageError(OVER)

    def _expert(self, argument: str) -> None:
        if not self.env.has_expert:
            raise UsageError(f"{self.env.name} has no expert")
        self.refuse_over()
        if not argument:
            self.say(f"expert: {self._expert_action()}")
            return
        for _ in range(count(argument)):
            action = self._expert_action()
            self.say(f"expert: {action}")
            self.act(action)
            if self.over:
                return

    def _expert_action(self) -> str:
        action = self.env.expert()
        if action is None:
            raise UsageError("the expert knows no action here")
        return action

    def _reset(self, task: str) -> None:
        snapshot = self.env.snapshot()
        self.start(task or snapshot.task, snapshot.seed)

    def _undo(self, argument: str) -> None:
        number, turns = count(argument or "1"), len(self.game.taken)
        if number > turns:
            raise UsageError(f"cannot take back {number} of {turns} actions")
        self._go_back(turns - number)

    def _go_back(self, turn: int) -> None:
        self.game.back_to(turn)
        self.forget()
        self.say(f"back at turn {turn}")
        self._show()

    def _switch(self, number: int) -> None:
        self.game.switch(number)
        self.forget()
        self.say(f"at turn {len(self.game.taken)} of another branch")
        self._show()
        if self.over:
            self._show_end()

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("say where to: `:save FILE`")
        episode = self.game.trajectory()
        try:
            with Path(name).expanduser().open("ab") as stream:
                stream.write(json_line(trajectory_line(episode)))
        except (OSError, RuntimeError, ValueError) as error:  # ~NOBODY is a RuntimeError
            why = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"cannot write {name}: {why}") from error
        what = "won" if episode.won else "not won, and so not learnt from"
        self.say(f"saved to {name}: {len(episode.turns)} turns, {what}")


def count(argument: str) -> int:
    """Return a number of turns, 1 or more.

    Raises:
        UsageError: It is none.
    """
    if not argument.isdecimal() or int(argument) < 1:
        raise UsageError(f"expected a number, 1 or more, got {argument!r}")
    return int(argument)


def _number(argument: str) -> int:
    if not argument.isdecimal():
        raise UsageError(f"expected a number of turns, got {argument!r}")
    return int(argument)


def play(session: Session, read: Callable[[str], str | None]) -> None:
    """Play until :quit or the end of the input; a line that does not fit is said and passed over.

    Args:
        session: What is played, already started.
        read: Shows a prompt and returns the next line, None at the end of the input.
    """
    while (line := read(session.prompt)) is not None:
        try:
            if not session.handle(line):
                return
        except (UsageError, DataError) as error:
            session.say(str(error))
