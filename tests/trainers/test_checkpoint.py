"""What a checkpoint brings back, and how a broken one is refused."""

import json
from pathlib import Path

import pytest
import torch

from agentgym.errors import DataError, UsageError
from agentgym.trainers.checkpoint import OPTIMIZER, PROGRESS, load_trainer_state
from agentgym.trainers.method import Chain
from agentgym.trainers.registry import build_chain


class FakeLearner:
    """Remembers the state it is given."""

    state: dict[str, int] | None = None

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state = state


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


def test_a_checkpoint_of_another_method_is_refused_before_anything_is_loaded(
    checkpoint: Path,
) -> None:
    learner = FakeLearner()
    with pytest.raises(UsageError, match="is of method epo, this run is grpo"):
        load_trainer_state(checkpoint, learner, build_chain({}, steps=10))  # type: ignore[arg-type]
    assert learner.state is None
