"""Random, expert and replay policies."""

from collections import Counter
from pathlib import Path

import pytest

from agentgym.errors import DataError, EnvFault, EpisodeError, UsageError
from agentgym.policies.scripted import (
    ExpertPolicy,
    HumanPolicy,
    RandomPolicy,
    ReplayPolicy,
    make_scripted,
    replay_of,
)
from agentgym.types import View


def view(
    turn: int = 0, actions: tuple[str, ...] | None = ("a", "b", "c"), expert: str | None = None
) -> View:
    return View("observation", "goal", turn, actions, expert)


def drawn(task: str, seed: int, turns: range) -> list[str]:
    policy = RandomPolicy()
    policy.begin(task, seed)
    return [policy.act(view(turn)) for turn in turns]


def test_random_actions_are_a_function_of_task_seed_and_turn() -> None:
    assert drawn("t", 1, range(40)) == drawn("t", 1, range(40))
    assert drawn("t", 1, range(20, 40)) == drawn("t", 1, range(40))[20:]
    assert drawn("t", 1, range(40)) != drawn("t", 2, range(40))
    assert drawn("t", 1, range(40)) != drawn("u", 1, range(40))


def test_random_actions_are_uniform_over_the_admissible_ones() -> None:
    counts = Counter(drawn("t", 0, range(3000)))
    # binomial(3000, 1/3): mean 1000, standard deviation 25.8; four of them are 103
    assert set(counts) == {"a", "b", "c"}
    assert all(abs(count - 1000) < 103 for count in counts.values())


@pytest.mark.parametrize("actions", [None, ()])
def test_the_random_policy_wants_admissible_actions(actions: tuple[str, ...] | None) -> None:
    with pytest.raises(UsageError, match="named none"):
        RandomPolicy().act(view(actions=actions))


def test_the_expert_policy_declares_its_need_and_does_what_the_expert_says() -> None:
    assert ExpertPolicy().needs_expert
    assert ExpertPolicy().act(view(expert="b")) == "b"


def test_an_expert_that_knows_no_action_is_a_fault_of_the_environment() -> None:
    with pytest.raises(EnvFault, match="knows no action at turn 3"):
        ExpertPolicy().act(view(turn=2))


def test_a_replay_takes_its_actions_in_order_in_every_episode() -> None:
    policy = ReplayPolicy(["x", "y"])
    for task in ("t", "u"):
        policy.begin(task, 0)
        assert [policy.act(view(turn)) for turn in range(2)] == ["x", "y"]
    with pytest.raises(EpisodeError, match="2 actions and the episode wants another"):
        policy.act(view(2))


def test_scripted_policies_are_found_by_name() -> None:
    assert make_scripted("expert").name == "expert"
    assert make_scripted("random").name == "random"
    with pytest.raises(UsageError, match="unknown policy 'expret'; did you mean expert"):
        make_scripted("expret")


def test_a_random_action_of_a_template_names_an_object_wherever_one_belongs() -> None:
    policy = RandomPolicy()
    policy.begin("t", 0)
    templates, objects = ("<search>OBJ</search>", "use OBJ on OBJ", "OBJECT"), ("x", r"\1")
    views = [View("", "", turn, None, None, templates, objects) for turn in range(60)]
    assert {policy.act(one) for one in views} == {
        "OBJECT",
        *(f"<search>{one}</search>" for one in objects),
        *(f"use {one} on {other}" for one in objects for other in objects),
    }


def test_a_replay_of_a_file_takes_the_actions_of_each_tasks_first_episode(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    lines = [("t", "x"), ("u", "y"), ("t", "z")]
    path.write_text(
        "".join(f'{{"task": "{t}", "turns": [{{"action": "{a}"}}]}}\n' for t, a in lines)
    )
    policy = replay_of(path)
    said = []
    for task in ("t", "u"):
        policy.begin(task, 0)
        said.append(policy.act(view(0)))
    assert said == ["x", "y"]
    with pytest.raises(UsageError, match="no actions for task v"):
        policy.begin("v", 0)


def test_a_file_that_holds_no_episodes_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"task": "t", "turns": []}\n{"task": "t"}\n')
    with pytest.raises(
        DataError, match=r"f\.jsonl, line 2 is no episode: it needs a task, and turns"
    ):
        replay_of(path)


def test_a_person_sees_task_goal_observation_and_actions_and_says_one_or_its_number() -> None:
    shown: list[str] = []
    asked: list[str] = []
    lines = iter(["", "  c ", "2", "7", None])

    def read(prompt: str) -> str | None:
        asked.append(prompt)
        return next(lines)

    policy = HumanPolicy(read, shown.append)
    policy.begin("t", 0)
    said = [policy.act(view(turn)) for turn in range(3)]
    assert said == ["c", "b", "7"]  # an empty line is asked again; 7 is no number of an action
    assert asked == ["[turn 0] > ", "[turn 0] > ", "[turn 1] > ", "[turn 2] > "]
    assert shown[:3] == ["task: t", "goal: goal\n", "observation"]
    assert shown[3].split() == ["1", "a", "2", "b", "3", "c"]
    with pytest.raises(UsageError, match="does not count"):
        policy.act(view(3))
