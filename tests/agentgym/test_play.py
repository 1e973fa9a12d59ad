"""A person, or a script, at the controls of an environment."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from agentgym.envs.corridor import CorridorEnv
from agentgym.errors import UsageError
from agentgym.play import Session, play


class Table(list[str]):
    """What the session said, line by line."""

    def __call__(self, text: str) -> None:
        self.extend(text.split("\n"))


@pytest.fixture
def said() -> Table:
    return Table()


@pytest.fixture
def session(said: Table) -> Iterator[Session]:
    env = CorridorEnv("corridor/test", max_turns=6)
    session = Session(env, said, list_actions=False)
    session.start("test-000", seed=0)  # three rooms
    yield session
    env.close()


def colour(session: Session) -> str:
    action = session.env.expert()
    assert action is not None
    return action


def wrong(session: Session) -> str:
    return next(door for door in session.complete("") if door != colour(session))


def test_a_start_shows_the_task_the_goal_and_the_observation(session: Session, said: Table) -> None:
    assert said[:2] == ["task: test-000", f"goal: follow {colour(session)}"]
    assert said[-1].startswith("doors ")
    assert session.prompt == "[turn 0, score 0] > "


def test_a_line_is_an_action(session: Session, said: Table) -> None:
    session.handle(f"  {colour(session)} \n")
    assert session.env.snapshot().actions == (colour(session),)
    assert session.prompt == "[turn 1, score 0] > "


def test_a_number_is_the_action_of_that_number(session: Session) -> None:
    doors = session.complete("")
    session.handle("2")
    assert session.env.snapshot().actions == (doors[1],)


def test_a_number_is_an_action_like_any_other_where_none_are_listed(session: Session) -> None:
    session.game.view = replace(session.game.view, admissible_actions=None)
    session.handle("7")
    assert session.env.snapshot().actions == ("7",)


@pytest.mark.parametrize("line", ["0", "4", "999"])
def test_a_number_that_is_not_listed_is_refused_and_costs_nothing(
    session: Session, line: str
) -> None:
    with pytest.raises(UsageError, match=f"no action {line}; :actions lists 3"):
        session.handle(line)
    assert session.env.snapshot().actions == ()


def test_an_action_that_the_environment_does_not_know_is_said(
    session: Session, said: Table
) -> None:
    session.handle("dance")
    assert "(corridor does not know the action 'dance')" in said


def test_an_empty_line_does_nothing(session: Session) -> None:
    assert session.handle("  \n")
    assert session.env.snapshot().actions == ()


def test_actions_are_listed_with_their_numbers(session: Session, said: Table) -> None:
    doors = session.complete("")
    session.handle(":actions")
    assert said[-1].split() == ["1", doors[0], "2", doors[1], "3", doors[2]]


def test_actions_are_listed_after_each_observation_where_that_is_wanted(said: Table) -> None:
    session = Session(CorridorEnv("corridor/test"), said)
    session.start("test-000", 0)
    listed = said[-1]
    session.handle(colour(session))
    assert listed.split()[::2] == said[-1].split()[::2] == ["1", "2", "3"]


def test_the_expert_shows_its_action_or_takes_some(session: Session, said: Table) -> None:
    session.handle(":expert")
    assert said[-1] == f"expert: {colour(session)}"
    assert session.env.snapshot().actions == ()
    session.handle(":expert 2")
    assert session.env.snapshot().actions == (colour(session),) * 2


def test_the_expert_stops_when_the_episode_is_over(session: Session, said: Table) -> None:
    session.handle(":expert 6")
    assert said[-1] == "won: turns 3, score 1, last reward 1"
    assert session.over
    for line in ("red", ":expert", ":expert 1"):
        with pytest.raises(UsageError, match="the episode is over"):
            session.handle(line)


def test_an_undo_brings_back_what_was_seen_before(session: Session, said: Table) -> None:
    before = said[-2:]
    session.handle(wrong(session))
    assert said[-1] == "dead end"
    session.handle(":undo")
    assert said[-3:] == ["back at turn 0", *before]
    session.handle(":expert 3")
    assert said[-1].startswith("won: turns 3")


def test_an_undo_leads_back_from_the_end_and_several_turns(session: Session, said: Table) -> None:
    session.handle(":expert 3")
    session.handle(":undo 2")
    assert not session.over
    assert session.env.snapshot().actions == (colour(session),)
    session.handle(":expert 2")
    assert said[-1].startswith("won: turns 3")


@pytest.mark.parametrize("line", [":undo 2", ":undo 0", ":undo -1", ":undo all"])
def test_an_undo_that_does_not_fit_is_refused_and_changes_nothing(
    session: Session, line: str
) -> None:
    session.handle(colour(session))
    with pytest.raises(UsageError):
        session.handle(line)
    assert len(session.env.snapshot().actions) == 1


def test_losing_and_running_out_of_turns_are_told_apart(session: Session, said: Table) -> None:
    for _ in range(6):
        session.handle("dance")
    assert said[-1] == "out of turns: turns 6, score 0, last reward 0"
    session.handle(":reset")
    session.handle(wrong(session))
    session.handle("back")
    session.handle(wrong(session))
    assert said[-1] == "lost: turns 3, score 0, last reward 0"


def test_a_reset_starts_the_same_task_or_another(session: Session, said: Table) -> None:
    session.handle(":expert 1")
    session.handle(":reset")
    assert session.env.snapshot().task == "test-000"
    assert session.env.snapshot().actions == ()
    session.handle(":reset test-002")
    assert session.env.snapshot().task == "test-002"
    with pytest.raises(UsageError, match="unknown task"):
        session.handle(":reset test-999")


def test_goal_and_history_are_shown_on_demand(session: Session, said: Table) -> None:
    session.handle(":history")
    assert said[-1] == "no actions yet"
    session.handle("dance")
    session.handle("back")
    session.handle(":history")
    assert said[-2:] == ["    1 dance", "    2 back"]
    session.handle(":goal")
    assert said[-1] == f"goal: follow {colour(session)}"


def test_help_names_every_command(session: Session, said: Table) -> None:
    said.clear()
    session.handle(":help")
    for command in session.complete(":"):
        assert any(line.split()[0].strip("`;") == command for line in said)


def test_an_unknown_command_names_the_nearest(session: Session) -> None:
    with pytest.raises(UsageError, match="unknown command ':udno'; did you mean :undo"):
        session.handle(":udno")


def test_what_is_near_no_command_leads_to_their_list(session: Session) -> None:
    with pytest.raises(UsageError, match=r":help tells what each does"):
        session.handle(":xyzzy")


def test_completion_offers_commands_and_admissible_actions(session: Session) -> None:
    red = colour(session)
    assert red in session.complete("")
    assert session.complete(red[:-1]) == [red]
    assert session.complete(":un") == [":undo"]
    session.handle(":expert 3")
    assert session.complete("") == []


def test_lines_are_played_until_quit_and_mistakes_are_passed_over(
    session: Session, said: Table
) -> None:
    lines = iter([":udno", "99", colour(session), ":quit", "never read"])
    play(session, lambda _: next(lines))
    assert next(lines) == "never read"
    assert len(session.env.snapshot().actions) == 1
    assert any("did you mean :undo" in line for line in said)


def test_the_end_of_the_input_ends_the_play(session: Session) -> None:
    prompts: list[str] = []

    def read(prompt: str) -> str | None:
        prompts.append(prompt)
        return colour(session) if len(prompts) == 1 else None

    play(session, read)
    assert prompts == ["[turn 0, score 0] > ", "[turn 1, score 0] > "]
