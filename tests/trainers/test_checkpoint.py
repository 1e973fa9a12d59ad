"""What a checkpoint brings back, and how a broken one is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.errors import DataError, UsageError
from agentgym.trainers.checkpoint import (
    OPTIMIZER,
    PROGRESS,
    TENSORS,
    load_trainer_state,
    save_checkpoint,
)
from agentgym.trainers.method import Chain, Method, Options
from agentgym.trainers.registry import build_chain
from agentgym.trainers.run_folder import RunFolder


class FakeLearner:
    """Remembers the state it is given."""

    state: dict[str, int] | None = None

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state = state

    def publish(self) -> None:
        pass

    def state_dict(self) -> dict[str, int]:
        return {"updates": 4}


class FakePolicy:
    """Has nothing to save."""

    model = torch.nn.Linear(1, 1)

    def save(self, folder: Path) -> None:
        folder.mkdir()


class Remembering(Method[Options]):
    """Remembers what it is told."""

    name = "remembering"
    told: Mapping[str, Any]

    def state(self) -> dict[str, Any]:
        return dict(self.told)

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.told = state


def remembering() -> Chain:
    base = build_chain({}, steps=10).links[0]
    return Chain("x", [base, Remembering(Options(), 10)])


def epo() -> Chain:
    return build_chain({"name": "epo"}, steps=10)


HISTORY = {"turns": {"0": [1.25, 2]}, "overall": [1.5, 2]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "trainer").mkdir()
    torch.save({"updates": 4}, tmp_path / OPTIMIZER)
    progress = {"step": 2, "method": "epo", "state": {"grpo": {}, "epo": HISTORY}}
    (tmp_path / PROGRESS).write_text(json.dumps(progress))
    return tmp_path


def test_a_checkpoint_brings_back_optimiser_method_and_step(checkpoint: Path) -> None:
    learner, method = FakeLearner(), epo()
    assert load_trainer_state(checkpoint, learner, method) == 2  # type: ignore[arg-type]
    assert learner.state == {"updates": 4}
    assert method.state() == {"grpo": {}, "epo": HISTORY}


@pytest.mark.parametrize("file", [OPTIMIZER, PROGRESS])
@pytest.mark.parametrize("content", [b"", b"no such thing", b"[1, 2]", None])
def test_a_broken_checkpoint_is_one_clear_error_and_changes_nothing(
    checkpoint: Path, file: str, content: bytes | None
) -> None:
    if content is None:
        (checkpoint / file).unlink()
    else:
        (checkpoint / file).write_bytes(content)
    learner, method = FakeLearner(), epo()
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        load_trainer_state(checkpoint, learner, method)  # type: ignore[arg-type]
    assert learner.state is None


def test_a_methods_tensors_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    method = remembering()
    method.load_state({"grpo": {}, "remembering": {"n": 3, "of": {"x": torch.arange(4.0)}}})
    save_checkpoint(RunFolder(tmp_path), FakeLearner(), method, FakePolicy(), 2, keep=1)  # type: ignore[arg-type]
    folder = tmp_path / "checkpoints" / "step_000002"
    written = json.loads((folder / PROGRESS).read_text())["state"]["remembering"]
    assert written == {"n": 3, "of": {"x": {"tensor of": "remembering.of.x"}}}
    other = remembering()
    load_trainer_state(folder, FakeLearner(), other)  # type: ignore[arg-type]
    found = other.state()["remembering"]
    assert found["n"] == 3
    assert torch.equal(found["of"]["x"], torch.arange(4.0))


@pytest.mark.parametrize("content", [b"", b"no such thing", b"\xff" * 99, None])
def test_tensors_that_are_lost_are_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    method = remembering()
    method.load_state({"grpo": {}, "remembering": {"x": torch.arange(4.0)}})
    save_checkpoint(RunFolder(tmp_path), FakeLearner(), method, FakePolicy(), 2, keep=1)  # type: ignore[arg-type]
    folder = tmp_path / "checkpoints" / "step_000002"
    if content is None:
        (folder / TENSORS).unlink()
    else:
        (folder / TENSORS).write_bytes(content)
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        load_trainer_state(folder, FakeLearner(), remembering())  # type: ignore[arg-type]


def test_a_method_without_tensors_has_no_such_file(tmp_path: Path) -> None:
    save_checkpoint(RunFolder(tmp_path), FakeLearner(), epo(), FakePolicy(), 2, keep=1)  # type: ignore[arg-type]
    assert not (tmp_path / "checkpoints" / "step_000002" / TENSORS).exists()


def test_a_checkpoint_of_another_method_is_refused_before_anything_is_loaded(
    checkpoint: Path,
) -> None:
    learner = FakeLearner()
    with pytest.raises(UsageError, match="is of method epo, this run is grpo"):
        load_trainer_state(checkpoint, learner, build_chain({}, steps=10))  # type: ignore[arg-type]
    assert learner.state is None


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"grpo": {}},
        {"grpo": {}, "epo": {}},
        {"grpo": {}, "epo": {"turns": {"x": [1, 2]}, "overall": [1, 2]}},
        {"grpo": {}, "epo": {"turns": [], "overall": [1]}},
    ],
)
def test_a_state_that_lacks_a_part_is_one_clear_error(
    checkpoint: Path, state: dict[str, Any]
) -> None:
    progress = {"step": 2, "method": "epo", "state": state}
    (checkpoint / PROGRESS).write_text(json.dumps(progress))
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        load_trainer_state(checkpoint, FakeLearner(), epo())  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"0.", b"\x80\x02R.", b"(((((0000.", b"\x80\x02q\x00."])
def test_an_optimiser_file_that_unpickles_to_nothing_is_one_clear_error(
    checkpoint: Path, content: bytes
) -> None:
    (checkpoint / OPTIMIZER).write_bytes(content)
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        load_trainer_state(checkpoint, FakeLearner(), epo())  # type: ignore[arg-type]


def test_a_gpu_that_is_full_is_not_called_a_broken_checkpoint(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FakeLearner, state: dict[str, int]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FakeLearner, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_trainer_state(checkpoint, FakeLearner(), epo())  # type: ignore[arg-type]
