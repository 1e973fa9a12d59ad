"""Generated games: the same everywhere, disjoint sets, every one of them can be won."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from agentgym.envs.alfworld_demonstrator import read_task
from agentgym.envs.alfworld_engine import Engine
from agentgym.envs.alfworld_expert import plan
from agentgym.envs.alfworld_files import GameFiles, read_game, write_game
from agentgym.envs.alfworld_generate import SETS, generate, make_game, task_ids
from agentgym.envs.alfworld_rooms import UNSEEN_SCENES, read_data
from agentgym.envs.alfworld_tasks import HEAT, LOOK, PICK, SENTENCES, TASK_TYPES, TWO, scenes_for
from agentgym.errors import UsageError


@pytest.fixture(scope="module")
def held_out() -> dict[str, list[GameFiles]]:
    return {
        name: [generate(name, task) for task in task_ids(name)]
        for name in ("gen-seen", "gen-unseen")
    }


@pytest.fixture(scope="module")
def training() -> list[GameFiles]:
    """One training game in six, all types."""
    ids = task_ids("gen-train")
    return [generate("gen-train", task) for task in ids[:300] + ids[-300:]]


def scene(files: GameFiles) -> int:
    return int(files.trajectory["scene"]["scene_num"])


def play(files: GameFiles, commands: list[str]) -> Engine:
    engine = Engine(files)
    assert not engine.won
    for command in commands:
        assert command in engine.admissible
        engine.step(command)
    return engine


# Sets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"), [("gen-train", 3600), ("gen-seen", 300), ("gen-unseen", 300)]
)
def test_a_set_has_as_many_games_of_each_type_and_every_id_once(name: str, size: int) -> None:
    ids = task_ids(name)
    per_type = Counter(task.rpartition("-")[0] for task in ids)
    assert len(set(ids)) == len(ids) == size
    assert per_type == dict.fromkeys(TASK_TYPES, size // 6)


def test_the_first_games_of_a_set_have_all_types() -> None:
    assert {task.rpartition("-")[0] for task in task_ids("gen-unseen")[:6]} == set(TASK_TYPES)


@pytest.mark.parametrize(
    ("name", "task", "digest"),
    [
        ("gen-train", "pick_and_place_simple-0000", "c04e13a64d56aac3"),
        ("gen-train", "pick_two_obj_and_place-0599", "d608f8152414965e"),
        ("gen-seen", "pick_cool_then_place_in_recep-0000", "625f9fe85f112954"),
        ("gen-unseen", "look_at_obj_in_light-0000", "bdb54b508b7ff844"),
    ],
)
def test_a_game_is_the_same_on_every_machine(name: str, task: str, digest: str) -> None:
    files = generate(name, task)
    content = {**files.game, "pddl_domain": "", "grammar": "", "trajectory": files.trajectory}
    assert hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16] == digest


def test_training_rooms_and_unseen_rooms_are_disjoint(
    held_out: dict[str, list[GameFiles]], training: list[GameFiles]
) -> None:
    assert {scene(files) for files in held_out["gen-unseen"]} == set(UNSEEN_SCENES)
    assert not {scene(files) for files in held_out["gen-seen"] + training} & set(UNSEEN_SCENES)


def test_no_two_games_have_the_same_placement(
    held_out: dict[str, list[GameFiles]], training: list[GameFiles]
) -> None:
    games = [*held_out["gen-seen"], *held_out["gen-unseen"], *training]
    problems = [files.game["pddl_problem"] for files in games]
    assert len(set(problems)) == len(problems) == 1200


def test_an_unknown_set_or_game_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(UsageError, match="gen-unseen"):
        task_ids("gen-unsen")
    with pytest.raises(UsageError, match="look_at_obj_in_light-0000"):
        generate("gen-seen", "look_at_obj_in_light-00000")


# Games ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gen-seen", "gen-unseen"])
def test_every_held_out_game_is_won_by_its_walkthrough_and_not_before(
    name: str, held_out: dict[str, list[GameFiles]]
) -> None:
    for files in held_out[name]:
        *before, last = files.game["walkthrough"]
        engine = play(files, before)
        assert not engine.won, files.name
        engine.step(last)
        assert engine.won, files.name


def test_training_games_are_won_by_their_walkthrough(training: list[GameFiles]) -> None:
    assert all(play(files, files.game["walkthrough"]).won for files in training[::3])


@pytest.mark.parametrize("name", ["gen-seen", "gen-unseen"])
def test_the_planner_solves_every_held_out_game_no_longer_than_the_walkthrough(
    name: str, held_out: dict[str, list[GameFiles]]
) -> None:
    for files in held_out[name]:
        commands = plan(Engine(files))
        assert commands is not None, files.name
        assert len(commands) <= len(files.game["walkthrough"])
        assert play(files, list(commands)).won, files.name


def test_a_game_begins_in_the_middle_of_the_room_with_everything_closed(
    held_out: dict[str, list[GameFiles]],
) -> None:
    for files in held_out["gen-unseen"][:24]:
        opening = Engine(files).reset()
        assert "You are in the middle of a room." in opening
        assert "(opened" not in files.game["pddl_problem"]


def test_the_sentence_says_what_the_parameters_say(held_out: dict[str, list[GameFiles]]) -> None:
    for files in held_out["gen-seen"]:
        task, parameters = read_task(Engine(files).goal), files.trajectory["pddl_params"]
        target = parameters["toggle_target"] or parameters["parent_target"]
        assert (task.type, task.object, task.target) == (
            files.trajectory["task_type"],
            parameters["object_target"].lower(),
            target.lower(),
        )


def test_both_sentences_of_every_type_occur(held_out: dict[str, list[GameFiles]]) -> None:
    said = Counter(
        (
            files.trajectory["task_type"],
            Engine(files).goal.split()[0] + Engine(files).goal.split()[1],
        )
        for files in held_out["gen-seen"]
    )
    assert len(said) == sum(len(sentences) for sentences in SENTENCES.values())


def test_what_is_asked_for_is_never_where_it_belongs_at_the_start(
    held_out: dict[str, list[GameFiles]],
) -> None:
    for files in held_out["gen-unseen"]:
        parameters = files.trajectory["pddl_params"]
        facts = Engine(files).problem.facts
        wanted = parameters["object_target"].lower() + "type"
        target = parameters["parent_target"].lower() + "type"
        objects = {o for o, kind in facts["objecttype"] if kind == wanted}
        targets = {r for r, kind in facts["receptacletype"] if kind == target}
        assert objects
        assert not any(o in objects and r in targets for o, r in facts["inreceptacle"])


def test_a_written_game_is_read_back_the_same(tmp_path: Path) -> None:
    files = generate("gen-seen", task_ids("gen-seen")[0])
    folder = tmp_path / files.name
    write_game(files, folder)
    read = read_game(folder)
    assert dict(read.game) == dict(files.game)
    assert dict(read.trajectory) == dict(files.trajectory)


def test_a_name_tells_task_object_target_and_room_as_the_published_folders_do() -> None:
    files = generate("gen-unseen", "pick_heat_then_place_in_recep-0007")
    parameters = files.trajectory["pddl_params"]
    folder = f"{HEAT}-{parameters['object_target']}-None-{parameters['parent_target']}-10"
    assert files.name == f"{folder}/trial_gen-unseen_0007"


# Games made to order --------------------------------------------------------------------------


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_a_room_can_be_cut_down_and_its_game_still_be_won(task_type: str) -> None:
    room = scenes_for(task_type)[3]
    files = make_game("small", task_type, room, max_receptacles=5, max_objects=3)
    facts = Engine(files).problem.facts
    kinds = {kind for _, kind in facts["objecttype"]} - {"desklamptype"}
    assert len(facts["receptacletype"]) == 5
    assert len(kinds) <= 3
    assert play(files, files.game["walkthrough"]).won


def test_another_grammar_gets_the_task_and_no_walkthrough() -> None:
    older = read_data("grammar.twl2").replace("move {o} to {r}", "put {o} in/on {r}")
    files = make_game("s", PICK, 403, grammar=older)
    assert "UNKNOWN GOAL" not in files.game["grammar"]
    assert files.game["walkthrough"] is None
    assert not Engine(files).goal.startswith("UNKNOWN")


def test_another_domain_is_taken_over_word_for_word() -> None:
    domain = "; mine\n" + read_data("domain.pddl")
    assert make_game("s", TWO, 403, domain=domain).game["pddl_domain"] == domain


@pytest.mark.parametrize(
    ("task_type", "room", "message"),
    [
        ("pick_heat", 1, "pick_heat_then_place_in_recep"),
        (HEAT, 403, "no task .* room 403; rooms that have one: 1, 2,"),
        (LOOK, 999, "room 999"),
    ],
)
def test_what_cannot_be_made_is_refused(task_type: str, room: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_game("s", task_type, room)


def test_a_room_cut_down_too_far_is_refused() -> None:
    with pytest.raises(UsageError, match="allow more"):
        make_game("s", HEAT, 10, max_receptacles=1, max_objects=1)


def test_the_sets_are_named() -> None:
    assert SETS == ("gen-train", "gen-seen", "gen-unseen")
