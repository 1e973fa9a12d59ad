"""A conformance suite that every environment must pass: :func:`check_env`.

Each check is a function that is named after what it demands and raises :class:`Violation` where
the environment does otherwise. An environment that lives in a process of its own
(``needs_process``) is checked one copy at a time.
"""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from gymnasium.utils import env_checker

from agentgym.envs.base import TextEnv
from agentgym.envs.check_walk import (
    WEIRD_ACTIONS,
    Trial,
    Violation,
    begin,
    check_turn,
    demand,
    expect,
    finish,
    listed,
    over,
    same,
    try_some,
    walk,
)
from agentgym.errors import EpisodeError, UsageError

_STATES = 4  # of a walk in which admissible actions are tried


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str  # what it demands, in words
    passed: bool
    detail: str  # what the environment did instead; empty where it passed


def check_env(make: Callable[[], TextEnv], tasks: int = 3, seed: int = 0) -> tuple[Finding, ...]:
    """Check that an environment keeps the contract.

    Args:
        make: Builds a new copy; called many times.
        tasks: How many tasks of the suite are played, at least 1.
        seed: Chooses the tasks and the random actions.

    Returns:
        One finding a check, in the order of :data:`CHECKS`.

    Raises:
        UsageError: ``tasks`` is below 1, or what ``make`` raises.
        DataError: What ``make`` raises: the suite's data is not there.
    """
    if tasks < 1:
        raise UsageError(f"tasks is {tasks}; at least 1 is needed to check anything")
    env = make()
    known = sorted(set(env.suite.tasks))
    env.close()
    sample = random.Random(f"{seed}:check").sample(known, min(tasks, len(known)))
    trial = Trial(make, tuple(sample), seed)
    return tuple(_find(check, trial) for check in CHECKS)


def _find(check: Callable[[Trial], None], trial: Trial) -> Finding:
    name = check.__name__.replace("_", " ")
    try:
        check(trial)
    except Violation as violation:
        return Finding(name, False, str(violation))
    except Exception as error:  # whatever the environment raises out of turn is a finding too
        return Finding(name, False, f"raised {type(error).__name__}: {error}")
    return Finding(name, True, "")


# The checks ---------------------------------------------------------------------------------------


def lists_every_task_once(trial: Trial) -> None:
    """Suites have unique names below the environment's; the one in use lists distinct tasks."""
    with trial.env() as env:
        names, tasks = env.suite_names(), env.suite.tasks
        demand(len(set(names)) == len(names), f"suite_names() has a name twice: {names}")
        for name in names:
            demand(name.startswith(f"{env.name}/"), f"suite {name!r} is not below {env.name}/")
        demand(env.default_suite in names, f"default_suite {env.default_suite!r} is not listed")
        demand(env.suite.name in names, f"suite {env.suite.name!r} is not listed")
        demand(bool(tasks), f"suite {env.suite.name} has no task")
        twice = [task for task in set(tasks) if tasks.count(task) > 1]
        demand(not twice, f"suite {env.suite.name} lists {twice[:3]} more than once")


def gives_a_suite_one_meaning(trial: Trial) -> None:
    """Two copies have the same suite: name, tasks and order."""
    with trial.env() as env:
        first = env.suite
    with trial.env() as env:
        demand(env.suite == first, "two copies disagree on the suite or its order of tasks")
        demand(env.load_suite(first.name) == first, "load_suite differs from the suite in use")


def starts_the_task_it_is_asked_for(trial: Trial) -> None:
    """A reset with a task starts that task, whose type was known before."""
    with trial.env() as env:
        for task in trial.tasks:
            expected = env.task_type(task)
            _, info = env.reset(seed=trial.seed, options={"task": task})
            demand(info["task_id"] == task, f"asked for {task!r}, started {info['task_id']!r}")
            found = info["task_type"]
            demand(found == expected, f"task_type({task!r}) is {expected!r}, info says {found!r}")


def refuses_what_it_does_not_know(trial: Trial) -> None:
    """An unknown suite, task or reset option is a usage error."""
    with trial.env() as env:
        nothing = f"{env.name}/no such suite"
        expect(UsageError, "load_suite of an unknown suite", lambda: env.load_suite(nothing))
        expect(
            UsageError,
            "a reset to an unknown task",
            lambda: env.reset(seed=0, options={"task": "no such task"}),
        )
        expect(
            UsageError,
            "a reset with an unknown option",
            lambda: env.reset(seed=0, options={"no such option": 1}),
        )


def refuses_to_act_out_of_turn(trial: Trial) -> None:
    """There is no step or snapshot before a reset, and no step after the end."""
    with trial.env() as env:
        expect(EpisodeError, "a step before a reset", lambda: env.step(""))
        expect(EpisodeError, "a snapshot before a reset", env.snapshot)
        finish(env, begin(env, trial.tasks[0], trial.seed), lambda: "")
        expect(EpisodeError, "a step after the end", lambda: env.step(""))


def ends_once_and_on_time(trial: Trial) -> None:
    """An episode is truncated at its last turn, unless it terminates; never is it both."""
    with trial.env() as env:
        env.reset(seed=trial.seed, options={"task": trial.tasks[0]})
        for number in range(1, env.max_turns + 1):
            _, _, terminated, truncated, _ = env.step("")
            demand(not (terminated and truncated), "an episode is terminated and truncated")
            if terminated:
                return
            late = f"max_turns is {env.max_turns}, truncated is {truncated} at turn {number}"
            demand(truncated == (number == env.max_turns), late)


def tells_what_info_promises(trial: Trial) -> None:
    """Info has the keys of :class:`agentgym.types.Info` with values of their types.

    It has an answer where the environment says so, and only there.
    """
    with trial.env() as env:
        for task in trial.tasks:
            for turn in walk(env, trial, task).turns:
                check_turn(turn)
                told = "answer" in turn[4]
                demand(
                    told == env.has_answer,
                    f"has_answer is {env.has_answer}, and info has {'an' if told else 'no'} answer",
                )


def takes_any_text_for_an_action(trial: Trial) -> None:
    """Unknown text is an outcome, not an exception, and not admissible."""
    with trial.env() as env:
        for action in WEIRD_ACTIONS:
            env.reset(seed=trial.seed, options={"task": trial.tasks[0]})
            turn = env.step(action)
            check_turn(turn)
            demand(not turn[4]["admissible"], f"the action {action[:20]!r} passes for admissible")


def knows_its_admissible_actions(trial: Trial) -> None:
    """Actions that info calls admissible are."""
    with trial.env() as env:
        for task in trial.tasks:
            walked = walk(env, trial, task)
            listing = [number for number, turn in enumerate(walked.turns) if listed(turn)]
            rng = trial.rng(task)
            for number in rng.sample(listing, min(_STATES, len(listing))):
                try_some(env, walked.snapshot(number), rng, listed(walked.turns[number]))


def plays_alike_in_two_copies(trial: Trial) -> None:
    """The same seed and actions give the same text, rewards, flags and info in another copy."""
    with trial.env() as env:
        walks = [walk(env, trial, task) for task in trial.tasks]
        _, drawn = env.reset(seed=trial.seed)
    with trial.env() as env:
        for walked in walks:
            same(walked.turns, walked.again(env), "in another copy")
        _, again = env.reset(seed=trial.seed)
        demand(
            again["task_id"] == drawn["task_id"],
            f"seed {trial.seed} draws {drawn['task_id']!r}, then {again['task_id']!r}",
        )


def is_not_disturbed_by_another_copy(trial: Trial) -> None:
    """Two copies that are played by turns say what each says alone, unless each has a process."""
    with trial.env() as env, trial.env() as other:
        if env.needs_process:
            return
        alone = walk(env, trial, trial.tasks[0])
        beside = begin(other, trial.tasks[-1], trial.seed + 1)
        together = [begin(env, trial.tasks[0], trial.seed)]
        for action in alone.actions:
            if over(beside):
                beside = begin(other, trial.tasks[-1], trial.seed + 1)
            else:
                beside = other.step("")
            together.append(env.step(action))
        same(alone.turns, together, "beside another copy")


def comes_back_from_a_snapshot(trial: Trial) -> None:
    """A pickled snapshot restored in another copy gives the same episode from there on."""
    halves = []
    with trial.env() as env:
        for task in trial.tasks:
            walked = walk(env, trial, task)
            taken = env.snapshot()
            demand(taken == walked.snapshot(len(walked.actions)), f"the snapshot is {taken}")
            half = len(walked.actions) // 2
            walked.play(env, half)
            halves.append((walked, half, pickle.dumps(env.snapshot())))
    with trial.env() as env:
        for walked, half, saved in halves:
            observation, info = env.restore(pickle.loads(saved))  # noqa: S301 (our own bytes)
            restored = (observation, *walked.turns[half][1:4], info)
            rest = [env.step(action) for action in walked.actions[half:]]
            same(walked.turns[half:], [restored, *rest], "after a restore")


def has_an_expert_that_wins(trial: Trial) -> None:
    """The expert wins every sampled task in time; without one ``expert()`` is None."""
    with trial.env() as env:
        for task in trial.tasks:
            turn = begin(env, task, trial.seed)
            if env.has_expert:
                last = finish(env, turn, lambda: env.expert() or "")
                demand(
                    last[4]["won"], f"the expert does not win {task!r}, it ends with {last[0]!r}"
                )
            else:
                demand(env.expert() is None, "has_expert is False, yet expert() has an action")


def closes_for_good(trial: Trial) -> None:
    """Closing twice is the same as closing once, and nothing starts afterwards."""
    with trial.env() as env:
        env.reset(seed=trial.seed, options={"task": trial.tasks[0]})
        saved = env.snapshot()
        env.close()
        env.close()
        expect(EpisodeError, "a reset after close", lambda: env.reset(seed=0))
        expect(EpisodeError, "a restore after close", lambda: env.restore(saved))
        expect(EpisodeError, "a step after close", lambda: env.step(""))


def satisfies_gymnasium(trial: Trial) -> None:
    """Gymnasium's own checker has neither an error nor a warning; there is nothing to render."""
    with trial.env() as env, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            env_checker.check_env(env, skip_render_check=True)
        except AssertionError as error:
            raise Violation(str(error)) from error
    said = [str(warning.message) for warning in caught if "gymnasium" in warning.filename]
    demand(not said, "; ".join(said))


CHECKS: tuple[Callable[[Trial], None], ...] = (
    lists_every_task_once,
    gives_a_suite_one_meaning,
    starts_the_task_it_is_asked_for,
    refuses_what_it_does_not_know,
    refuses_to_act_out_of_turn,
    ends_once_and_on_time,
    tells_what_info_promises,
    takes_any_text_for_an_action,
    knows_its_admissible_actions,
    plays_alike_in_two_copies,
    is_not_disturbed_by_another_copy,
    comes_back_from_a_snapshot,
    has_an_expert_that_wins,
    closes_for_good,
    satisfies_gymnasium,
)
"""Every check, the simplest demands first."""
