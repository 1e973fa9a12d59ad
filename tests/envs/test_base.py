"""What all text environments do alike, shown on the smallest one."""

import pickle

import pytest

from agentgym.envs.base import Outcome, TextEnv, TextSpace
from agentgym.errors import EpisodeError, UsageError
from agentgym.types import Snapshot, Suite


class Counter(TextEnv):
    """Won by saying ``stop`` at the third turn or later."""

    name = "counter"
    default_suite = "counter/all"
    default_max_turns = 5

    @classmethod
    def suite_names(cls):
        return ("counter/all", "counter/other")

    def load_suite(self, name):
        if name not in self.suite_names():
            raise self.unknown_suite(name)
        return Suite(name, ("one", "two", "three"), official=False, held_out=False, about="")

    def begin(self, task, seed):
        if seed == 13:
            raise RuntimeError("unlucky")
        self.turn, self.id = 0, task
        return f"{task} {seed}", self.info(won=False)

    def act(self, action):
        self.turn += 1
        won = action == "stop" and self.turn >= 3
        return Outcome(f"turn {self.turn}", float(won), won, self.info(won))

    def info(self, won):
        return {"task_id": self.id, "won": won}


@pytest.fixture
def env():
    return Counter()


def test_the_default_suite_and_number_of_turns_are_the_classs(env):
    assert env.suite.name == "counter/all"
    assert env.max_turns == 5
    assert Counter("counter/other", max_turns=2).max_turns == 2


@pytest.mark.parametrize("turns", [0, -1])
def test_an_episode_of_no_turns_is_refused(turns):
    with pytest.raises(UsageError, match="at least 1 turn"):
        Counter(max_turns=turns)


def test_an_unknown_suite_task_or_reset_option_names_the_nearest(env):
    with pytest.raises(UsageError, match="did you mean counter/other"):
        Counter("counter/othr")
    with pytest.raises(UsageError, match="did you mean three"):
        env.reset(options={"task": "tree"})
    with pytest.raises(UsageError, match="did you mean task"):
        env.reset(options={"tsk": "one"})
    with pytest.raises(UsageError, match="unknown task of suite counter/all '3'"):
        env.reset(options={"task": 3})


def test_a_step_or_snapshot_before_a_reset_is_refused(env):
    with pytest.raises(EpisodeError, match="call reset first"):
        env.step("stop")
    with pytest.raises(EpisodeError, match="call reset first"):
        env.snapshot()


def test_the_same_seed_draws_the_same_tasks_and_episode_seeds(env):
    drawn = [env.reset(seed=4)[0], *(env.reset()[0] for _ in range(5))]
    again = [env.reset(seed=4)[0], *(env.reset()[0] for _ in range(5))]
    assert drawn == again
    assert len(set(drawn)) == len(drawn)  # without a seed the generator goes on


def test_a_seed_is_the_episodes_own(env):
    assert env.reset(seed=4, options={"task": "two"})[0] == "two 4"
    assert env.snapshot() == Snapshot("counter/all", "two", 4, ())


def test_an_episode_is_truncated_after_its_last_turn_and_then_refuses_steps(env):
    env.reset(seed=0)
    flags = [env.step("go")[2:4] for _ in range(5)]
    assert flags == [(False, False)] * 4 + [(False, True)]
    with pytest.raises(EpisodeError, match="call reset first"):
        env.step("go")


def test_winning_at_the_last_turn_is_terminated_and_not_truncated(env):
    env.reset(seed=0)
    for _ in range(4):
        env.step("go")
    _, reward, terminated, truncated, info = env.step("stop")
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["won"]


def test_an_action_that_is_no_text_is_refused_and_costs_no_turn(env):
    env.reset(seed=0)
    with pytest.raises(EpisodeError, match="an action is a string, got int"):
        env.step(3)
    assert env.snapshot().actions == ()


def test_an_info_may_be_changed_without_touching_the_environments(env):
    env.kept = {"task_id": "one", "won": False}
    env.info = lambda won: env.kept
    _, info = env.reset(seed=0)
    info["won"] = "perhaps"
    assert env.step("go")[4]["won"] is False


def test_a_snapshot_brings_the_episode_back_in_another_copy(env):
    env.reset(seed=3, options={"task": "two"})
    env.step("go")
    env.step("stay")
    saved = pickle.loads(pickle.dumps(env.snapshot()))
    other = Counter()
    assert other.restore(saved)[0] == "turn 2"
    assert other.snapshot() == env.snapshot()
    assert other.step("stop") == env.step("stop")


def test_a_restored_episode_keeps_its_count_of_turns(env):
    env.restore(Snapshot("counter/all", "one", 0, ("go",) * 4))
    assert env.step("go")[3]
    env.restore(Snapshot("counter/all", "one", 0, ("go",) * 5))
    with pytest.raises(EpisodeError, match="call reset first"):
        env.step("go")


def test_a_snapshot_of_another_suite_or_task_is_refused(env):
    with pytest.raises(UsageError, match="make one with suite='counter/other'"):
        env.restore(Snapshot("counter/other", "one", 0, ()))
    with pytest.raises(UsageError, match="unknown task"):
        env.restore(Snapshot("counter/all", "four", 0, ()))


def test_a_start_that_fails_leaves_no_episode_to_act_in(env):
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="unlucky"):
        env.reset(seed=13)
    with pytest.raises(EpisodeError, match="call reset first"):
        env.step("go")


def test_a_closed_environment_stays_closed(env):
    env.reset(seed=0)
    saved = env.snapshot()
    env.close()
    env.close()
    for act in (env.reset, lambda: env.step("go"), lambda: env.restore(saved)):
        with pytest.raises(EpisodeError):
            act()


def test_an_environment_without_an_expert_says_none(env):
    env.reset(seed=0)
    assert env.expert() is None
    assert env.task_type("one") == "counter"


def test_every_string_is_text_and_nothing_else_is():
    space = TextSpace()
    assert all(text in space for text in ("", "go to desk 1", "\n", "x" * 10_000))
    assert not any(other in space for other in (None, 3, b"go", ["go"]))
    assert space == TextSpace() != "text"
    assert hash(space) == hash(TextSpace())
    assert not space.is_np_flattenable


def test_text_is_sampled_from_the_spaces_own_seed():
    one, two = TextSpace(), TextSpace()
    one.seed(1)
    two.seed(1)
    samples = [one.sample() for _ in range(20)]
    assert samples == [two.sample() for _ in range(20)]
    assert all(1 <= len(sample) < 12 for sample in samples)
    assert len(set(samples)) > 10
    with pytest.raises(UsageError, match="no mask"):
        one.sample(mask="a")
