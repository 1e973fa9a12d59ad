"""Demonstrations in the buffer of a method that replays, before the first step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.config import load
from agentgym.envs.corridor import WORDS
from agentgym.errors import DataError, UsageError
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import load_prompt
from agentgym.train import Reporter, run_training
from agentgym.trainers.demonstrated import remember_demonstrations
from agentgym.trainers.learner import Learner
from agentgym.trainers.method import Chain
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain
from agentgym.trainers.spear import SPEAR
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer

TURNS = [
    {"observation": "follow red\ndoors blue green red", "action": "red"},
    {"observation": "doors red green blue", "action": "red"},
]
LINE = {"task": "train-000", "suite": "corridor/train", "goal": "follow red", "won": True}
PLAIN = load_prompt("corridor", "plain", "full")


@pytest.fixture
def demonstrations(tmp_path: Path) -> Path:
    path = tmp_path / "d.jsonl"
    lost = LINE | {"task": "train-001", "won": False}
    lines = [LINE, lost, LINE | {"task": "train-002"}]
    path.write_text("".join(json.dumps(one | {"turns": TURNS}) + "\n" for one in lines))
    return path


@pytest.fixture(scope="module")
def parts() -> Any:
    """A tokenizer of the corridor, and a model with random weights."""
    tokenizer = train_tokenizer([" ".join(WORDS)] * 10, 300)
    shape = Shape(hidden=32, layers=1, intermediate=64, context=256)
    return tokenizer, fresh_model(tokenizer, shape, seed=0)


def chain(path: object, **options: object) -> Chain:
    method = {"name": "spear", "demonstrations": str(path), "tool_schedule": "none", **options}
    return build_chain(method, 10)


def remember(method: Chain, parts: Any, env: str = "corridor", prompt: Any = PLAIN) -> int:
    tokenizer, model = parts
    learner = Learner(model, OptimOptions(), 10, method.needs, 0)
    return remember_demonstrations(method, {env: Script(prompt, tokenizer)}, learner, 1.0)


def test_won_demonstrations_are_remembered_with_the_likelihoods_of_the_model(
    demonstrations: Path, parts: Any
) -> None:
    method = chain(demonstrations)
    assert remember(method, parts) == 2
    link = method.links[-1]
    assert isinstance(link, SPEAR)
    first, second = link._buffer.memories
    assert (first.step, first.reward, len(first.rows)) == (0, 1.0, 1)
    (row,) = first.rows
    tokenizer, model = parts
    said = tokenizer.decode(row["ids_BT"][row["turn_BT"] >= 0].tolist(), skip_special_tokens=True)
    assert said == "redred"
    with torch.no_grad():
        logprobs = model(row["ids_BT"][None]).logits[0, :-1].log_softmax(-1)
    expected = logprobs.gather(1, row["ids_BT"][1:, None])[:, 0]
    spoken = (row["turn_BT"] >= 0)[1:]
    assert row["old_logprob_BT"][1:][spoken].tolist() == pytest.approx(
        expected[spoken].tolist(), abs=1e-5
    )
    assert torch.equal(row["behaviour_logprob_BT"], row["old_logprob_BT"])
    assert torch.equal(second.rows[0]["ids_BT"], row["ids_BT"])


def test_by_the_released_rules_rows_are_remembered(demonstrations: Path, parts: Any) -> None:
    method = chain(demonstrations, buffer_rules="released")
    assert remember(method, parts) == 2
    assert method.state()["spear"]["buffer"]["step"].tolist() == [0, 0]


def test_a_method_that_asks_for_none_remembers_none(parts: Any) -> None:
    assert remember(build_chain({"name": "spear"}, 10), parts) == 0
    assert remember(build_chain({"name": "grpo"}, 10), parts) == 0


def test_what_does_not_fit_is_refused(demonstrations: Path, parts: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is of corridor, and the run is in alfworld"):
        remember(chain(demonstrations), parts, env="alfworld")
    with pytest.raises(UsageError, match="need a plain template and the context full"):
        remember(chain(demonstrations), parts, prompt=load_prompt("corridor", "plain", "window(1)"))
    with pytest.raises(DataError, match="cannot read"):
        remember(chain(tmp_path / "nowhere"), parts)


def test_a_run_replays_them(demonstrations: Path, parts: Any, tmp_path: Path) -> None:
    tokenizer, model = parts
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / "model")
    PLAIN.save(tmp_path / "model")
    config = load([{
        "steps": 2,
        "env": {"suite": "corridor/train", "max_turns": 1},  # which nobody wins
        "policy": {
            "model": str(tmp_path / "model"),
            "template": "plain",
            "sampling": {"max_tokens": 3, "max_context": 128},
        },
        "rollout": {"tasks_per_step": 2, "group_size": 2},
        "method": {
            "name": "spear", "demonstrations": str(demonstrations), "buffer_size": 2,
            "warmup_steps": 1, "tool_schedule": "none", "filters": [],
        },
        "eval": {"suite": "corridor/test", "tasks": 1},
    }])  # fmt: skip
    steps: list[dict[str, float]] = []
    run_training(config, tmp_path / "run", Reporter(lambda _: None, steps.append), resume=False)
    assert steps[0]["spear/buffer"] == 2
    assert steps[1]["spear/replayed"] == 2
    assert steps[1]["replay/optim/grad_norm"] > 0
