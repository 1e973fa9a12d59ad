import errno
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentgym.errors import DataError, UsageError
from agentgym.trainers.run_folder import RunFolder, alone


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


LEFT = f".config.toml.{'0a' * 16}"


def test_a_run_that_was_killed_while_it_began_can_be_begun_again(tmp_path: Path) -> None:
    for name in ("env.json", ".lock", LEFT):
        (tmp_path / name).write_text('{"agentgym": "0.1"}')
    run = RunFolder.create(tmp_path, "steps = 3\n", {"version": "2"})
    assert json.loads((tmp_path / "env.json").read_text()) == {"version": "2"}
    run.cut(0)
    assert not (tmp_path / LEFT).exists()


@pytest.mark.parametrize(
    "text", ["{}", '{"API_URL": "http://h"}', '["agentgym"]', "{", "\xff", "[" * 9999]
)
def test_an_env_json_of_somebody_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "env.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="is not empty"):
        RunFolder.create(tmp_path, "steps = 3\n", {})
    assert (tmp_path / "env.json").read_bytes() == text.encode("latin-1")


def test_what_is_hidden_and_somebody_elses_is_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        RunFolder.refuse(tmp_path)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    save(run, 1)
    places = ["", "checkpoints", "checkpoints/step_000001", "trajectories", "eval/step_000000/a"]
    for place in places:
        folder = run.path / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".latest.{'f0' * 16}").write_text("half")
        (folder / ".keep").write_text("mine")
    run.cut(1)
    assert sorted(path.name for path in run.path.rglob(".*")) == [".keep"] * len(places)


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

    with pytest.raises(DataError, match="disk full; the last checkpoint stands, make room"):
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


@pytest.mark.parametrize("name", ["../../etc", "step_" + 300 * "9"])
def test_a_pointer_to_no_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    run = new_run(tmp_path)
    save(run, 1)
    (run.path / "checkpoints" / "latest").write_text(f"{name}\n")
    with pytest.raises(DataError, match="is no checkpoint in"):
        run.latest_checkpoint()


def broken(folder: Path, how: str) -> None:
    if how == "cut off":
        (folder / "weights").write_text("")
    elif how == "changed":
        (folder / "weights").write_text("x")
    elif how == "lost":
        (folder / "weights").unlink()
    elif how == "added":
        (folder / "more").write_text("w")
    elif how == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text(how)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("cut off", "weights has 0 bytes, and 1 were written"),
        ("changed", "the content of weights has changed"),
        ("lost", "weights is missing"),
        ("added", "more is not in manifest.json"),
        ("no manifest", "its manifest.json is missing or broken"),
        ("{", "its manifest.json is missing or broken"),
        ('{"files": {"weights": 1}}', "weights is not in manifest.json"),
    ],
)
def test_a_broken_checkpoint_is_named_and_the_one_before_it_taken(
    tmp_path: Path, how: str, why: str
) -> None:
    run = new_run(tmp_path)
    folders = [save(run, step) for step in (1, 2)]
    said: list[str] = []
    assert run.sound_checkpoint(said.append) == (2, folders[1])
    assert not said
    broken(folders[1], how)
    assert run.sound_checkpoint(said.append) == (1, folders[0])
    assert said == [f"the checkpoint {folders[1]} is broken: {why}; looking for the one before it"]


def test_a_run_without_a_whole_checkpoint_is_refused_and_left_alone(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    broken(save(run, 1), "changed")
    with pytest.raises(DataError, match=r"no checkpoint in .* is whole; nothing was changed"):
        run.sound_checkpoint(lambda _: None)
    assert run.latest_checkpoint() is not None


def test_a_run_cut_to_an_earlier_checkpoint_points_to_it(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for step in (1, 2):
        run.append_metrics({"step": step})
        save(run, step)
    run.cut(1)
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest[0] == 1
    assert [p.name for p in (run.path / "checkpoints").glob("step_*")] == ["step_000001"]


@pytest.mark.parametrize("left", [0, 5, 40])
def test_metrics_that_were_lost_are_those_of_the_checkpoint(tmp_path: Path, left: int) -> None:
    run = new_run(tmp_path)
    for step in (1, 2):
        run.append_metrics({"step": step, "reward/mean": step / 10})
    save(run, 2)
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    run.cut(2)
    assert path.read_bytes() == whole


def test_a_line_that_is_no_metrics_is_named(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for line in ("[1]\n", '{"step": "x"}\n', "nonsense\n", "\n", "[" * 99_999 + "\n"):
        (run.path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}{{"step": 2}}\n')
        with pytest.raises(DataError, match=r"metrics.jsonl, line 2 is no line of metrics"):
            run.metrics()


def test_metrics_on_a_full_disk_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match="No space left on device; the last checkpoint stands"):
        run.append_metrics({"step": 1})


def test_of_two_processes_one_trains_in_a_folder_and_a_dead_one_holds_nothing(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from pathlib import Path; from agentgym.trainers.run_folder import alone\n"
        "with alone(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UsageError, match="another process trains in"), alone(tmp_path):
            pass
        other.kill()
    with alone(tmp_path):
        RunFolder.refuse(tmp_path)  # the lock alone is no other file


def test_a_checkpoint_in_the_place_of_an_older_one_is_the_new_one(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    save(run, 1)
    run.save_checkpoint(1, lambda p: (p / "weights").write_text("new") and None, keep=2)
    found = run.sound_checkpoint(lambda _: None)
    assert found is not None
    assert (found[1] / "weights").read_text() == "new"
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == ["latest", "step_000001"]


def test_a_pointer_that_is_no_text_is_named(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    save(run, 1)
    (run.path / "checkpoints" / "latest").write_bytes(b"step_\xff\xfe")
    with pytest.raises(DataError, match="is no checkpoint in"):
        run.latest_checkpoint()
