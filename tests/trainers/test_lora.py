"""An adapter: what it changes, what it leaves, what is written and read back."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agentgym.errors import DataError, UsageError
from agentgym.trainers.learner import Learner
from agentgym.trainers.lora import (
    LoraOptions,
    add_adapter,
    has_adapter,
    load_adapter,
    merged,
    save_adapter,
)
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.registry import build_chain

IDS = torch.tensor([[3, 7, 1, 9, 22, 4]])
STEPS = 10


@pytest.fixture
def trained(make_model, two_groups):
    """A model whose adapter was trained for a step, the learner, and what it was before."""
    model = make_model(torch.float32)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    add_adapter(model, LoraOptions(rank=2, alpha=4), seed=0)
    chain = build_chain({"kl_coef": 0.1}, STEPS)
    options = OptimOptions.model_validate({"lr": 1e-2, "warmup": 0})
    learner = Learner(model, options, STEPS, chain.needs)
    take_step(learner, chain, two_groups, 1)
    return model, learner, before


def take_step(learner, chain, batch, step: int) -> dict[str, float]:
    batch = chain.advantages(learner.prepare(batch, 0.8), step)
    return learner.update(batch, chain, step)[1]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_a_new_adapter_changes_nothing_and_the_same_seed_gives_the_same(make_model) -> None:
    model, again = make_model(torch.float32), make_model(torch.float32)
    plain = logits(model)
    assert not has_adapter(model)
    for one in (model, again):
        add_adapter(one, LoraOptions(), seed=3)
    assert has_adapter(model)
    assert torch.equal(logits(model), plain)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


def test_a_step_trains_the_adapter_and_nothing_else(trained, make_model) -> None:
    model, _, before = trained
    assert not torch.equal(logits(model), logits(make_model(torch.float32)))
    after = {n.replace(".base_layer", ""): p for n, p in model.state_dict().items()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(p.requires_grad is ("lora_" in n) for n, p in model.named_parameters())


def test_a_trained_adapter_is_read_back_bitwise_and_trained_on(
    trained, make_model, two_groups, tmp_path
) -> None:
    model, learner, _ = trained
    save_adapter(model, tmp_path)
    again = make_model(torch.float32)
    load_adapter(again, tmp_path)
    assert torch.equal(logits(model), logits(again))
    chain = build_chain({"kl_coef": 0.1}, STEPS)
    options = OptimOptions.model_validate({"lr": 1e-2, "warmup": 0})
    resumed = Learner(again, options, STEPS, chain.needs)
    resumed.load_state_dict(copy.deepcopy(learner.state_dict()))
    found = [take_step(one, chain, two_groups, 2) for one in (learner, resumed)]
    assert found[0] == found[1]
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


def test_merged_it_is_a_plain_model_whose_logits_agree(trained, tmp_path) -> None:
    model, _, _ = trained
    plain = merged(model)
    assert not has_adapter(plain)
    assert has_adapter(model)
    torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=1e-5)
    plain.save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(logits(read), logits(plain))


def test_peft_reads_what_is_written(trained, make_model, tmp_path) -> None:
    model, _, _ = trained
    save_adapter(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what peft asks of transformers
        read = PeftModel.from_pretrained(make_model(torch.float32), str(tmp_path))
    torch.testing.assert_close(logits(read), logits(model), rtol=0, atol=1e-6)


def test_the_reference_is_the_model_without_its_adapter(trained, make_model, two_groups) -> None:
    model, learner, _ = trained
    plain = Learner(make_model(torch.float32), OptimOptions(), STEPS).score(two_groups, 0.8)
    scored = learner.score(two_groups, 0.8)
    assert torch.equal(scored.ref_logprob_BT, plain.old_logprob_BT)
    assert not torch.equal(scored.old_logprob_BT, plain.old_logprob_BT)
    assert all(p.requires_grad is ("lora_" in n) for n, p in model.named_parameters())


def test_frozen_weights_may_be_of_half_precision_the_adapter_never(make_model) -> None:
    model = make_model(torch.bfloat16)
    add_adapter(model, LoraOptions(), seed=0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("targets", "message"), [(("query",), "query"), (("lm_head",), "output projection")]
)
def test_targets_that_cannot_be_are_refused(targets, message, make_model) -> None:
    with pytest.raises(UsageError, match=message):
        add_adapter(make_model(), LoraOptions(targets=targets), seed=0)


def test_what_was_read_is_merged_and_written_as_what_was_made(
    trained, make_model, tmp_path
) -> None:
    model, _, _ = trained
    save_adapter(model, tmp_path / "adapter")
    again = make_model(torch.float32)
    load_adapter(again, tmp_path / "adapter")
    for name, one in (("made", model), ("read", again)):
        merged(one).save_pretrained(tmp_path / name)
    made, read = (load_file(tmp_path / n / "model.safetensors") for n in ("made", "read"))
    assert made.keys() == read.keys()
    assert all(torch.equal(made[name], read[name]) for name in made)


def test_an_adapter_of_another_model_is_refused(trained, make_model, tmp_path) -> None:
    save_adapter(trained[0], tmp_path)
    with pytest.raises(DataError, match="does not fit the model"):
        load_adapter(make_model(torch.float32, num_hidden_layers=1), tmp_path)
    with pytest.raises(DataError, match="cannot load the adapter"):
        load_adapter(make_model(torch.float32, intermediate_size=32), tmp_path)


@pytest.mark.parametrize("content", [b"", b"no such thing"])
def test_an_adapter_that_was_cut_off_is_one_clear_error(
    content, trained, make_model, tmp_path
) -> None:
    save_adapter(trained[0], tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="cannot load the adapter"):
        load_adapter(make_model(torch.float32), tmp_path)


def test_a_folder_without_an_adapter_is_one_clear_error(make_model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot load the adapter"):
        load_adapter(make_model(), tmp_path)
