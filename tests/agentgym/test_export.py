"""What a run made opens in other programs."""

import gzip
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from agentgym import export as export_module
from agentgym.errors import DataError, UsageError
from agentgym.export import Wanted, conversations, export_messages, export_model, prompt_of_run
from agentgym.policies.bundled import resolve_model
from agentgym.policies.hf import HFPolicy
from agentgym.policies.prompt import load_prompt
from agentgym.run_files import Run, open_run

MakeRun = Callable[..., Path]


def checkpoint(run: Path, step: int, *files: str) -> Path:
    folder = run / "checkpoints" / f"step_{step:06d}" / "hf"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text(f"{name} of {step}")
    return folder


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    folder = make_run()
    with (folder / "config.toml").open("a") as stream:
        stream.write('[policy]\ntemplate = "plain"\ncontext = "full"\n')
    return folder


# A checkpoint -------------------------------------------------------------------------------------


def test_the_last_checkpoint_or_the_one_that_is_asked_for_is_copied(
    agentgym: Any, run: Path, tmp_path: Path
) -> None:
    for step in (2, 10):
        checkpoint(run, step, "config.json", "model.safetensors", "tokenizer.json")
    (run / "checkpoints" / "step_000011.tmp").mkdir()
    code, out, _ = agentgym("export", "model", run, "-o", tmp_path / "last")
    assert (code, out) == (0, f"written: {tmp_path / 'last'}, the model after step 10\n")
    assert (tmp_path / "last" / "config.json").read_text() == "config.json of 10"
    export_model(run, tmp_path / "second", 2)
    assert (tmp_path / "second" / "config.json").read_text() == "config.json of 2"


def test_a_copied_model_opens_as_any_other(run: Path, tmp_path: Path) -> None:
    folder = checkpoint(run, 1)
    HFPolicy.from_pretrained(resolve_model("alfworld-tiny")).save(folder)
    _, out = export_model(run, tmp_path / "model")
    opened = HFPolicy.from_pretrained(out)
    assert opened.prompt is not None
    assert {path.name for path in out.iterdir()} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        (("config.json", "model.safetensors"), "no tokenizer"),
        (("config.json", "tokenizer.json"), "no weights"),
        (("model.safetensors", "tokenizer.json"), "no configuration"),
    ],
)
def test_a_checkpoint_without_a_part_is_one_line_and_nothing_is_written(
    agentgym: Any, run: Path, tmp_path: Path, there: tuple[str, ...], missing: str
) -> None:
    checkpoint(run, 1, *there)
    code, _, err = agentgym("export", "model", run, "-o", tmp_path / "model")
    assert (code, err.count("\n")) == (1, 1)
    assert missing in err
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_that_is_not_there_names_the_nearest(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no checkpoints"):
        export_model(run, tmp_path / "model")
    checkpoint(run, 20, "config.json")
    with pytest.raises(UsageError, match="20"):
        export_model(run, tmp_path / "model", 2)


def test_a_folder_that_holds_something_is_left_alone(run: Path, tmp_path: Path) -> None:
    checkpoint(run, 1, "config.json", "model.safetensors", "tokenizer.json")
    (tmp_path / "precious").write_text("x")
    with pytest.raises(UsageError, match="not empty; nothing was written"):
        export_model(run, tmp_path)


# Conversations ------------------------------------------------------------------------------------


def test_episodes_are_written_as_messages(agentgym: Any, run: Path, tmp_path: Path) -> None:
    code, out, err = agentgym("export", "messages", run, "--won", "-o", tmp_path / "x.parquet")
    assert (code, err) == (0, "")
    assert out.endswith("4 conversations of 4 episodes\n")
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert {(row["won"], row["source"]) for row in rows} == {(True, "train/2")}
    messages = rows[0]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3
    assert "room 0 of task 0" in messages[0]["content"]
    assert messages[1]["content"] == "I think. <action>go</action>"


def test_a_context_that_is_rebuilt_gives_a_conversation_a_turn(run: Path) -> None:
    prompt = load_prompt("corridor", "plain", "window(1)")
    turns = [
        {"observation": f"room {k}", "text": f"said {k}", "action": f"done {k}"} for k in range(3)
    ]
    told = list(conversations({"goal": "out", "turns": turns}, prompt))
    assert [messages[-1]["content"] for messages in told] == ["said 0", "said 1", "said 2"]
    last = told[2][-2]["content"]
    assert "done 1" in last
    assert "done 0" not in last
    assert "room 2" in last


def test_an_episode_that_a_fault_ended_is_never_exported() -> None:
    line = {"stop": "error", "won": False, "score": 0.0}
    assert not Wanted().takes(line)
    assert Wanted().takes({**line, "stop": "turns"})
    assert not Wanted(score=0.5).takes({**line, "stop": "turns"})
    assert not Wanted().takes({**line, "stop": "turns", "score": None})


def test_only_the_source_that_is_asked_for_is_exported(run: Path, tmp_path: Path) -> None:
    opened = open_run(run)
    for source in ("eval", "eval/0"):
        out = tmp_path / "x.parquet"
        assert export_messages(opened, out, Wanted(source)).episodes == 8
    with pytest.raises(UsageError, match="train/2"):
        export_messages(opened, tmp_path / "x.parquet", Wanted("train/3"))


def test_nothing_wanted_is_said_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no episode of"):
        export_messages(open_run(run), tmp_path / "x.parquet", Wanted(score=2.0))
    assert not (tmp_path / "x.parquet").exists()


def test_what_could_not_be_read_is_said_where_nothing_is_left(run: Path, tmp_path: Path) -> None:
    (path,) = (run / "trajectories").iterdir()
    path.write_bytes(gzip.compress(b'{"prompt": "x", "completion": "y"}\n'))
    with pytest.raises(UsageError, match=r"is of train and scored 0 or more; .* line 1: no traj"):
        export_messages(open_run(run), tmp_path / "x.parquet", Wanted())


def test_a_prompt_that_lists_what_a_run_does_not_keep_is_noted(run: Path, tmp_path: Path) -> None:
    prompt = load_prompt("alfworld", "tags", "window(2)")
    assert "{actions}" in prompt.template.texts["window.first"]
    prompt.save(checkpoint(run, 1))
    done = export_messages(open_run(run), tmp_path / "x.parquet", Wanted())
    assert len(done.notes) == 1
    assert "admissible actions" in done.notes[0]


def test_a_checkpoint_s_own_prompt_is_taken_before_the_configuration_s(run: Path) -> None:
    assert prompt_of_run(open_run(run)) == load_prompt("corridor", "plain", "full")
    other = load_prompt("corridor", "plain", "window(2)")
    other.save(checkpoint(run, 1))
    assert prompt_of_run(open_run(run)) == other


def test_a_run_that_does_not_say_what_the_model_was_told_is_one_line(
    agentgym: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    code, _, err = agentgym("export", "messages", make_run(), "-o", tmp_path / "x.parquet")
    assert (code, err.count("\n")) == (1, 1)
    assert "config.toml does not say what the model was told" in err


def test_without_pyarrow_the_extra_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(f"No module named {name!r}")
        return import_module(name)

    monkeypatch.setattr(export_module, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'agentgym\[export\]'"):
        export_messages(open_run(run), tmp_path / "x.parquet", Wanted())


def test_broken_files_are_named_and_the_others_exported(run: Path, tmp_path: Path) -> None:
    (run / "trajectories" / "step_000003.jsonl.gz").write_bytes(b"no gzip")
    done = export_messages(open_run(run), tmp_path / "x.parquet", Wanted())
    assert done.episodes == 8
    assert "step_000003.jsonl.gz: not gzip" in done.notes[0]


def test_a_folder_that_is_no_run_is_one_line(agentgym: Any, tmp_path: Path) -> None:
    for command in ("model", "messages"):
        code, _, err = agentgym("export", command, tmp_path, "-o", tmp_path / "out")
        assert code in (1, 2)
        assert err.count("\n") == 1


def test_a_truncated_configuration_is_a_data_error(run: Path, tmp_path: Path) -> None:
    (run / "config.toml").write_text("[policy")
    with pytest.raises(DataError, match="does not say"):
        export_messages(open_run(run), tmp_path / "x.parquet", Wanted())


def test_an_evaluation_by_itself_does_not_say_what_was_told() -> None:
    run = Run(Path("r1"), (), (), {"policy": "random", "suite": "corridor/test"})
    with pytest.raises(DataError, match="r1 is an evaluation by itself"):
        prompt_of_run(run)
