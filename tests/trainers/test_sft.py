"""Behaviour cloning: what is learnt, and that a run goes on as if it had never stopped."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from agentgym.errors import UsageError
from agentgym.policies.prompt import load_prompt
from agentgym.rollout import EnvOptions
from agentgym.trainers.clone import CloneOptions, clone
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.run_folder import RunFolder, SaveOptions
from agentgym.trainers.sft import Cloner, CloningOptions, pack_rows
from agentgym.trainers.tiny import Shape, fresh_model, save_model, train_tokenizer
from agentgym.types import Row

# Observation (0 1 2), action (3 4), observation (5), slip (6 7), observation (8), action (9).
ROW = Row(
    ids=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    turns=(-1, -1, -1, 0, 0, -1, -1, -1, -1, 2),
    logprobs=(0.0,) * 10,
    versions=(-1, -1, -1, 0, 0, -1, 0, 0, -1, 0),
)
SHORT = Row((1, 2, 3), (-1, -1, 0), (0.0,) * 3, (-1, -1, 0))
STILL = OptimOptions(lr=1e-9, optimizer="adamw")


def model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
            tie_word_embeddings=True,
        )
    )


def cloner(row: Row, weight: float = 0.3, optim: OptimOptions = STILL) -> Cloner:
    options = CloningOptions(tokens_per_step=1, observation_weight=weight, bfloat16=False)
    return Cloner(model(), options, optim, 10, lambda number: row)


def test_slips_and_padding_are_neither_actions_nor_observations() -> None:
    packed = pack_rows([SHORT, ROW])
    assert packed.action_BT[1].nonzero().flatten().tolist() == [3, 4, 9]
    assert packed.other_BT[1].nonzero().flatten().tolist() == [0, 1, 2, 5, 8]
    assert not (packed.action_BT | packed.other_BT)[0, 3:].any()


def test_the_losses_are_mean_cross_entropies_of_their_tokens() -> None:
    made = cloner(ROW)
    with torch.no_grad():
        logits = made.model(input_ids=torch.tensor([ROW.ids])).logits[0]
    losses = -log_softmax(logits, -1)[torch.arange(9), torch.tensor(ROW.ids[1:])]
    metrics = made.take_step()
    # The loss of token t is at t - 1; the first token has none.
    actions, others = losses[[2, 3, 8]].mean().item(), losses[[0, 1, 4, 7]].mean().item()
    assert math.isclose(metrics["sft/action_loss"], actions, rel_tol=1e-5)
    assert math.isclose(metrics["sft/observation_loss"], others, rel_tol=1e-5)


def test_the_gradient_is_that_of_the_weighted_sum_and_slips_have_none() -> None:
    made = cloner(ROW, weight=0.5)
    twin = model()
    logits = twin(input_ids=torch.tensor([ROW.ids])).logits[0]
    losses = -log_softmax(logits, -1)[torch.arange(9), torch.tensor(ROW.ids[1:])]
    (losses[[2, 3, 8]].mean() + 0.5 * losses[[0, 1, 4, 7]].mean()).backward()
    expected = torch.sqrt(sum((p.grad**2).sum() for p in twin.parameters())).item()
    assert math.isclose(made.take_step()["optim/grad_norm"], expected, rel_tol=1e-5)


def test_how_rows_are_cut_into_passes_changes_nothing() -> None:
    rows = [ROW, SHORT, ROW]
    norms = []
    for tokens in (1, 1000):
        optim = STILL.model_copy(update={"micro_batch_tokens": tokens})
        options = CloningOptions(tokens_per_step=23, bfloat16=False)
        made = Cloner(model(), options, optim, 10, lambda number: rows[number % 3])
        norms.append(made.take_step()["optim/grad_norm"])
    assert math.isclose(*norms, rel_tol=1e-5)


def test_rows_that_are_not_to_be_learnt_are_passed_over() -> None:
    options = CloningOptions(tokens_per_step=1, bfloat16=False)
    made = Cloner(model(), options, STILL, 10, lambda number: ROW if number == 3 else None)
    assert made.take_step()["sft/tokens"] == len(ROW.ids)
    assert made.number == 4


def test_actions_are_learnt() -> None:
    made = cloner(ROW, optim=OptimOptions(lr=0.02, optimizer="muon", warmup=0.0))
    losses = [made.take_step()["sft/action_loss"] for _ in range(10)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder to begin with."""
    prompt = load_prompt("alfworld", "plain", "full")
    tokenizer = train_tokenizer(["go to shelf 1", "You see a mug 2, and a pen 1."], 300)
    folder = tmp_path_factory.mktemp("start")
    save_model(
        folder, fresh_model(tokenizer, Shape(32, 1, 32, 32), 0), tokenizer, prompt, torch.float32
    )
    return folder


def small(start: Path | None, steps: int = 4) -> CloneOptions:
    return CloneOptions(
        steps=steps,
        model=None if start is None else str(start),
        env=EnvOptions(
            suite="alfworld/gen-train", max_turns=12, task_types=("look_at_obj_in_light",)
        ),
        shape=Shape(hidden=32, layers=1, intermediate=32),
        vocabulary=400,
        max_tokens=2000,
        sft=CloningOptions(tokens_per_step=600),
        optim=OptimOptions(lr=5e-3, optimizer="muon"),
        save=SaveOptions(every=2, keep=2),
    )


def run_of(folder: Path) -> RunFolder:
    return RunFolder.create(folder, "", {})


def test_an_interrupted_run_goes_on_as_if_it_had_never_stopped(start: Path, tmp_path: Path) -> None:
    whole = run_of(tmp_path / "whole")
    expected = clone(small(start), whole, lambda metrics: None, lambda: False, print)
    broken = run_of(tmp_path / "broken")
    asked: list[int] = []

    def after_three() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(KeyboardInterrupt):
        clone(small(start), broken, lambda metrics: None, after_three, print)
    resumed = clone(small(start), broken, lambda metrics: None, lambda: False, print)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (expected, resumed)]
    assert weights[0] == weights[1]
    for one, other in zip(whole.metrics(), broken.metrics(), strict=True):
        assert one | {"perf/tokens_per_s": 0} == other | {"perf/tokens_per_s": 0}


def test_an_environment_without_a_demonstrator_is_refused(start: Path, tmp_path: Path) -> None:
    options = small(start).model_copy(update={"env": EnvOptions(suite="corridor/train")})
    with pytest.raises(UsageError, match="environment with a demonstrator 'corridor'"):
        clone(options, run_of(tmp_path), lambda metrics: None, lambda: False, print)


def test_a_fresh_run_makes_its_own_tokenizer_and_model(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    folder = clone(
        small(None, steps=1), run_of(tmp_path / "run"), seen.append, lambda: False, print
    )
    made = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) <= 400
    assert made.config.vocab_size == len(tokenizer)
    assert [one["step"] for one in seen] == [1]
