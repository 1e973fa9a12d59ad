"""Each way to collapse alarms once, at the right step, and only what was asked for is done."""

from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from agentgym.trainers.guard import Alarm, Guard, GuardOptions, Verdict, detectors

GOOD = {
    "actor/entropy": 1.0,
    "response_length/mean": 50.0,
    "episode/valid_action_rate": 0.9,
    "episode/admissible_rate": 0.7,
    "episode/repeated_action_rate": 0.1,
    "group/frac_zero_std": 0.2,
    "rollout/logprob_abs_diff": 0.001,
}
QUICK = GuardOptions(baseline=2, patience=2)


def alarms(
    guard: Guard, steps: Mapping[int, Mapping[str, float]], last: int = 8
) -> list[tuple[int, str]]:
    """Return the alarms of good steps but for some, as (step, detector)."""
    found = []
    for step in range(1, last + 1):
        verdict = guard({"step": step, **GOOD, **steps.get(step, {})})
        found += [(alarm.step, alarm.detector.name) for alarm in verdict.alarms]
    return found


@pytest.mark.parametrize(
    ("name", "metric", "bad"),
    [
        ("entropy", "actor/entropy", 0.09),  # of 1: below a tenth
        ("entropy", "actor/entropy", 3.1),  # above three times as much
        ("length", "response_length/mean", 151.0),  # of 50: above three times
        ("length", "response_length/mean", 16.0),  # below a third, 16.67
        ("valid", "episode/valid_action_rate", 0.59),  # 0.9 - 0.3 = 0.6
        ("admissible", "episode/admissible_rate", 0.39),  # 0.7 - 0.3 = 0.4
        ("repeated", "episode/repeated_action_rate", 0.41),  # 0.1 + 0.3 = 0.4
        ("signal", "group/frac_zero_std", 1.0),
        ("drift", "rollout/logprob_abs_diff", 0.11),
    ],
)
def test_a_collapse_alarms_once_when_it_has_lasted(name: str, metric: str, bad: float) -> None:
    steps = {step: {metric: bad} for step in (4, 5, 6, 7)}
    assert alarms(Guard(QUICK), steps) == [(5, name)]


@pytest.mark.parametrize(
    ("metric", "fair"),
    [
        ("actor/entropy", 0.11),
        ("actor/entropy", 2.9),
        ("response_length/mean", 149.0),
        ("response_length/mean", 17.0),
        ("episode/valid_action_rate", 0.61),
        ("episode/admissible_rate", 0.41),
        ("episode/repeated_action_rate", 0.39),
        ("group/frac_zero_std", 0.98),
        ("rollout/logprob_abs_diff", 0.09),
    ],
)
def test_what_is_within_its_bounds_never_alarms(metric: str, fair: float) -> None:
    assert alarms(Guard(QUICK), {step: {metric: fair} for step in range(3, 9)}) == []


def test_a_bad_step_between_good_ones_does_not_alarm() -> None:
    steps = {step: {"actor/entropy": 0.0} for step in (3, 5, 7)}
    assert alarms(Guard(QUICK), steps) == []


def test_steps_that_tell_what_is_usual_do_not_alarm() -> None:
    steps = {1: {"actor/entropy": 0.5}, 2: {"actor/entropy": 1.5}}  # 1 on average
    assert alarms(Guard(QUICK), steps) == []


def test_a_metric_that_is_not_there_or_no_number_does_not_alarm() -> None:
    guard = Guard(QUICK)
    for step in range(1, 9):
        assert guard({"step": step, "actor/entropy": float("nan")}) == Verdict()


def test_an_alarm_names_step_metric_value_and_bound() -> None:
    said: list[str] = []
    alarms(Guard(QUICK, said.append), {s: {"response_length/mean": 400.0} for s in (4, 5)})
    assert said == [
        "collapse? step 5: the length of responses jumped: response_length/mean is 400, above 150;"
        " it was 50 in the first steps (guard.on_collapse is warn)"
    ]


@pytest.mark.parametrize(
    ("action", "verdict", "scaled"),
    [("warn", (False, False), []), ("save", (True, False), []), ("stop", (True, True), []),
     ("lower-lr", (False, False), [0.5])],
)  # fmt: skip
def test_only_what_was_asked_for_is_done(
    action: str, verdict: tuple[bool, bool], scaled: list[float]
) -> None:
    rates: list[float] = []
    options = QUICK.model_copy(update={"on_collapse": action})
    guard = Guard(options, scale_rate=rates.append)
    seen = [guard({"step": s, **GOOD, "group/frac_zero_std": 1.0}) for s in (1, 2, 3)]
    assert [(v.save, v.stop) for v in seen] == [(False, False), verdict, (False, False)]
    assert [v.metrics for v in seen] == [{}, {"guard/signal": 1.0}, {}]
    assert rates == scaled


def test_each_further_alarm_lowers_the_learning_rate_again() -> None:
    rates: list[float] = []
    guard = Guard(QUICK.model_copy(update={"on_collapse": "lower-lr"}), scale_rate=rates.append)
    steps = {s: {"rollout/logprob_abs_diff": 1.0} for s in (2, 3)}
    alarms(guard, steps | {s: {"actor/entropy": 0.0} for s in (6, 7)})
    assert rates == [0.5, 0.25]


def test_a_resumed_guard_goes_on_as_if_it_had_never_stopped() -> None:
    options = QUICK.model_copy(update={"on_collapse": "lower-lr"})
    bad = {3: {"group/frac_zero_std": 1.0}, 4: {"group/frac_zero_std": 1.0}}
    bad |= {6: {"actor/entropy": 9.0}, 7: {"actor/entropy": 9.0}}
    lines = [{"step": s, **GOOD, **bad.get(s, {})} for s in range(1, 9)]
    whole = Guard(options)
    lines = [line | whole(line).metrics for line in lines]
    for cut in range(len(lines) + 1):
        said: list[str] = []
        rates: list[float] = []
        guard = Guard(options, said.append, rates.append, past=lines[:cut])
        assert said == []
        after = [a.step for line in lines[cut:] for a in guard(line).alarms]
        assert after == [step for step in (4, 7) if step > cut]
        assert rates[-1] == 0.25


def test_one_collapse_that_two_detectors_see_lowers_the_learning_rate_once() -> None:
    options = QUICK.model_copy(update={"on_collapse": "lower-lr"})
    rates: list[float] = []
    guard = Guard(options, scale_rate=rates.append)
    off = {"episode/valid_action_rate": 0.1, "episode/admissible_rate": 0.1}
    assert alarms(guard, {4: off, 5: off}) == [(5, "valid"), (5, "admissible")]
    assert rates == [0.5]


def test_what_alarmed_nobody_before_a_run_was_resumed_does_not_lower_its_learning_rate() -> None:
    options = QUICK.model_copy(update={"on_collapse": "lower-lr"})
    past = [{"step": s, **GOOD, "episode/admissible_rate": 0.7 / s} for s in range(1, 9)]
    rates: list[float] = []
    Guard(options, scale_rate=rates.append, past=past)
    assert rates == []
    Guard(options, scale_rate=rates.append, past=[line | {"guard/signal": 1.0} for line in past])
    assert rates == []  # another was told of


def test_detectors_can_be_turned_off() -> None:
    names = ("entropy_low", "entropy_high", "length_factor", "valid_drop", "admissible_drop")
    off = dict.fromkeys((*names, "repeated_rise", "no_signal", "drift"), 0.0)
    assert detectors(GuardOptions(**off)) == []
    only = GuardOptions(**{**off, "entropy_low": 0.5})
    (entropy,) = detectors(only)
    assert entropy.bounds(2.0) == (1.0, float("inf"))


def test_an_entropy_that_was_nothing_from_the_start_is_not_called_a_collapse() -> None:
    guard = Guard(QUICK)
    for step in range(1, 8):
        assert not guard({"step": step, "actor/entropy": 0.0}).alarms


def test_an_alarm_reads_whichever_bound_was_left() -> None:
    (entropy, *_) = detectors(QUICK)
    assert "below 0.1" in str(Alarm(entropy, 3, 0.05, 0.1, 3.0, 1.0))
    assert "above 3" in str(Alarm(entropy, 3, 4.0, 0.1, 3.0, 1.0))


@pytest.mark.parametrize("name", ["entropy_high", "length_factor"])
def test_a_factor_that_would_always_alarm_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="above 1, or 0 for none"):
        GuardOptions(**{name: 0.5})
