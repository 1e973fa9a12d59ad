"""The demonstrator of generated search: what it knows it has read, and slips do not stop it."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from agentgym.envs.search import SearchEnv
from agentgym.envs.search_data import Article
from agentgym.envs.search_demonstrator import PATIENCE, Demonstrator, Memory, documents
from agentgym.envs.search_protocols import PROTOCOLS
from agentgym.errors import UsageError

ADA = Article("0", "Ada Venberg", "Ada Venberg (born 1900) was a painter. She was born in Halith.")
RAIN = Article("1", "Blue Rain", "Blue Rain (1931) is a novel. It was written by Ada Venberg.")
PUZZLE = "In which city was the author of Blue Rain born?"


def play(env: SearchEnv, task: str, slips: float = 0.0, protocol: str = "search_r1"):
    """Play a task; return whether it was won, and the turns."""
    observation, info = env.reset(seed=0, options={"task": task})
    rng = random.Random(task)
    player = Demonstrator(info["goal"], rng, protocol)
    over, turns = False, 0
    while not over:
        action = player.act(observation)
        if rng.random() < slips:
            action = player.slip()
        observation, _, terminated, truncated, info = env.step(action)
        assert info["admissible"]
        over, turns = terminated or truncated, turns + 1
    return info["won"], turns


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_wins_in_every_protocol(protocol) -> None:
    env = SearchEnv(suite="search/gen-train", protocol=protocol)
    games = {task: play(env, task, protocol=protocol) for task in env.suite.tasks[:90]}
    assert mean(won for won, _ in games.values()) >= 0.98
    assert all(turns <= int(task.split("-")[1]) + 2 for task, (_, turns) in games.items())


def test_it_wins_the_easy_questions_and_in_spite_of_slips() -> None:
    env = SearchEnv(suite="search/gen-easy-train")
    tasks = env.suite.tasks[:150]
    assert all(play(env, task)[0] for task in tasks)
    assert mean(play(env, task, slips=0.25)[0] for task in tasks) >= 0.97


def test_it_searches_reads_and_answers() -> None:
    player = Demonstrator(PUZZLE, random.Random(0))
    show = PROTOCOLS["search_r1"].show
    assert player.act(PUZZLE) == "<search>Blue Rain</search>"
    assert player.act(show([[RAIN]], str)) == "<search>Ada Venberg</search>"
    assert player.act(show([[RAIN, ADA]], str)) == "<answer>Halith</answer>"


def test_it_does_not_search_for_what_it_happened_to_read() -> None:
    player = Demonstrator(PUZZLE, random.Random(0))
    both = PROTOCOLS["search_r1"].show([[ADA, RAIN]], str)
    assert player.act(both) == "<answer>Halith</answer>"


def test_it_says_it_differently_and_gives_up_at_last() -> None:
    player = Demonstrator(PUZZLE, random.Random(0))
    actions = [player.act("<information>Nothing was found.</information>") for _ in range(7)]
    by_name, with_words = "<search>Blue Rain</search>", "<search>Blue Rain author</search>"
    assert actions == [by_name, with_words] * (PATIENCE // 2) + ["<answer>unknown</answer>"]


def test_who_meets_two_conditions_is_searched_for_by_both() -> None:
    question = "Who was born in the birthplace of Ada Venberg and studied at Elm College?"
    player = Demonstrator(question, random.Random(0))
    shown = PROTOCOLS["search_r1"].show([[ADA]], str)
    assert player.act(shown) == "<search>Halith Elm College</search>"
    text = "Ida Bor (born 1910) was a lawyer. She studied at Elm College. She was born in Halith."
    found = PROTOCOLS["search_r1"].show([[Article("2", "Ida Bor", text)]], str)
    assert player.act(found) == "<answer>Ida Bor</answer>"


def test_of_two_both_are_read_before_it_answers() -> None:
    player = Demonstrator("Who taught the elder of Ada Venberg and Ida Bor?", random.Random(0))
    show = PROTOCOLS["search_r1"].show
    assert player.act(show([[ADA]], str)) == "<search>Ida Bor</search>"
    text = "Ida Bor (born 1890) was a lawyer. She was taught by Otto Ek."
    assert player.act(show([[Article("2", "Ida Bor", text)]], str)) == "<answer>Otto Ek</answer>"


def test_a_slip_is_a_search_for_something_else() -> None:
    player = Demonstrator(PUZZLE, random.Random(0))
    player.act(PROTOCOLS["search_r1"].show([[RAIN, ADA]], str))
    slips = {player.slip() for _ in range(100)}
    assert {"<search>Ada Venberg</search>", "<search>Ada Rain</search>"} <= slips
    assert all(one.startswith("<search>") for one in slips)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_documents_are_read_in_every_protocol(protocol) -> None:
    shown = PROTOCOLS[protocol].show([[ADA, RAIN], [], [RAIN]], str)
    pairs = [(one.title, one.text) for one in (ADA, RAIN, RAIN)]
    assert [(title, text.split("\n")[0]) for title, text in documents(shown)] == pairs


def test_a_question_that_shows_nothing_has_no_documents() -> None:
    assert not list(documents(PUZZLE))


def test_memory_answers_by_subject_and_by_object() -> None:
    memory = Memory()
    memory.read(PROTOCOLS["search_r1"].show([[ADA, RAIN]], str))
    assert memory.value("Blue Rain", "author") == "Ada Venberg"
    assert memory.value("Ada Venberg", "spouse") is None
    assert list(memory.subjects("birthplace", "Halith")) == ["Ada Venberg"]
    assert list(memory.names) == ["Ada Venberg", "Blue Rain"]


def test_a_question_of_another_world_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot read the question"):
        Demonstrator("When was Napoleon born?", random.Random(0))
