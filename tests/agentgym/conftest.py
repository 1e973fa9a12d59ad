"""What several tests of the front door need: an environment of their own, and the command."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import pytest

from agentgym.cli import main
from agentgym.envs import registry
from agentgym.envs.base import Outcome, TextEnv
from agentgym.types import Info, Suite


class SayEnv(TextEnv):
    """Won by saying the number of the task; saying ``break`` breaks it, saying ``lose`` loses.

    Task 3 breaks whatever is said.
    """

    name = "say"
    default_suite = "say/all"
    default_max_turns = 3
    has_expert = True

    def __init__(
        self, suite: str | None = None, max_turns: int | None = None, loud: bool = False
    ) -> None:
        super().__init__(suite, max_turns)
        self.loud = loud

    @classmethod
    def suite_names(cls) -> tuple[str, ...]:
        return ("say/all", "say/published")

    def load_suite(self, name: str) -> Suite:
        if name not in self.suite_names():
            raise self.unknown_suite(name)
        return Suite(name, ("1", "2", "3", "4"), name == "say/published", True, "four numbers")

    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        self.task = task
        return f"which number? [bold]{seed}[/bold]\x1b[2J", self.info(False)

    def act(self, action: str) -> Outcome:
        if action == "break" or self.task == "3":
            raise ZeroDivisionError("broken on purpose")
        won = action == self.task
        return Outcome("yes" if won else "no", float(won), won or action == "lose", self.info(won))

    def expert(self) -> str | None:
        return self.task

    def info(self, won: bool) -> Info:
        return Info(
            task_id=self.task,
            task_type="odd" if int(self.task) % 2 else "even",
            goal=f"say {self.task}",
            won=won,
            score=float(won),
            admissible=True,
            anchor="which",
        )


Register = Callable[[type[TextEnv]], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register an environment's class under its name, for one test."""

    def add(kind: type[TextEnv]) -> None:
        module = ModuleType(f"module_of_{kind.name}")
        module.Kind = kind  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(registry._paths(), kind.name, f"{module.__name__}:Kind")

    return add


@pytest.fixture
def say_env(register: Register) -> type[SayEnv]:
    """The environment ``say``, registered."""
    register(SayEnv)
    return SayEnv


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def agentgym(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line as a shell would, and return its exit code and what it said."""

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["agentgym", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")  # so that no message is wrapped
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        code = exit_.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    return run
