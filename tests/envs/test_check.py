"""The conformance suite: sound environments pass, and each broken one is caught by its check."""

import random
import warnings
from dataclasses import replace

import pytest

from agentgym.envs.alfworld import ALFWorldEnv
from agentgym.envs.check import CHECKS, check_env
from agentgym.envs.corridor import CorridorEnv
from agentgym.errors import UsageError

fresh = random.Random(0)  # never seeded by an episode: what a careless environment draws from


class TwiceListed(CorridorEnv):
    def load_suite(self, name):
        suite = super().load_suite(name)
        return replace(suite, tasks=(*suite.tasks, suite.tasks[0]))


class Reshuffled(CorridorEnv):
    def load_suite(self, name):
        suite = super().load_suite(name)
        return replace(suite, tasks=tuple(fresh.sample(suite.tasks, len(suite.tasks))))


class OtherTask(CorridorEnv):
    def begin(self, task, seed):
        return super().begin("train-000", seed)


class OtherType(CorridorEnv):
    def task_type(self, task):
        return "rooms"

    def _info(self, admissible):
        return {**super()._info(admissible), "task_type": "corridor"}


class AnySuite(CorridorEnv):
    def load_suite(self, name):
        return super().load_suite(self.default_suite)


class AnyOption(CorridorEnv):
    def reset(self, *, seed=None, options=None):
        task = (options or {}).get("task")
        return super().reset(seed=seed, options={"task": task} if task else None)


class Undead(CorridorEnv):
    def step(self, action):
        if self._task is not None:
            self._over = False
        return super().step(action)


class Endless(CorridorEnv):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        self._over = terminated
        return observation, reward, terminated, False, info


class BothEndings(CorridorEnv):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, truncated, info


class NoGoal(CorridorEnv):
    def _info(self, admissible):
        return {key: value for key, value in super()._info(admissible).items() if key != "goal"}


class ListOfActions(CorridorEnv):
    def _info(self, admissible):
        info = super()._info(admissible)
        return {**info, "admissible_actions": list(info["admissible_actions"])}


class PrivateKey(CorridorEnv):
    def _info(self, admissible):
        return {**super()._info(admissible), "room": self._room}


class PercentScore(CorridorEnv):
    def _info(self, admissible):
        return {**super()._info(admissible), "score": 100.0}


class RewardOfNan(CorridorEnv):
    def act(self, action):
        return super().act(action)._replace(reward=float("nan"))


class Squeamish(CorridorEnv):
    def act(self, action):
        if len(action) > 100:
            raise ValueError("too long")
        return super().act(action)


class Credulous(CorridorEnv):
    def act(self, action):
        outcome = super().act(action)
        return outcome._replace(info={**outcome.info, "admissible": True})


class WrongMenu(CorridorEnv):
    def _info(self, admissible):
        return {**super()._info(admissible), "admissible_actions": ("open sesame",)}


class Moody(CorridorEnv):
    def act(self, action):
        outcome = super().act(action)
        return outcome._replace(observation=f"{outcome.observation} {fresh.random()}")


class Shared(CorridorEnv):
    spoken: list[str] = []  # noqa: RUF012 (the mistake)

    def begin(self, task, seed):
        if not self.spoken or self._task == task:
            self.spoken.clear()
        return super().begin(task, seed)

    def act(self, action):
        self.spoken.append(action)
        outcome = super().act(action)
        return outcome._replace(observation=f"{outcome.observation} {len(self.spoken)}")


class Forgetful(CorridorEnv):
    def snapshot(self):
        taken = super().snapshot()
        return replace(taken, actions=taken.actions[:-1])


class HiddenState(CorridorEnv):
    """Counts the resets of its process's copy, which no snapshot knows."""

    resets = 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        return super().reset(seed=seed, options=options)

    def act(self, action):
        outcome = super().act(action)
        return outcome._replace(observation=f"{outcome.observation} {self.resets}")


class BadExpert(CorridorEnv):
    def expert(self):
        return "back"


class SecretExpert(CorridorEnv):
    has_expert = False


class SecretAnswer(CorridorEnv):
    has_answer = False


class Immortal(CorridorEnv):
    def close(self):
        pass


class Fragile(CorridorEnv):
    def close(self):
        if self._closed:
            raise RuntimeError("closed twice")
        super().close()


class OwnRandomness(CorridorEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=fresh.randrange(1000), options=options)


class ActsAsIfSteppedEarlier(CorridorEnv):
    def step(self, action):
        if self._task is None:
            return "doors", 0.0, False, False, {}
        return super().step(action)


BROKEN = [
    (TwiceListed, "lists every task once"),
    (Reshuffled, "gives a suite one meaning"),
    (OtherTask, "starts the task it is asked for"),
    (OtherType, "starts the task it is asked for"),
    (AnySuite, "refuses what it does not know"),
    (AnyOption, "refuses what it does not know"),
    (ActsAsIfSteppedEarlier, "refuses to act out of turn"),
    (Undead, "refuses to act out of turn"),
    (Endless, "ends once and on time"),
    (BothEndings, "ends once and on time"),
    (NoGoal, "tells what info promises"),
    (ListOfActions, "tells what info promises"),
    (PrivateKey, "tells what info promises"),
    (PercentScore, "tells what info promises"),
    (RewardOfNan, "tells what info promises"),
    (SecretAnswer, "tells what info promises"),
    (Squeamish, "takes any text for an action"),
    (Credulous, "takes any text for an action"),
    (WrongMenu, "knows its admissible actions"),
    (Moody, "plays alike in two copies"),
    (HiddenState, "comes back from a snapshot"),
    (Shared, "is not disturbed by another copy"),
    (Forgetful, "comes back from a snapshot"),
    (BadExpert, "has an expert that wins"),
    (SecretExpert, "has an expert that wins"),
    (Immortal, "closes for good"),
    (Fragile, "closes for good"),
    (OwnRandomness, "satisfies gymnasium"),
]


def failed(make, tasks=3):
    return {
        finding.check: finding.detail for finding in check_env(make, tasks) if not finding.passed
    }


@pytest.mark.parametrize("suite", CorridorEnv.suite_names())
def test_the_corridor_conforms(suite):
    assert failed(lambda: CorridorEnv(suite), tasks=20) == {}


@pytest.mark.parametrize("suite", ["alfworld/gen-train", "alfworld/gen-unseen"])
def test_alfworld_conforms(suite):
    assert failed(lambda: ALFWorldEnv(suite), tasks=4) == {}


@pytest.mark.parametrize(
    ("kind", "check"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_broken_environment_is_caught_by_its_check(kind, check):
    found = failed(kind)
    assert check in found
    assert found[check]


def test_every_check_has_a_broken_environment_that_it_catches():
    names = [check.__name__.replace("_", " ") for check in CHECKS]
    assert {check for _, check in BROKEN} == set(names)


def test_a_finding_says_what_was_found_and_what_was_expected():
    assert failed(Squeamish)["takes any text for an action"] == "raised ValueError: too long"
    assert "info has no goal" in failed(NoGoal)["tells what info promises"]
    assert "is 100.0, expected 0 to 1" in failed(PercentScore)["tells what info promises"]


def test_a_warning_of_gymnasium_is_a_finding_and_goes_no_further():
    class OldSeed(CorridorEnv):
        def seed(self):
            return 0

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = failed(OldSeed)
    assert "`seed` function is dropped" in found["satisfies gymnasium"]
    assert not caught


def test_an_isolated_environment_is_checked_one_copy_at_a_time():
    class Alone(CorridorEnv):
        needs_process = True
        alive = 0

        def begin(self, task, seed):
            assert Alone.alive in (0, id(self)), "two copies at once"
            Alone.alive = id(self)
            return super().begin(task, seed)

        def close(self):
            Alone.alive = 0
            super().close()

    assert failed(Alone) == {}


def test_an_environment_whose_suite_is_missing_says_so_instead_of_failing_every_check():
    with pytest.raises(UsageError, match="did you mean corridor/train"):
        check_env(lambda: CorridorEnv("corridor/trian"))


def test_checking_no_task_is_refused():
    with pytest.raises(UsageError, match="at least 1"):
        check_env(CorridorEnv, tasks=0)
