import gzip
import json
from pathlib import Path

import pytest

from agentgym.errors import DataError, UsageError
from agentgym.trainers.run_folder import RunFolder


def new_run(path: Path) -> RunFolder:
    return RunFolder.create(path / "run", 'steps = 3\nname = "x"\n', {"version": "1"})


def save(run: RunFolder, step: int) -> Path:
    return run.save_checkpoint(step, lambda p: (p / "weights").write_text("w") and None, keep=2)


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    before = run.config
    with pytest.raises(UsageError, match="already holds a run; go on with --resume"):
        RunFolder.create(run.path, "steps = 9\n", {})
    assert RunFolder.open(run.path).config == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        RunFolder.create(tmp_path, "", {})
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write into the folder"):
        RunFolder.create(tmp_path / "file" / "run", "", {})


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run to resume"):
        RunFolder.open(tmp_path)


def test_metrics_later_than_a_step_are_cut_off(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for step in (1, 2, 3):
        run.append_metrics({"step": step, "reward/mean": step / 10})
    run.write_trajectories(2, [{"task": "a"}])
    run.write_trajectories(3, [{"task": "b"}])
    run.cut(2)
    assert run.metrics() == [
        {"step": 1, "reward/mean": 0.1},
        {"step": 2, "reward/mean": 0.2},
    ]
    assert [p.name for p in (run.path / "trajectories").iterdir()] == ["step_000002.jsonl.gz"]


def test_a_metrics_line_cut_off_by_a_dying_process_is_left_out(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.append_metrics({"step": 1})
    with (run.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "rewa')
    assert run.metrics() == [{"step": 1}]


def test_trajectories_are_gzipped_lines_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.write_trajectories(7, [{"task": "a"}, {"task": "b"}])
    path = run.path / "trajectories" / "step_000007.jsonl.gz"
    first = path.read_bytes()
    run.write_trajectories(7, [{"task": "a"}, {"task": "b"}])
    assert path.read_bytes() == first
    lines = gzip.decompress(first).decode().splitlines()
    assert [json.loads(line)["task"] for line in lines] == ["a", "b"]


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    save(run, 1)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run.save_checkpoint(2, fail, keep=2)
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest[0] == 1
    assert (latest[1] / "weights").read_text() == "w"


def test_only_the_last_checkpoints_stay(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert run.latest_checkpoint() is None
    for step in (1, 2, 3):
        save(run, step)
    names = sorted(p.name for p in (run.path / "checkpoints").glob("step_*"))
    assert names == ["step_000002", "step_000003"]


def test_a_pointer_to_no_checkpoint_is_named(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    save(run, 1)
    (run.path / "checkpoints" / "latest").write_text("../../etc\n")
    with pytest.raises(DataError, match="is no checkpoint in"):
        run.latest_checkpoint()
