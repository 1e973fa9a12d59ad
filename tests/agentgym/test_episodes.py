"""The statistics of an evaluation."""

from dataclasses import replace
from hashlib import sha256

import pytest

from agentgym.episodes import (
    Episode,
    data_digest,
    episode_of,
    summarise,
    unpublished_note,
    wilson,
)
from agentgym.errors import UsageError
from agentgym.types import Key, Stop, Suite, Trajectory, Turn, Usage

WON = Episode(
    task="a", sample=0, task_type="odd", won=True, score=1.0, turns=2, parsed=2, admissible=1,
    stop=Stop.TERMINATED, error=None, faults=0,
)  # fmt: skip
LOST = replace(WON, task="b", won=False, score=0.0, turns=4, parsed=1, stop=Stop.TURNS)
BROKEN = replace(LOST, task="c", turns=0, parsed=0, admissible=0, stop=Stop.ERROR, error="why")


def test_wilson_agrees_with_the_numbers_worked_by_hand() -> None:
    # z = 1.95996, z^2 = 3.84146, n = 10, p = 0.8:
    # centre = (0.8 + 3.84146 / 20) / 1.384146 = 0.992073 / 1.384146 = 0.716740
    # half = 1.95996 / 1.384146 * sqrt(0.16 / 10 + 3.84146 / 400)
    #      = 1.416006 * sqrt(0.02560365) = 1.416006 * 0.160011 = 0.226577
    assert wilson(0.8, 10) == pytest.approx((0.490163, 0.943317), abs=1e-5)
    # p = 0: low is 0, high = z^2 / (n + z^2) = 3.84146 / 13.84146 = 0.277533
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.277533), abs=1e-5)
    assert wilson(1.0, 10) == pytest.approx((0.722467, 1.0), abs=1e-5)
    # 90 %: z = 1.64485, z^2 = 2.70554, n = 1, p = 0: 2.70554 / 3.70554 = 0.730134
    assert wilson(0.0, 1, confidence=0.9) == pytest.approx((0.0, 0.730134), abs=1e-5)


def test_an_episode_that_a_fault_ended_counts_in_the_denominator_and_is_named() -> None:
    summary = summarise([WON, LOST, BROKEN])
    assert (summary.success.won, summary.success.episodes) == (1, 3)
    assert summary.success.value == pytest.approx(1 / 3)
    assert summary.score == pytest.approx(1 / 3)
    assert summary.stops == {"error": 1, "terminated": 1, "turns": 1}
    assert summary.errors == {"why": 1}


def test_rates_are_over_turns_and_means_over_episodes() -> None:
    summary = summarise([WON, LOST, BROKEN])
    assert summary.turns == pytest.approx((2 + 4 + 0) / 3)
    assert summary.parsed_rate == pytest.approx((2 + 1) / 6)
    assert summary.admissible_rate == pytest.approx((1 + 1) / 6)


def test_rates_over_no_turns_at_all_are_not_numbers() -> None:
    summary = summarise([BROKEN])
    assert summary.parsed_rate is None
    assert summary.admissible_rate is None


def test_success_is_told_by_task_type() -> None:
    summary = summarise([WON, replace(LOST, task_type="even"), replace(LOST, task="d")])
    assert list(summary.by_type) == ["even", "odd"]
    assert summary.by_type["odd"].value == pytest.approx(0.5)
    assert summary.by_type["even"].value == 0.0


def test_samples_of_one_task_do_not_narrow_the_interval() -> None:
    episodes = [replace(e, sample=sample) for e in (WON, LOST) for sample in range(50)]
    success = summarise(episodes).success
    assert (success.won, success.episodes, success.tasks) == (50, 100, 2)
    assert (success.low, success.high) == wilson(0.5, 2)


def test_pass_at_k_is_the_chance_that_k_of_the_samples_hold_a_won_one() -> None:
    # Task a: 1 of 3 won. k = 1: 1/3. k = 2: 1 - C(2,2)/C(3,2) = 1 - 1/3 = 2/3. k = 3: 1.
    # Task b: 0 of 3 won: 0 for every k. The mean over both tasks is half of a's.
    wins = [True, False, False]
    episodes = [replace(WON, sample=n, won=won) for n, won in enumerate(wins)]
    episodes += [replace(LOST, sample=n) for n in range(3)]
    assert summarise(episodes).pass_at == pytest.approx({1: 1 / 6, 2: 1 / 3, 3: 1 / 2})


def test_pass_at_1_is_the_success_rate() -> None:
    summary = summarise([WON, LOST, BROKEN])
    assert summary.pass_at == {1: pytest.approx(summary.success.value)}


def test_scores_are_told_by_task_type_beside_success() -> None:
    summary = summarise([WON, replace(LOST, task_type="even", score=0.4)])
    assert summary.score_by_type == {"even": 0.4, "odd": 1.0}
    assert summary.by_type["even"].value == 0.0


def test_what_an_endpoint_counted_is_summed_and_a_cost_only_if_all_have_one() -> None:
    usage = Usage(2, 100, 10, 20, 5, 0.5)
    assert summarise([WON]).usage is None
    whole = summarise([replace(WON, usage=usage), replace(LOST, usage=usage)]).usage
    assert whole == Usage(4, 200, 20, 40, 10, 1.0)
    some = summarise([replace(WON, usage=usage), replace(LOST, usage=replace(usage, cost=None))])
    assert some.usage == Usage(4, 200, 20, 40, 10, None)


def test_the_digest_of_the_data_is_of_what_was_shown_whatever_was_played() -> None:
    good = replace(WON, shown="1")
    played = [good, replace(LOST, shown="2"), replace(BROKEN, shown=None)]
    again = [replace(LOST, shown="2", won=True), replace(good, turns=9), good]
    assert data_digest(played) == data_digest(again)
    assert data_digest(played) != data_digest([good, replace(LOST, shown="3")])


def test_healed_faults_are_counted() -> None:
    assert summarise([replace(WON, faults=2), replace(LOST, faults=1)]).faults == 3


def test_no_episodes_have_no_statistics() -> None:
    with pytest.raises(UsageError, match="no episodes"):
        summarise([])


def test_an_episode_is_what_its_trajectory_says() -> None:
    good = Turn("o", "text", "go", None, True, 0.0, "o")
    bad = Turn("o", "text", "", "no action", False, 1.0, "o")
    trajectory = Trajectory(
        Key("a", 3), "s/x", "odd", "goal", (good, bad, bad), (), Stop.TERMINATED, True, 0.5, None, 1
    )
    assert episode_of(trajectory) == Episode(
        task="a", sample=3, task_type="odd", won=True, score=0.5, turns=3, parsed=1, admissible=1,
        stop=Stop.TERMINATED, error=None, faults=1, shown=sha256(b"goal\no").hexdigest()[:16],
    )  # fmt: skip


def test_only_a_published_suite_goes_without_a_note() -> None:
    suite = Suite("s/x", ("a",), official=True, held_out=True, about="one task")
    assert unpublished_note(suite) is None
    note = unpublished_note(replace(suite, official=False))
    assert note is not None
    assert "s/x (one task) is not a published test set" in note
