"""A run folder is read as far as it can be, and what cannot is one line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym import __version__
from agentgym.errors import DataError
from agentgym.run_files import (
    Run,
    Source,
    inadmissible,
    metric_names,
    names_of,
    open_run,
    read_source,
    repeated,
    series,
    unparsed,
)

MakeRun = Callable[..., Path]


def turn(action: str, *, admissible: bool = True, parse_error: str | None = None) -> dict[str, Any]:
    return {
        "observation": "a room", "text": action, "action": action, "parse_error": parse_error,
        "admissible": admissible, "reward": 0.0,
    }  # fmt: skip


def test_a_run_is_read_whole(make_run: MakeRun) -> None:
    run = open_run(make_run())
    assert run.problems == ()
    assert [line["step"] for line in run.steps] == [0, 1, 2, 3]
    assert [source.name for source in run.sources] == ["eval/0", "train/2"]
    assert run.title == "epo on corridor/train, seed 0"


def test_what_was_measured_before_the_first_step_is_step_0(make_run: MakeRun) -> None:
    run = open_run(make_run())
    assert series(run.steps, "eval/corridor/test/success_rate") == [(0, 0.25), (3, 0.75)]


def test_values_that_are_no_numbers_are_no_points(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "reward/mean": NaN, "actor/ref_kl": NaN}\n')
        stream.write(f'{{"step": 5, "reward/mean": 2, "actor/entropy": {10**400}}}\n')
    steps = open_run(folder).steps
    assert series(steps, "reward/mean")[-1] == (5, 2)
    assert series(steps, "actor/entropy")[-1] == (3, 1 / 3)
    assert "actor/ref_kl" not in metric_names(steps)


def test_a_step_that_was_done_again_counts_once(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "reward/mean": 9}\n')
    assert series(open_run(folder).steps, "reward/mean")[-1] == (3, 9)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"step": 4, "reward', 'line 4: no JSON, or cut off: \'{"step": 4, "reward\''),
        ("[1, 2]", "line 4: expected an object"),
        ('{"loss": 1}', "line 4: no step in it"),
        ("[" * 100_000, "line 4: no JSON"),
    ],
    ids=["cut off", "a list", "foreign", "deep"],
)
def test_a_broken_line_of_metrics_is_named_and_the_others_load(
    make_run: MakeRun, line: str, says: str
) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write(line)
    run = open_run(folder)
    assert [line["step"] for line in run.steps] == [0, 1, 2, 3]
    (problem,) = run.problems
    assert f"metrics.jsonl {says}" in problem


def test_a_run_of_another_version_is_shown_and_said(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "env.json").write_text('{"agentgym": "9.9"}')
    run = open_run(folder)
    (problem,) = run.problems
    assert "is of agentgym 9.9" in problem
    assert __version__ in problem
    assert run.steps


def test_an_evaluation_of_another_version_or_format_is_shown_and_said(make_run: MakeRun) -> None:
    folder = make_run() / "eval" / "step_000000"
    told = json.loads((folder / "results.json").read_text())
    told["protocol"]["agentgym"] = "9.9"
    (folder / "results.json").write_text(json.dumps(told | {"format": 7}))
    run = open_run(folder)
    version, form = run.problems
    assert "results.json: the evaluation is of agentgym 9.9, this is" in version
    assert "results.json: written in format 7, this version reads format" in form
    assert run.steps


def test_a_broken_configuration_is_named_and_the_rest_loads(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "env.json").write_text('{"a":' * 9999)
    assert any("env.json" in problem for problem in open_run(folder).problems)
    (folder / "env.json").unlink()
    (folder / "config.toml").write_text("seed = ")
    run = open_run(folder)
    (problem,) = run.problems
    assert "config.toml" in problem
    assert "\n" not in problem
    assert run.title == folder.name


@pytest.mark.parametrize("content", [None, {}, {"metrics.jsonl": "no json"}, {"a.txt": "x"}])
def test_what_is_no_run_is_refused(tmp_path: Path, content: dict[str, str] | None) -> None:
    folder = tmp_path / "it"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(DataError, match=r"is no folder|is neither a run nor an evaluation"):
        open_run(folder)


def test_an_evaluation_by_itself_is_read_like_that_of_a_run(make_run: MakeRun) -> None:
    run = open_run(make_run() / "eval" / "step_000000")
    assert [(source.name, source.kind) for source in run.sources] == [("eval", "eval")]
    assert series(run.steps, "eval/corridor/test/success_rate") == [(0, 0.25)]
    assert len(read_source(run.sources[0])[0]) == 8
    assert run.problems == ()


def test_an_evaluation_is_named_by_its_protocol(make_run: MakeRun) -> None:
    folder = make_run() / "eval" / "step_000000"
    protocol = {"policy": "expert", "suite": "corridor/test", "seed": 3}
    (folder / "results.json").write_text(json.dumps({"protocol": protocol}))
    run = open_run(folder)
    assert run.title == "expert on corridor/test, seed 3"
    assert run.config == protocol
    assert run.is_evaluation
    assert not open_run(make_run("trained")).is_evaluation


def test_results_that_no_evaluation_wrote_are_named_and_the_rest_loads(make_run: MakeRun) -> None:
    folder = make_run()
    path = folder / "eval" / "step_000000" / "results.json"
    path.write_text('{"accuracy": 0.5}')
    run = open_run(folder)
    assert [line["step"] for line in run.steps] == [1, 2, 3]
    assert run.problems == (f"{path}: no results of an evaluation, which have a protocol",)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["one/run"], ["run"]),
        (["a/x", "a/y"], ["x", "y"]),
        (["epo/seed-0/run", "epo/seed-1/run"], ["seed-0/run", "seed-1/run"]),
        (["a/run", "a/run", "b/run"], ["a/run", "a/run", "b/run"]),
        (["run", "b/run"], ["{}/run", "b/run"]),
    ],
)
def test_runs_are_named_by_what_tells_their_folders_apart(
    tmp_path: Path, paths: list[str], names: list[str]
) -> None:
    runs = [Run(tmp_path / path, (), ()) for path in paths]
    assert names_of(runs) == [name.format(tmp_path.name) for name in names]


# Trajectories -------------------------------------------------------------------------------------


def test_a_file_that_was_cut_off_gives_what_is_whole(make_run: MakeRun) -> None:
    source = open_run(make_run(trajectories=500)).sources[-1]
    data = source.path.read_bytes()
    source.path.write_bytes(data[: len(data) // 2])
    found, problems = read_source(source)
    assert 0 < len(found) < 500
    assert "cut off after" in problems[0]
    assert all(str(source.path) in problem for problem in problems)


def test_what_is_not_gzip_is_named(make_run: MakeRun) -> None:
    source = open_run(make_run()).sources[-1]
    source.path.write_text("hello")
    found, (problem,) = read_source(source)
    assert found == []
    assert "not gzip" in problem


def test_foreign_lines_are_named_by_their_number_and_left_out(tmp_path: Path) -> None:
    good = {
        "task": "a", "member": 0, "branch": 0, "won": True, "stop": "terminated",
        "turns": [turn("go")],
    }  # fmt: skip
    lines = [good, {"prompt": "foreign"}, {**good, "turns": [{"role": "user"}]}, {**good, "won": 1}]
    path = tmp_path / "step_000001.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    found, problems = read_source(Source("train/1", "train", 1, path))
    assert found == [good]
    assert [problem.partition("line ")[2][:1] for problem in problems] == ["2", "3", "4"]
    assert "turn 0 lacks one of observation, text, action" in problems[1]


def test_a_file_of_nothing_but_foreign_lines_is_few_problems(tmp_path: Path) -> None:
    path = tmp_path / "step_000001.jsonl"
    path.write_text('{"a": 1}\n' * 1000)
    found, problems = read_source(Source("train/1", "train", 1, path))
    assert found == []
    assert len(problems) == 6
    assert problems[-1] == "and 995 more in the same file"


def test_turns_off_the_format_and_unknown_actions_are_two_counts() -> None:
    turns = [turn("a"), turn("b", admissible=False), turn("c", admissible=False)]
    turns += [turn("", parse_error="no tag", admissible=False), turn("d", parse_error="two tags")]
    assert unparsed({"turns": turns}) == 2
    assert inadmissible({"turns": turns}) == 3


def test_repeated_turns_are_those_that_act_as_the_turn_before() -> None:
    turns = [turn(action) for action in ("look", "look", "go", "look", "look", "look")]
    assert repeated({"turns": turns}) == 3
