"""A model's sizes: counted as transformers builds it, read from files, refused where unknown."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentgym.errors import DataError, UsageError
from agentgym.model_shape import (
    ModelShape,
    public_models,
    read_config,
    read_count,
    shape_of,
    stated_shape,
)
from agentgym.policies.bundled import bundled_models, resolve_model
from agentgym.policies.hf import load_model


def config_of(shape: ModelShape) -> dict[str, object]:
    family = "qwen3" if shape.head_norms else "qwen2" if shape.qkv_bias else "llama"
    return {
        "model_type": family,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": shape.positions,
    }


@pytest.mark.parametrize("name", public_models())
def test_a_public_model_has_as_many_parameters_as_transformers_makes(name: str) -> None:
    shape = shape_of(name)
    config = AutoConfig.for_model(**config_of(shape))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as their repositories' safetensors count them
        ("SmolLM2-135M", 134_515_008),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("qwen3-14b", 14_768_307_200),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
    ],
)
def test_a_published_count_is_met_exactly(name: str, parameters: int) -> None:
    assert shape_of(name).parameters == parameters


@pytest.mark.parametrize("name", bundled_models())
def test_a_bundled_model_has_the_parameters_of_its_weights(name: str) -> None:
    folder = resolve_model(name)
    model = load_model(folder, torch.float32)
    assert shape_of(folder).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["Qwen2.5-3B", "Qwen3-4B", "Llama-3.1-8B"])
def test_a_config_is_read_from_its_folder_or_by_its_path(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config_of(shape_of(name))))
    assert shape_of(str(tmp_path)) == shape_of(str(file)) == shape_of(name)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("{", DataError, "cannot read the model's sizes"),
        ("[]", DataError, "no JSON object"),
        ('{"model_type": "mamba"}', UsageError, "architecture 'mamba'"),
        ('{"model_type": "llama"}', DataError, "hidden_size is None"),
        ('{"model_type": "llama", "hidden_size": "8"}', DataError, "hidden_size is '8'"),
    ],
)
def test_a_config_that_does_not_say_is_refused(
    text: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(error, match=said):
        read_config(file)


def test_an_unknown_model_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UsageError, match=r"did you mean Qwen2\.5-7B"):
        shape_of("Qwen/Qwen2.5-7")


def test_stated_parameters_decide_what_was_not_stated() -> None:
    known = shape_of("Llama-3.1-8B")
    stated = stated_shape(32, 4096, 32, 128_256, kv_heads=8, parameters=known.parameters)
    assert stated.intermediate == known.intermediate
    assert stated.parameters == known.parameters


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"parameters": None}, "state --parameters or --intermediate"),
        ({"parameters": 10**6}, "fewer than the other sizes need"),
        ({"hidden": 100}, "not shared evenly by 32 heads"),
        ({"kv_heads": 5}, "cannot share 5 heads"),
    ],
)
def test_stated_sizes_that_make_no_model_are_refused(sizes: dict[str, int], said: str) -> None:
    whole = {"hidden": 4096, "kv_heads": 8, "parameters": 8 * 10**9, **sizes}
    hidden = whole.pop("hidden")
    with pytest.raises(UsageError, match=said):
        stated_shape(32, hidden, 32, 128_256, **whole)


def test_counts_are_read_as_people_write_them() -> None:
    assert read_count("7B") == 7 * 10**9
    assert read_count("1.5b") == 1_500_000_000
    assert read_count("135M") == 135_000_000
    assert read_count("7,615,616,512") == 7_615_616_512
    for text in ("", "B", "seven", "-7B", "7T"):
        with pytest.raises(UsageError, match="expected a number of parameters"):
            read_count(text)


def test_an_adapter_has_the_parameters_that_peft_gives_it() -> None:
    from agentgym.trainers.lora import LoraOptions, add_adapter

    name = bundled_models()[0]
    model = load_model(resolve_model(name), torch.float32)
    add_adapter(model, LoraOptions(rank=5), seed=0)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape_of(resolve_model(name)).adapter(5) == trained
