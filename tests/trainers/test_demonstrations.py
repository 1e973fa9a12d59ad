"""Demonstrations as the tokens of a rollout."""

import pytest
from transformers import PreTrainedTokenizerFast

from agentgym.envs.alfworld import ALFWorldEnv
from agentgym.envs.alfworld_demonstrator import Demonstrator
from agentgym.envs.search import SearchEnv
from agentgym.envs.search_demonstrator import Demonstrator as Searcher
from agentgym.errors import UsageError
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import load_prompt
from agentgym.trainers.demonstrations import Demonstrations, row_of, texts_of
from agentgym.trainers.tiny import train_tokenizer
from agentgym.types import Sample

PROMPT = load_prompt("alfworld", "plain", "full")
TASKS = ("pick_and_place_simple-0000", "look_at_obj_in_light-0000")


def shown(seed: int = 0, slips: tuple[float, ...] = (0.3,)) -> Demonstrations:
    env = ALFWorldEnv("alfworld/gen-train", 30)
    return Demonstrations(env, Demonstrator, TASKS, seed, slips)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([text for n in range(2) for text in texts_of(shown()[n], PROMPT)], 500)


@pytest.fixture(scope="module")
def script(tokenizer: PreTrainedTokenizerFast) -> Script:
    return Script(PROMPT, tokenizer)


def test_a_demonstration_is_a_function_of_seed_and_number() -> None:
    forwards = [shown()[n] for n in range(4)]
    backwards = [shown()[n] for n in reversed(range(4))]
    assert forwards == backwards[::-1]
    assert forwards != [shown(seed=1)[n] for n in range(4)]


def test_every_round_goes_once_through_all_tasks_with_other_draws() -> None:
    demonstrations = shown()
    rounds = [[demonstrations[2 * r + n] for n in range(2)] for r in range(3)]
    assert all({one.task for one in part} == set(TASKS) for part in rounds)
    same_task = [one.turns for part in rounds for one in part if one.task == TASKS[0]]
    assert len(set(same_task)) > 1


def test_without_slips_the_demonstrator_alone_acts() -> None:
    demonstration = shown(slips=(0.0,))[0]
    assert demonstration.won
    assert not any(turn.slip for turn in demonstration.turns)


def test_slips_have_their_true_consequences() -> None:
    demonstrations = shown(slips=(0.5,))
    found = [demonstrations[n] for n in range(6)]
    assert sum(turn.slip for one in found for turn in one.turns) > 5
    for one in found:
        env = ALFWorldEnv("alfworld/gen-train", 30)
        observation, info = env.reset(seed=0, options={"task": one.task})
        for turn in one.turns:
            assert turn.view.observation == observation
            observation, _, _, _, info = env.step(turn.action)
        assert info["won"] == one.won
    seen = {turn.view.observation for one in found for turn in one.turns}
    assert "Nothing happens." in seen  # some slips are mistakes, and what follows them is seen


def test_tokens_are_those_of_a_conversation_and_slips_are_not_learnt(script: Script) -> None:
    demonstrations = shown(slips=(0.5,))
    demonstration = next(
        one for one in map(demonstrations.__getitem__, range(9)) if any(t.slip for t in one.turns)
    )
    row = row_of(demonstration, script)
    conversation, tokenizer = script.begin(), script.chat.tokenizer
    for number, turn in enumerate(demonstration.turns):
        before = conversation.observe(turn.view)
        said = [
            i for i in range(len(before), len(row.ids)) if row.ids[i] == script.chat.end_of_turn
        ]
        ids = row.ids[len(before) : said[0] + 1]
        assert row.ids[: len(before)] == before
        assert tokenizer.decode(ids[:-1], skip_special_tokens=False) == turn.action
        learnt = row.turns[len(before) : said[0] + 1]
        assert set(learnt) == ({-1} if turn.slip else {number})
        assert set(row.versions[len(before) : said[0] + 1]) == {0}  # told from observations
        parsed = conversation.say(Sample(ids, (0.0,) * len(ids), None, "stop", 0))
        assert parsed.action == turn.action
    assert conversation.rows()[0].ids == row.ids


def test_nothing_is_learnt_from_a_held_out_suite() -> None:
    with pytest.raises(UsageError, match="held out"):
        Demonstrations(ALFWorldEnv("alfworld/gen-seen"), Demonstrator, TASKS, 0)


def test_a_prompt_that_asks_for_reasoning_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tags = Script(load_prompt("alfworld", "tags", "full"), tokenizer)
    with pytest.raises(UsageError, match="plain template"):
        row_of(shown()[0], tags)


def test_a_tokenizer_reads_what_a_model_reads_and_writes(script: Script) -> None:
    demonstration = shown()[0]
    read = list(texts_of(demonstration, PROMPT))
    assert read[1::2] == [turn.action for turn in demonstration.turns]
    whole = script.chat.tokenizer.decode(
        row_of(demonstration, script).ids, skip_special_tokens=True
    )
    assert whole == "".join(read)


# Where no list of actions is named ------------------------------------------------------------


def test_a_player_slips_in_its_own_way_where_actions_have_no_list() -> None:
    env = SearchEnv("search/gen-easy-train")
    found = Demonstrations(env, Searcher, env.suite.tasks, 0, (0.5,))
    turns = [turn for number in range(20) for turn in found[number].turns]
    slips = [turn.action for turn in turns if turn.slip]
    assert 0.3 * len(turns) < len(slips) < 0.7 * len(turns)
    assert all(action.startswith("<search>") for action in slips)
    assert sum(found[number].won for number in range(20)) >= 18


class Mute:
    """Searches for nothing, and knows no mistakes."""

    def act(self, observation: str, admissible: tuple[str, ...]) -> str:
        return "<search>nothing</search>"


def test_slips_that_nobody_knows_are_refused() -> None:
    env = SearchEnv("search/gen-easy-train", max_turns=2)
    found = Demonstrations(env, lambda goal, rng: Mute(), env.suite.tasks, 0, (0.0, 1.0))
    with pytest.raises(UsageError, match="demonstrate without slips"):
        [found[number] for number in range(20)]
