"""The expert of generated search: it finds what it searches for and is always right."""

from __future__ import annotations

import random

import pytest

from agentgym.envs.search import SearchEnv
from agentgym.envs.search_expert import lookups
from agentgym.envs.search_facts import Entity, Facts
from agentgym.envs.search_generate import SETS, generate
from agentgym.envs.search_questions import Both, Clause, Compared, Named, Of
from agentgym.envs.search_retrieval import retriever_over

HELD_OUT = tuple(name for name, one in SETS.items() if one.held_out)


def episode(env: SearchEnv, task: str) -> tuple[bool, int]:
    """Let the expert play; return whether it won, and its turns."""
    env.reset(seed=0, options={"task": task})
    over, turns, won = False, 0, False
    while not over:
        action = env.expert()
        assert action is not None
        _, reward, terminated, truncated, info = env.step(action)
        over, turns, won = terminated or truncated, turns + 1, info["won"]
        assert reward == float(won)
    return won, turns


@pytest.mark.parametrize("name", HELD_OUT)
def test_the_expert_wins_every_held_out_task_in_one_turn_more_than_hops(name) -> None:
    env = SearchEnv(suite=f"search/{name}")
    for task in env.suite.tasks:
        won, turns = episode(env, task)
        assert won, task
        assert turns <= int(task.split("-")[1]) + 1 <= env.max_turns


@pytest.mark.parametrize("name", HELD_OUT)
def test_every_search_of_the_expert_finds_its_article(name) -> None:
    """So what the expert answers has been shown to it: it does not merely know the answer."""
    world = generate(name)
    retriever = retriever_over(world.articles)
    for question in world.questions:
        for hop in question.hops:
            found = [hit.article.id for hit in retriever.search(hop.query, 3)]
            assert hop.article in found, (question.id, hop.query)


@pytest.mark.parametrize("name", HELD_OUT)
def test_the_floor_is_low(name) -> None:
    """Whoever answers with some name without searching is hardly ever right."""
    world = generate(name)
    rng = random.Random(0)
    guesses = [rng.choice(world.articles).title for _ in world.questions]
    asked = zip(guesses, world.questions, strict=True)
    assert sum(guess in one.answers for guess, one in asked) <= 0.02 * len(guesses)


# The searches ---------------------------------------------------------------------------------


@pytest.fixture
def facts() -> Facts:
    """Two novels, their authors, who lived in one town and studied at one college."""
    made = Facts()
    for name in ("Ann Ask", "Bea Bor", "Cid Cas", "Blue Rain", "Red Rain", "Halith", "Elm College"):
        made.add_entity(Entity(name, "", ""))
    for subject, relation, value in [
        ("Blue Rain", "author", "Ann Ask"),
        ("Red Rain", "author", "Bea Bor"),
        ("Ann Ask", "born", "1900"),
        ("Bea Bor", "born", "1910"),
        ("Ann Ask", "birthplace", "Halith"),
        ("Bea Bor", "birthplace", "Halith"),
        ("Bea Bor", "university", "Elm College"),
        ("Cid Cas", "university", "Elm College"),
    ]:
        made.add(subject, relation, value)
    return made


BLUE, RED = Of("author", Named("Blue Rain")), Of("author", Named("Red Rain"))


def test_a_chain_is_looked_up_link_by_link(facts) -> None:
    assert lookups(Of("birthplace", BLUE), facts) == (
        ("Blue Rain", "Blue Rain"),
        ("Ann Ask", "Ann Ask"),
    )


def test_of_two_both_are_looked_up_and_neither_twice(facts) -> None:
    found = lookups(Of("birthplace", Compared("born", True, BLUE, RED)), facts)
    assert [one.name for one in found] == ["Blue Rain", "Red Rain", "Ann Ask", "Bea Bor"]


def test_who_meets_two_conditions_is_looked_up_by_both(facts) -> None:
    one = Clause("birthplace", Of("birthplace", Named("Ann Ask")))
    two = Clause("university", Named("Elm College"))
    assert lookups(Both(one, two), facts) == (
        ("Ann Ask", "Ann Ask"),
        ("Halith Elm College", "Bea Bor"),
    )
