"""A person beside a model: it proposes turns, the person takes them, edits them, or takes over.

An empty line lets the model propose a turn, token by token; another one takes the turn. A line that
is an action is taken instead, and the model reads it as if it had said so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from agentgym.envs.base import TextEnv
from agentgym.errors import UsageError
from agentgym.pilot import Pilot, Proposal
from agentgym.play import HELP, Session, count

PILOT_HELP = """
  empty line             let the model propose a turn, or take the turn that it proposed
  :again                 let it propose another turn
  :edit                  `:edit ACTION` takes its turn with that action in place of its own
  :go                    let it play to the end; `:go N` for N turns; Ctrl-C pauses it"""


@contextmanager
def never() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether the model is to pause: never."""
    yield lambda: False


class ModelSession(Session):
    """One person's episodes in one environment, beside a model.

    Args:
        env: What is played; the caller closes it.
        say: Shows a line, or several.
        pilot: The model.
        write: Shows a piece of a line, as the model says it.
        list_actions: Whether the admissible actions are listed after each observation.
        pausing: While it is entered, tells whether the model is to pause.
    """

    help = HELP + PILOT_HELP

    def __init__(
        self,
        env: TextEnv,
        say: Callable[[str], None],
        pilot: Pilot,
        write: Callable[[str], None],
        list_actions: bool = True,
        pausing: Callable[[], AbstractContextManager[Callable[[], bool]]] = never,
    ) -> None:
        super().__init__(env, say, list_actions)
        self.pilot = pilot
        self.write = write
        self.pausing = pausing
        self._proposal: Proposal | None = None
        self._again = 0  # proposals that were turned down at this turn
        self._commands |= {
            ":again": lambda _: self._propose_again(),
            ":edit": self._edit,
            ":go": self._go,
        }

    @property
    def prompt(self) -> str:
        """What stands before the next line: turn, score, and what the model is about to do."""
        if self._proposal is None:
            return super().prompt
        if not self._proposal.whole:
            return f"[{self.state}; paused] > "
        parsed = self._proposal.parsed
        return f"[{self.state}; {parsed.error or f'about to: {parsed.action}'}] > "

    def complete(self, text: str) -> list[str]:
        """Return the lines that begin with ``text``: commands, actions, edits."""
        if not text.startswith(":edit "):
            return super().complete(text)
        edits = [f":edit {action}" for action in self.actions() or ()]
        return [edit for edit in edits if edit.startswith(text)]

    def act(self, action: str) -> None:
        """Take a turn in place of the model."""
        self.refuse_over()
        self.show_taken(self.game.act(action, self.pilot.written(action)))

    def forget(self) -> None:
        """Drop what the model was about to do."""
        self._proposal, self._again = None, 0

    def nothing(self) -> None:
        """Let the model propose a turn, or finish one; or take the one that it proposed."""
        self.refuse_over()
        if self._proposal is not None and self._proposal.whole:
            self._take_proposal(self._proposal)
        else:
            self._propose()

    def _take_proposal(self, proposal: Proposal) -> None:
        parsed = proposal.parsed
        taken = self.game.act(parsed.action, parsed.text, parsed.error, proposal.sample)
        self.show_taken(taken)

    def _propose(self) -> None:
        if self._proposal is None:
            self.write(f"{self.pilot.name}: ")
        with self.pausing() as paused:
            proposal = self.pilot.propose(
                str(self.game.info["task_id"]),
                self.game.view,
                self.game.taken,
                self.write,
                paused,
                self._proposal,
                self._again,
            )
        self.say("")
        if proposal is None:
            raise UsageError("the model's context has no room for another turn; act, or :undo")
        self._proposal = proposal

    def _propose_again(self) -> None:
        self.refuse_over()
        self._proposal = None
        self._again += 1
        self._propose()

    def _edit(self, action: str) -> None:
        self.refuse_over()
        if self._proposal is None:
            raise UsageError("there is no proposal to edit; an empty line asks for one")
        if not action:
            raise UsageError("say what it does instead: `:edit ACTION`")
        action = self.numbered(action)
        text = self.pilot.written(action, self._proposal)
        self.show_taken(self.game.act(action, text))

    def _go(self, argument: str) -> None:
        self.refuse_over()
        left = count(argument) if argument else None
        while not self.over and left != 0:
            if self._proposal is None or not self._proposal.whole:
                self._propose()
            if self._proposal is None or not self._proposal.whole:  # paused
                return
            self._take_proposal(self._proposal)
            left = None if left is None else left - 1
