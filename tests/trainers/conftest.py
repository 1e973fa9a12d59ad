"""Small models and batches of known shape, for all tests of the trainers."""

import random
from collections.abc import Callable, Sequence
from typing import Literal

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentgym.trainers.batch import Batch, pack
from agentgym.types import Group, Key, Row, Stop, Trajectory, Turn

VOCAB = 23

MakeModel = Callable[..., LlamaForCausalLM]
MakeTrajectory = Callable[..., Trajectory]
MakeBatch = Callable[..., Batch]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Models this small only lose time to a second thread."""
    torch.set_num_threads(1)


@pytest.fixture
def make_model() -> MakeModel:
    """Build a Llama of a few thousand random weights."""

    def make(
        dtype: torch.dtype = torch.float64, seed: int = 0, **changes: object
    ) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        sizes: dict[str, object] = {
            "vocab_size": VOCAB,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 128,
            "initializer_range": 0.3,
        }
        return LlamaForCausalLM(LlamaConfig(**(sizes | changes))).to(dtype)

    return make


@pytest.fixture
def make_trajectory() -> MakeTrajectory:
    """Build a trajectory with random tokens, drawn from its task and member.

    ``turns`` has the number of sampled tokens of each turn; three prompt tokens stand before each.
    """

    def make(
        task: str = "t",
        member: int = 0,
        turns: Sequence[int] = (2,),
        won: bool = True,
        score: float = 0.0,
        layout: Literal["full", "window"] = "full",
        parse_errors: Sequence[str | None] | None = None,
    ) -> Trajectory:
        rng = random.Random(f"{task}:{member}")
        pieces = [
            (
                [rng.randrange(VOCAB) for _ in range(3 + length)],
                [-1, -1, -1] + [k] * length,
            )
            for k, length in enumerate(turns)
        ]
        if layout == "full":
            pieces = [([i for ids, _ in pieces for i in ids], [t for _, ts in pieces for t in ts])]
        rows = tuple(
            Row(
                tuple(ids),
                tuple(of_turn),
                tuple(0.0 if t < 0 else -1.5 for t in of_turn),
                tuple(-1 if t < 0 else 0 for t in of_turn),
            )
            for ids, of_turn in pieces
        )
        errors = parse_errors or [None] * len(turns)
        said = tuple(Turn("seen", "said", "done", error, True, 0.0, "seen") for error in errors)
        return Trajectory(
            Key(task, member), "e/train", "kind", "goal", said, rows, Stop.TERMINATED, won, score
        )

    return make


@pytest.fixture
def make_batch() -> MakeBatch:
    """Pack trajectories, grouped by task; the outcome is 1 where they won."""

    def make(trajectories: Sequence[Trajectory]) -> Batch:
        tasks = dict.fromkeys(t.key.task for t in trajectories)
        groups = [Group(k, tuple(t for t in trajectories if t.key.task == k)) for k in tasks]
        ordered = [t for group in groups for t in group.trajectories]
        outcome = [[0.0] * (len(t.turns) - 1) + [float(t.won)] for t in ordered]
        return pack(groups, {"outcome": outcome})

    return make


@pytest.fixture
def two_groups(make_trajectory: MakeTrajectory, make_batch: MakeBatch) -> Batch:
    """Two tasks of four trajectories, of one to four turns, half of them won."""
    shapes = [(2, 3), (4,), (1, 2, 3), (3, 1, 1, 2), (5,), (2, 2), (1, 1, 4), (3, 3)]
    return make_batch(
        [
            make_trajectory(f"task{i // 4}", i % 4, shape, won=i % 3 == 0)
            for i, shape in enumerate(shapes)
        ]
    )
