"""A person beside a model: proposals, edits, taking over, pauses, branches, demonstrations."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentgym.cli_play import _interrupts
from agentgym.envs.corridor import CorridorEnv
from agentgym.errors import DataError, UsageError
from agentgym.pilot import Pilot
from agentgym.play import play
from agentgym.play_model import ModelSession
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import load_prompt
from agentgym.types import Request, Sample
from agentgym.voices import SamplingOptions


class Scripted:
    """A policy of letters that says given texts, one a turn, and tells what it read."""

    pacing = "rounds"
    version = 0
    max_context = 10_000

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.seeds: list[str] = []
        self.read: list[str] = []

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        (request,) = requests
        if not request.begun:
            self.turn = self.texts.pop(0) + "\0"
            self.seeds.append(request.seed)
            self.read.append("".join(map(chr, request.ids)))
        said = tuple(map(ord, self.turn[request.begun :][: request.max_tokens]))
        finish = "stop" if said[-1] == 0 else "length"
        return [Sample(said, (0.0,) * len(said), None, finish, 0)]


class Heard(list[str]):
    """What was shown, piece by piece."""

    def say(self, text: str) -> None:
        self.append(text + "\n")

    @property
    def lines(self) -> list[str]:
        return "".join(self).splitlines()


Make = Callable[..., ModelSession]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def beside(letters: Any, heard: Heard) -> Make:
    """Make a session on a task of three rooms, beside a model that says given texts."""

    def make(*texts: str, style: str = "plain", room: int = 5000, **options: Any) -> ModelSession:
        script = Script(load_prompt("corridor", style, "full"), letters)
        policy = Scripted(texts)
        sampling = SamplingOptions(max_tokens=60, max_context=room)
        session = ModelSession(
            CorridorEnv("corridor/test", max_turns=6),
            heard.say,
            Pilot(policy, script, sampling, 0, "m"),
            heard.append,
            list_actions=False,
            **options,
        )
        session.start("test-000", seed=0)
        session.policy = policy  # type: ignore[attr-defined]
        session.colour = session.env.expert()  # type: ignore[attr-defined]
        return session

    return make


def actions(session: ModelSession) -> tuple[str, ...]:
    return session.env.snapshot().actions


def test_an_empty_line_asks_for_a_turn_and_another_takes_it(beside: Make, heard: Heard) -> None:
    session = beside("back")
    session.handle("")
    assert actions(session) == ()
    assert session.prompt == "[turn 0, score 0; about to: back] > "
    assert heard.lines[-1] == "m: back"
    session.handle("")
    assert actions(session) == ("back",)
    assert session.prompt == "[turn 1, score 0] > "


def test_a_turn_is_shown_token_by_token(beside: Make, heard: Heard) -> None:
    session = beside("back")
    start = len(heard)
    session.handle("")
    assert heard[start:] == ["m: ", "b", "a", "c", "k", "", "\n"]


def test_the_model_reads_its_own_turns_in_its_own_tokens(beside: Make) -> None:
    session = beside("dance", "sing")
    for _ in range(4):
        session.handle("")
    first, second = session.policy.read
    assert second.startswith(first + "dance\0")


def test_a_person_takes_over_and_the_model_reads_it_as_its_own(beside: Make) -> None:
    session = beside("dance", "sing")
    session.handle("")
    session.handle("walk")  # in place of what was proposed
    assert actions(session) == ("walk",)
    session.handle("")
    first, second = session.policy.read
    assert second.startswith(first + "walk\0")


def test_what_a_person_types_is_read_as_text_whatever_it_spells(beside: Make) -> None:
    session = beside("dance", "sing")
    session.handle("")
    session.handle("walk \ud83d")  # half a character, which no tokenizer takes
    session.handle("")
    first, second = session.policy.read
    assert second.startswith(first + "walk ?\0")


def test_an_edit_keeps_the_thoughts_and_changes_the_action(beside: Make) -> None:
    said = "<think>a wall</think><action>dance</action>"
    session = beside(said, said, style="tags")
    session.handle("")
    session.handle(":edit back")
    assert actions(session) == ("back",)
    assert session.game.taken[0].text == "<think>a wall</think><action>back</action>"
    session.handle("")
    assert "<think>a wall</think><action>back</action>\0" in session.policy.read[1]


def test_in_tags_a_persons_action_is_written_with_its_tags(beside: Make) -> None:
    session = beside(style="tags")
    session.handle("back")
    assert session.game.taken[0].text == "<think></think><action>back</action>"
    assert actions(session) == ("back",)


def test_a_turn_that_breaks_the_format_says_so_before_it_is_taken(beside: Make) -> None:
    session = beside("dance", style="tags")
    session.handle("")
    assert session.prompt == "[turn 0, score 0; there is no <think>] > "
    session.handle("")
    assert session.game.taken[0].parse_error == "there is no <think>"
    assert actions(session) == ("",)


def test_another_proposal_has_other_draws_and_an_undo_the_same(beside: Make) -> None:
    session = beside("a", "b", "a")
    session.handle("")
    session.handle(":again")
    session.handle("")
    session.handle(":undo")
    session.handle("")
    first, second, third = session.policy.seeds
    assert first == third != second


def test_the_model_plays_to_the_end_or_some_turns(beside: Make, heard: Heard) -> None:
    session = beside("dance", "sing", *["x"] * 3)
    session.handle(":go 2")
    assert actions(session) == ("dance", "sing")
    session.policy.texts = [session.colour] * 3
    session.handle(":go")
    assert heard.lines[-1].startswith("won: turns 5")
    for line in ("", ":go", ":again", ":edit back"):
        with pytest.raises(UsageError, match="the episode is over"):
            session.handle(line)


def test_a_pause_stops_after_a_token_and_the_turn_goes_on_or_is_edited(
    beside: Make, heard: Heard
) -> None:
    presses = iter([False, True])

    @contextmanager
    def pausing() -> Iterator[Callable[[], bool]]:
        yield lambda: next(presses, False)

    session = beside("back", pausing=pausing)
    session.handle(":go")
    assert session.prompt == "[turn 0, score 0; paused] > "
    assert heard.lines[-1] == "m: ba"
    assert actions(session) == ()
    session.handle("")
    assert session.prompt == "[turn 0, score 0; about to: back] > "
    assert heard.lines[-1] == "ck"
    assert session.policy.seeds == ["0:play:test-000:0:0"]  # the same turn, not another one


def test_an_interrupt_pauses_and_a_second_one_ends() -> None:
    before = signal.getsignal(signal.SIGINT)
    with _interrupts() as paused:
        assert not paused()
        signal.raise_signal(signal.SIGINT)
        assert paused()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_context_without_room_says_so_and_the_person_goes_on(beside: Make) -> None:
    session = beside(room=100)
    with pytest.raises(UsageError, match="no room for another turn"):
        session.handle("")
    session.handle("back")
    assert actions(session) == ("back",)


def test_what_does_not_fit_is_refused(beside: Make) -> None:
    session = beside("back")
    with pytest.raises(UsageError, match="no proposal to edit"):
        session.handle(":edit back")
    session.handle("")
    with pytest.raises(UsageError, match="say what it does instead"):
        session.handle(":edit")
    assert ":edit" in session.complete(":")
    assert session.complete(":edit " + session.colour[:2]) == [f":edit {session.colour}"]


def test_help_names_the_commands_of_the_model_too(beside: Make, heard: Heard) -> None:
    session = beside()
    heard.clear()
    session.handle(":help")
    for command in session.complete(":"):
        assert any(line.split()[0].strip("`;") == command for line in heard.lines)


# Branches -----------------------------------------------------------------------------------------


def test_a_way_that_was_left_is_listed_and_gone_back_to(beside: Make, heard: Heard) -> None:
    session = beside("dance")
    session.handle(":go 1")
    session.handle("sing")
    session.handle(":back 1")
    session.handle("walk")
    session.handle(":branches")
    assert heard.lines[-1] == "    1 turns 2, score 0, last: sing"
    session.handle(":branch 1")
    assert actions(session) == ("dance", "sing")
    assert session.game.taken[0].sample is not None
    session.handle(":branches")
    assert heard.lines[-1] == "    1 turns 2, score 0, last: walk"
    session.handle(":back")
    assert actions(session) == ()


def test_an_end_that_was_left_is_an_end_when_it_is_gone_back_to(beside: Make, heard: Heard) -> None:
    session = beside()
    session.handle(":expert 3")
    session.handle(":undo")
    session.handle("dance")
    session.handle(":branch 1")
    assert session.over
    assert heard.lines[-1] == "won: turns 3, score 1, last reward 1"


def test_a_beginning_of_a_way_that_is_kept_is_not_kept_again(beside: Make) -> None:
    session = beside()
    session.handle("dance")
    session.handle("sing")
    session.handle(":undo")
    session.handle(":undo")
    assert len(session.game.branches) == 1


@pytest.mark.parametrize("line", [":branch 1", ":branch", ":back 1", ":back x", ":undo"])
def test_going_where_nothing_is_is_refused(beside: Make, line: str) -> None:
    session = beside()
    with pytest.raises(UsageError):
        session.handle(line)


# Demonstrations -----------------------------------------------------------------------------------


def test_an_episode_that_is_over_is_saved_as_a_demonstration(beside: Make, tmp_path: Path) -> None:
    session = beside("dance")
    session.handle(":go 1")
    session.handle(":expert 3")
    session.handle(f":save {tmp_path / 'd.jsonl'}")
    session.handle(f":save {tmp_path / 'd.jsonl'}")
    first, second = map(json.loads, (tmp_path / "d.jsonl").read_text().splitlines())
    assert first == second
    assert (first["task"], first["suite"], first["won"]) == ("test-000", "corridor/test", True)
    assert [turn["action"] for turn in first["turns"]] == ["dance", *[session.colour] * 3]
    assert first["turns"][1]["observation"].startswith("what\ndoors ")


def test_an_episode_that_is_not_over_is_no_demonstration(beside: Make, tmp_path: Path) -> None:
    session = beside()
    with pytest.raises(UsageError, match="only a whole episode is a demonstration"):
        session.handle(f":save {tmp_path / 'd.jsonl'}")
    with pytest.raises(UsageError, match="say where to"):
        session.handle(":save")
    session.handle(":expert 3")
    for name in (tmp_path, "~nobody-has-this-name/d.jsonl", "a\0b"):
        with pytest.raises(DataError, match="cannot write"):
            session.handle(f":save {name}")


def test_a_mistake_in_a_script_is_passed_over(beside: Make, tmp_path: Path, heard: Heard) -> None:
    session = beside("back", "back")
    lines = iter([":branch 7", f":save {tmp_path}", ":go 1", ":quit"])
    play(session, lambda _: next(lines))
    assert actions(session) == ("back",)
    assert "there is no branch 7; :branches lists 0" in heard.lines


# The command --------------------------------------------------------------------------------------


def test_the_command_plays_beside_a_bundled_model_from_a_script(
    agentgym: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text(f":go 1\n\nlook\n:undo\n:expert 50\n:save {tmp_path / 'd.jsonl'}\n")
    words = ("play", "--suite", "alfworld/gen-train", "--model", "alfworld-tiny", "--seed", "5")
    with script.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        code, out, err = agentgym(*words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    (first, second) = [line for line in lines if line.startswith("alfworld-tiny: ")]
    about_to = second.removeprefix("alfworld-tiny: ")
    assert f"[turn 1, score 0; about to: {about_to}] > look" in lines
    assert any(line.startswith("won: turns ") for line in lines)
    (saved,) = map(json.loads, (tmp_path / "d.jsonl").read_text().splitlines())
    assert saved["won"]
    assert saved["turns"][0]["action"] == first.removeprefix("alfworld-tiny: ")
