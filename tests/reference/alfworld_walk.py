"""Walk two engines through the same generated games and compare what they say.

Run in a process of its own, for TextWorld changes the process it runs in. Prints one JSON object:
games, steps, task types, seconds, and every difference found.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agentgym.envs.alfworld_engine import Engine, GameEngine
from agentgym.envs.alfworld_expert import plan
from agentgym.envs.alfworld_files import GameFiles
from agentgym.envs.alfworld_generate import make_game
from agentgym.envs.alfworld_rooms import read_data
from agentgym.envs.alfworld_tasks import TASK_TYPES, scenes_for
from agentgym.envs.alfworld_textworld import TextWorldEngine

SIZES = (6, 8, 12, None)  # receptacles and types of objects; None is the whole room
RANDOM_STEPS = 64
QUIRKS = Path(__file__).parents[1] / "envs" / "alfworld_quirks.pddl"  # a kitchen, and a tour of it


@dataclass
class Report:
    games: int = 0
    expert_steps: int = 0
    random_steps: int = 0
    toured_steps: int = 0
    task_types: Counter[str] = field(default_factory=Counter)
    verbs: Counter[str] = field(default_factory=Counter)  # of the commands that did something
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0


def games(domain: str | None, grammar: str | None, per_type: int) -> Iterator[GameFiles]:
    """Yield games of all task types, from tiny rooms to whole ones."""
    for number in range(per_type):
        size = SIZES[number % len(SIZES)]
        for task_type in TASK_TYPES:
            seed = f"reference/{task_type}/{number}"
            scene = random.Random(seed).choice(scenes_for(task_type))
            yield make_game(
                seed,
                task_type,
                scene,
                domain=domain,
                grammar=grammar,
                max_receptacles=size,
                max_objects=size,
            )


def quirks(domain: str | None, grammar: str | None) -> GameFiles:
    """Return the game in which every command and sentence can be had."""
    game = {
        "pddl_domain": domain or read_data("domain.pddl"),
        "grammar": grammar or read_data("grammar.twl2"),
        "pddl_problem": QUIRKS.read_text(),
    }
    return GameFiles("quirks", game, {"task_type": "pick_two_obj_and_place"})


def said(engine: GameEngine, text: str) -> dict[str, object]:
    """Return all that a player gets from an engine."""
    return {
        "text": text,
        "admissible": engine.admissible,
        "reward": float(engine.won),
        "done": engine.won,
        "goal": engine.goal,
    }


class Walk:
    """One game in both engines."""

    def __init__(self, files: GameFiles, report: Report) -> None:
        self.files = files
        self.report = report
        self.native = Engine(files)
        self.textworld = TextWorldEngine(files)

    def compare(self, where: str, native: str, textworld: str) -> None:
        mine, theirs = said(self.native, native), said(self.textworld, textworld)
        for key, value in theirs.items():
            if mine[key] != value:
                self.report.differences.append(
                    f"{self.files.name} after {where!r}, {key}: native {mine[key]!r},"
                    f" TextWorld {value!r}"
                )

    def reset(self) -> None:
        self.compare("reset", self.native.reset(), self.textworld.reset())

    def step(self, command: str) -> None:
        if command in self.textworld.admissible:
            self.report.verbs[command.split()[0]] += 1
        self.compare(command, self.native.step(command), self.textworld.step(command))

    def win(self) -> None:
        """Follow the expert to the end."""
        for command in plan(self.native) or ():
            self.step(command)
            self.report.expert_steps += 1
        if not self.textworld.won:
            self.report.differences.append(f"{self.files.name}: the expert's plan did not win")

    def tour(self) -> None:
        """Give the commands of the tour; older grammars say *put* for *move*."""
        for command in re.findall("^> (.*)$", QUIRKS.with_suffix(".txt").read_text(), re.MULTILINE):
            put = re.sub(r"^move (.*) to ", r"put \1 in/on ", command)
            self.step(put if put in self.native.admissible else command)
            self.report.toured_steps += 1

    def wander(self, rng: random.Random) -> None:
        for _ in range(RANDOM_STEPS):
            self.step(spoilt(rng, drawn(rng, self.textworld.admissible)))
            self.report.random_steps += 1


def drawn(rng: random.Random, commands: tuple[str, ...]) -> str:
    """Return any command, or half of the time one of any verb: most commands are *go to*."""
    if rng.random() < 1 / 2:
        return rng.choice(commands)
    verb = rng.choice(sorted({command.split()[0] for command in commands}))
    return rng.choice([command for command in commands if command.split()[0] == verb])


def spoilt(rng: random.Random, command: str) -> str:
    """Return the command, one time in eight as no game or only a careful one understands it."""
    ways = (f"  {command}\n", command.upper(), f"{command} now", "", "go to the moon")
    return rng.choice(ways) if rng.random() < 1 / 8 else command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of another alfred.pddl and alfred.twl2")
    parser.add_argument("--per-type", type=int, default=len(SIZES), help="games of each type")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("N", "OF"))
    options = parser.parse_args()
    domain, grammar = (
        ((options.data / name).read_text() for name in ("alfred.pddl", "alfred.twl2"))
        if options.data
        else (None, None)
    )
    report, started = Report(), time.perf_counter()
    part, parts = options.part
    if part == 0:
        walk = Walk(quirks(domain, grammar), report)
        walk.reset()
        walk.tour()
        walk.textworld.close()
    for number, files in enumerate(games(domain, grammar, options.per_type)):
        if number % parts == part:
            walk = Walk(files, report)
            walk.reset()
            walk.win()
            walk.reset()
            walk.wander(random.Random(files.name))
            walk.win()
            walk.textworld.close()
            report.games += 1
            report.task_types[walk.native.task_type] += 1
    report.seconds = round(time.perf_counter() - started, 1)
    json.dump(report.__dict__, sys.stdout)


if __name__ == "__main__":
    main()
