"""What several tests of environments share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentgym.envs.alfworld_files import GameFiles
from agentgym.envs.alfworld_rooms import read_data

HERE = Path(__file__).parent

TO_OLDER_GRAMMAR = [
    ('"move {o} to {r}"', '"put {o} in/on {r}"'),
    ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
    ("You arrive at {r.name}.", "You arrive at {lend.name}."),
]


def without_action(text: str, opening: str) -> str:
    """Return ``text`` without the block that begins with ``opening`` and a blank line ends."""
    before, found, after = text.partition(opening)
    assert found
    return before + after.partition("\n\n")[2]


@pytest.fixture
def quirks() -> Callable[..., GameFiles]:
    """A kitchen where every command and sentence can be had; ``older=True`` in older wording."""

    def make(*, older: bool = False, **game: object) -> GameFiles:
        domain, grammar = read_data("domain.pddl"), read_data("grammar.twl2")
        if older:
            for newer_text, older_text in TO_OLDER_GRAMMAR:
                assert newer_text in grammar
                grammar = grammar.replace(newer_text, older_text)
            grammar = without_action(grammar, "action help {")
            domain = without_action(domain, "(:action help")
        texts = {
            "pddl_domain": domain,
            "grammar": grammar.replace("UNKNOWN GOAL", "put two apple in cabinet"),
            "pddl_problem": (HERE / "alfworld_quirks.pddl").read_text(),
            "solvable": True,
            "walkthrough": None,
        }
        return GameFiles(
            "quirks", texts | game, {"task_type": "pick_two_obj_and_place", "pddl_params": {}}
        )

    return make
