"""From trajectories to how likely the answer was before each of their turns."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from agentgym.envs.alfworld import ALFWorldEnv
from agentgym.envs.corridor import CorridorEnv
from agentgym.envs.scienceworld import ScienceWorldEnv
from agentgym.envs.search import SearchEnv
from agentgym.envs.webshop import WebShopEnv
from agentgym.errors import UsageError
from agentgym.policies.conversation import Script
from agentgym.policies.gold_answer import AnswerForm, WrittenAnswer
from agentgym.policies.hf import HFPolicy
from agentgym.policies.prompt import load_prompt
from agentgym.rollout import env_seed
from agentgym.trainers.answer_scores import (
    AnswerScorer,
    answer_scorer,
    expert_plans,
    own_answers,
    prefix_copies,
    refuse_without_answers,
    scores_of_policy,
    turn_starts,
)
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Need
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain
from agentgym.trainers.tiny import train_tokenizer
from agentgym.types import EnvSpec, Group, Key, Row, Snapshot, Stop, Trajectory, Turn
from agentgym.workers import WorkerPool

ANSWER = WrittenAnswer((4, 9, 2), 1)


class Form:
    """Writes every answer alike."""

    def write(self, answer: str) -> WrittenAnswer:
        return ANSWER


@pytest.fixture
def learner(make_model: Callable[..., nn.Module]) -> Learner:
    return Learner(make_model(torch.float32), OptimOptions(), 9, Need.ANSWER_SCORES)


def scored(
    learner: Learner, trajectories: list[Trajectory], room: int = 128
) -> list[tuple[float, ...]]:
    """Score the members of one group by the learner."""
    scorer = AnswerScorer(Form(), learner.score_answers, own_answers, room)
    (group,) = scorer([Group("t", tuple(trajectories))], SimpleNamespace(), "0")
    assert [t.key for t in group.trajectories] == [t.key for t in trajectories]
    return [t.answer_logprobs for t in group.trajectories]


def test_a_model_too_small_for_a_prompt_and_an_answer_is_refused(learner: Learner) -> None:
    tokenizer = train_tokenizer(["Now there is enough to give the answer."] * 9, 300)
    script = Script(load_prompt("search", "tags", "full"), tokenizer)
    chain = build_chain({"name": "igpo", "base": "dapo"}, 9)
    form = AnswerForm(script.prompt.template.format, tokenizer)
    shortest = len(form.write("a").ids)
    answer_scorer(chain, script, learner, SimpleNamespace(max_context=shortest + 1))
    with pytest.raises(UsageError, match=f"turn_rewards of .*igpo.* reads {shortest} tokens"):
        answer_scorer(chain, script, learner, SimpleNamespace(max_context=shortest))


def test_a_turn_starts_where_its_first_token_is() -> None:
    row = Row((1,) * 9, (-1, -1, 0, 0, -1, 1, 1, -1, 3), (0.0,) * 9, (0,) * 9)
    assert turn_starts(row) == [(2, 0), (5, 1), (8, 3)]
    alone = Row((1, 1), (-1, 4), (0.0,) * 2, (0,) * 2)
    assert turn_starts(alone) == [(1, 4)]


def test_a_growing_context_is_one_row_and_a_rebuilt_one_a_row_a_turn(
    make_trajectory: Callable[..., Trajectory],
) -> None:
    turns = (2, 1, 4)  # three tokens of a prompt stand before each
    ((row, of_row),) = prefix_copies(make_trajectory(turns=turns), [ANSWER] * 3, 99)
    assert row.cuts == (3, 8, 12)  # 3; 3 + 2 + 3; 8 + 1 + 3
    assert len(row.ids) == 12  # nothing behind the last cut
    assert of_row == [0, 1, 2]
    found = list(prefix_copies(make_trajectory(turns=turns, layout="window"), [ANSWER] * 3, 99))
    assert [(copies.cuts, turns) for copies, turns in found] == [((3,), [n]) for n in range(3)]


def test_layouts_are_scored_each_by_what_its_turns_saw(
    learner: Learner, make_trajectory: Callable[..., Trajectory], make_model: Callable
) -> None:
    model = make_model(torch.float32)
    for layout in ("full", "window"):
        trajectory = replace(make_trajectory(turns=(2, 1, 4), layout=layout), answer="gold")
        (found,) = scored(learner, [trajectory])
        for turn, value in enumerate(found):
            row = trajectory.rows[turn if layout == "window" else 0]
            ids = torch.tensor([*row.ids[: row.turns.index(turn)], *ANSWER.ids])
            logp = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            expected = (logp[-3, 9] + logp[-2, 2]) / 2  # the first of the three is not its own
            assert value == pytest.approx(expected.item(), abs=1e-5)


def test_the_sampler_scores_what_the_learner_scores(
    learner: Learner, make_trajectory: Callable[..., Trajectory], make_model: Callable
) -> None:
    ends = SimpleNamespace(eos_token_id=0)
    policy = HFPolicy(make_model(torch.float32), ends)
    row, _ = next(prefix_copies(make_trajectory(turns=(2, 1, 4)), [ANSWER] * 3, 99))
    (by_sampler,) = scores_of_policy(policy, [row])
    (by_learner,) = learner.score_answers([row])
    assert by_sampler == pytest.approx(by_learner, abs=1e-5)
    assert scores_of_policy(policy, []) == []


def test_a_trajectory_without_an_answer_and_a_prompt_without_room_are_not_scored(
    learner: Learner, make_trajectory: Callable[..., Trajectory]
) -> None:
    with_answer = replace(make_trajectory(turns=(2, 1, 4)), answer="gold")
    without = make_trajectory(member=1, turns=(2, 2))
    found = scored(learner, [without, with_answer], room=8 + 3)
    assert [math.isnan(value) for value in found[0]] == [True, True]
    assert [math.isnan(value) for value in found[1]] == [False, False, True]  # 12 + 3 > 11


def test_a_learner_that_was_not_asked_for_answer_scores_has_none(make_model: Callable) -> None:
    with pytest.raises(UsageError, match="ANSWER_SCORES"):
        Learner(make_model(), OptimOptions(), 9).score_answers([])


# Environments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [CorridorEnv, SearchEnv, WebShopEnv])
def test_environments_with_an_answer_are_taken(env) -> None:
    refuse_without_answers(build_chain({"name": "igpo"}, 9), env)


@pytest.mark.parametrize("env", [ALFWorldEnv, ScienceWorldEnv])
def test_an_environment_without_an_answer_is_refused_unless_its_expert_stands_in(env) -> None:
    with pytest.raises(UsageError) as refused:
        refuse_without_answers(build_chain({"name": "igpo"}, 9), env)
    for word in ("turn_rewards", "igpo", "ANSWER_SCORES", env.name, "method.answer = expert"):
        assert word in str(refused.value)
    refuse_without_answers(build_chain({"name": "igpo", "answer": "expert"}, 9), env)
    refuse_without_answers(build_chain({"name": "grpo"}, 9), env)


def test_an_expert_that_is_not_there_cannot_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CorridorEnv, "has_expert", False)
    with pytest.raises(UsageError, match="corridor has no expert"):
        refuse_without_answers(build_chain({"name": "igpo", "answer": "expert"}, 9), CorridorEnv)


def corridor_episode(*actions: str) -> Trajectory:
    """Return what is needed of an episode in a corridor of two rooms, whose task has a plan."""
    turns = tuple(Turn("seen", action, action, None, True, 0.0, "seen") for action in actions)
    return Trajectory(
        Key("train-000", 0), "corridor/train", "2 rooms", "goal", turns, (), Stop.TURNS, False, 0.0
    )


def test_the_experts_remaining_plan_begins_where_the_turn_does() -> None:
    env = CorridorEnv("corridor/train")
    _, info = env.reset(seed=0, options={"task": "train-000"})
    right = info["goal"].removeprefix("follow ")
    wrong = next(c for c in info["admissible_actions"] if c != right)
    assert info["answer"] == f"{right} {right}"
    with closing(WorkerPool(EnvSpec("corridor", {"suite": "corridor/train"}))) as pool:
        found = expert_plans([corridor_episode(wrong, "back", right)], pool, "0:1")
    both = f"{right}\n{right}"
    assert found == [[both, f"back\n{both}", both]]


def test_a_plan_that_does_not_end_in_the_turns_that_are_left_is_none() -> None:
    options = {"suite": "corridor/train", "max_turns": 3}
    env = CorridorEnv("corridor/train")
    _, info = env.reset(seed=0, options={"task": "train-000"})
    right = info["goal"].removeprefix("follow ")
    with closing(WorkerPool(EnvSpec("corridor", options))) as pool:
        found = expert_plans([corridor_episode("what", "what", "what")], pool, "0:1")
    assert found == [[f"{right}\n{right}", f"{right}\n{right}", None]]


def test_a_lost_expert_has_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CorridorEnv, "expert", lambda self: None)
    with closing(WorkerPool(EnvSpec("corridor", {"suite": "corridor/train"}))) as pool:
        assert expert_plans([corridor_episode("red", "red")], pool, "0:1") == [[None, None]]


def test_what_episodes_have_in_common_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    restored, restore = [], CorridorEnv.restore

    def listen(self: CorridorEnv, snapshot: Snapshot) -> object:
        restored.append(snapshot.actions)
        return restore(self, snapshot)

    monkeypatch.setattr(CorridorEnv, "restore", listen)
    with closing(WorkerPool(EnvSpec("corridor", {"suite": "corridor/train"}))) as pool:
        episodes = [corridor_episode("red", "red"), corridor_episode("red", "blue")]
        first, second = expert_plans(episodes, pool, "0:1")
        assert sorted(restored) == [(), ("red",)]
        assert first == second == expert_plans(episodes[1:], pool, "0:1")[0]


def test_the_last_plan_stands_where_the_expert_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    expert = CorridorEnv.expert

    def with_a_fixed_path(self: CorridorEnv) -> str | None:
        action = expert(self)
        return None if action == "back" else action

    monkeypatch.setattr(CorridorEnv, "expert", with_a_fixed_path)
    env = CorridorEnv("corridor/train")
    _, info = env.reset(seed=0, options={"task": "train-000"})
    right = info["goal"].removeprefix("follow ")
    wrong = next(c for c in info["admissible_actions"] if c != right)
    with closing(WorkerPool(EnvSpec("corridor", {"suite": "corridor/train"}))) as pool:
        episodes = [corridor_episode(right, wrong, "what"), corridor_episode(wrong, "what")]
        found = expert_plans(episodes, pool, "0:1")
    both = f"{right}\n{right}"
    assert found == [[both, right, right], [both, both]]


def test_the_environment_of_a_plan_has_the_seed_of_the_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds = []
    begin = CorridorEnv.begin

    def noting(self, task, seed):
        seeds.append(seed)
        return begin(self, task, seed)

    monkeypatch.setattr(CorridorEnv, "begin", noting)
    with closing(WorkerPool(EnvSpec("corridor", {"suite": "corridor/train"}))) as pool:
        expert_plans([corridor_episode("red")], pool, "7:3")
    assert seeds == [env_seed("7:3", "train-000")]
