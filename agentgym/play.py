"""A person at the terminal, or a script on standard input, plays an environment.

A line is an action, or the number of a listed action, or a command that begins with a colon. The
session only reads and writes lines through two functions, so it does not know whether a terminal
is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agentgym.console import in_columns
from agentgym.envs.base import TextEnv
from agentgym.errors import UsageError, unknown

OVER = "the episode is over; :undo, :reset or :quit"

HELP = """\
  ACTION or its number   do it
  :actions               list the admissible actions
  :expert                show what the expert would do; `:expert N` lets it act N times
  :undo                  take back the last action; `:undo N` the last N
  :goal                  show the task again
  :history               show the actions so far
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

    def __init__(self, env: TextEnv, say: Callable[[str], None], list_actions: bool = True) -> None:
        self.env = env
        self.say = say
        self.list_actions = list_actions
        self.over = True
        self._info: dict[str, Any] = {}
        self._commands: dict[str, Callable[[str], None]] = {
            ":actions": lambda _: self._show_actions(),
            ":expert": self._expert,
            ":goal": lambda _: self.say(f"goal: {self._info['goal']}"),
            ":help": lambda _: self.say(HELP),
            ":history": lambda _: self._show_history(),
            ":reset": self._reset,
            ":undo": self._undo,
        }

    def start(self, task: str | None, seed: int) -> None:
        """Start an episode; None draws a task of the suite.

        Raises:
            UsageError: The suite has no such task.
        """
        options = None if task is None else {"task": task}
        observation, self._info = self.env.reset(seed=seed, options=options)
        self.over = False
        self.say(f"task: {self._info['task_id']}\ngoal: {self._info['goal']}\n")
        self._show(observation)

    @property
    def prompt(self) -> str:
        """What stands before the next line: the turn and the score so far."""
        turn = len(self.env.snapshot().actions)
        return f"[turn {turn}, score {self._info['score']:g}] > "

    def handle(self, line: str) -> bool:
        """Do what a line says; return False when it says to leave.

        Raises:
            UsageError: The line is a command that does not exist, or one that does not fit.
        """
        line = line.strip()
        if not line.startswith(":"):
            if line:
                self._act(self._numbered(line))
            return True
        command, _, argument = line.partition(" ")
        if command in (":quit", ":q"):
            return False
        if command not in self._commands:
            raise unknown("command", command, [*self._commands, ":quit"])
        self._commands[command](argument.strip())
        return True

    def complete(self, text: str) -> list[str]:
        """Return the commands, or the admissible actions, that begin with ``text``."""
        known = [*self._commands, ":quit"] if text.startswith(":") else self._actions() or ()
        return [name for name in known if name.startswith(text)]

    def _actions(self) -> Sequence[str] | None:
        return None if self.over else self._info.get("admissible_actions")

    def _numbered(self, line: str) -> str:
        actions = self._actions()
        if not actions or not line.isdecimal() or line in actions:
            return line  # where nothing is listed, a number is an action like any other
        if not 1 <= int(line) <= len(actions):
            raise UsageError(f"there is no action {line}; :actions lists {len(actions)}")
        return actions[int(line) - 1]

    def _act(self, action: str) -> None:
        if self.over:
            raise UsageError(OVER)
        observation, reward, terminated, truncated, self._info = self.env.step(action)
        self.over = terminated or truncated
        if not self._info["admissible"]:
            self.say(f"({self.env.name} does not know the action {action!r})")
        self._show(observation)
        if self.over:
            self._show_end(reward, truncated)

    def _show(self, observation: str) -> None:
        self.say(observation)
        if self.list_actions and not self.over and self._actions():
            self._show_actions()

    def _show_actions(self) -> None:
        actions = self._actions()
        if actions is None:
            self.say("the episode is over" if self.over else "this environment lists no actions")
            return
        self.say(in_columns([f"{number:4} {action}" for number, action in enumerate(actions, 1)]))

    def _show_end(self, reward: float, truncated: bool) -> None:
        turns = len(self.env.snapshot().actions)
        why = "out of turns" if truncated else "won" if self._info["won"] else "lost"
        score = self._info["score"]
        self.say(f"{why}: turns {turns}, score {score:g}, last reward {reward:g}")

    def _show_history(self) -> None:
        actions = self.env.snapshot().actions
        lines = [f"  {turn:3} {action}" for turn, action in enumerate(actions, 1)]
        self.say("\n".join(lines) or "no actions yet")

    def _expert(self, argument: str) -> None:
        if not self.env.has_expert:
            raise UsageError(f"{self.env.name} has no expert")
        if self.over:
            raise UsageError(OVER)
        if not argument:
            self.say(f"expert: {self._expert_action()}")
            return
        for _ in range(_count(argument)):
            action = self._expert_action()
            self.say(f"expert: {action}")
            self._act(action)
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
        snapshot = self.env.snapshot()
        count = _count(argument or "1")
        if count > len(snapshot.actions):
            raise UsageError(f"cannot take back {count} of {len(snapshot.actions)} actions")
        kept = snapshot.actions[:-count]
        observation, self._info = self.env.restore(replace(snapshot, actions=kept))
        self.over = False
        self.say(f"back at turn {len(kept)}")
        self._show(observation)


def _count(argument: str) -> int:
    if not argument.isdecimal() or int(argument) < 1:
        raise UsageError(f"expected a number of turns, 1 or more, got {argument!r}")
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
        except UsageError as error:
            session.say(str(error))
