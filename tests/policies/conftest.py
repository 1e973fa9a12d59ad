"""Tiny tokenizers and models that the tests of policies share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

# The markers and quirks of well-known chat templates, in our own words.
CHAT_TEMPLATES = {
    "bare": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "chatml": (  # a default system message, and a line end after the end of a turn
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe useful.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "headers": (  # a first token of its own, trimmed contents
        "<|begin|>{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n"
        "{{ m.content | trim }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
    ),
    "no-system": (  # refuses system messages, and calls the assistant a model
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}<|im_start|>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
    ),
}
FORGETS_THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = (
    "<|pad|>", "<|im_start|>", "<|im_end|>", "<|begin|>", "<|head|>", "<|/head|>",
    "<|system|>", "<|user|>", "<|assistant|>",
)  # fmt: skip
_LINES = (
    "You are in the middle of a room. You see a cabinet 1, and a shelf 2.",
    "Your task is to: put a cup on the shelf.",
    "go to cabinet 1",
    "You arrive at cabinet 1. The cabinet 1 is closed.",
    "Nothing happens.",
)


def _train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in _SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_LINES * 3, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer_with() -> Callable[[str], PreTrainedTokenizerFast]:
    """Makes a byte-level BPE tokenizer with a chat template."""
    trained = _train_tokenizer()

    def make(chat_template: str) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast(
            tokenizer_object=trained,
            eos_token="<|im_end|>",
            pad_token="<|pad|>",
            chat_template=chat_template,
            clean_up_tokenization_spaces=False,
        )

    return make


@pytest.fixture(scope="session")
def tokenizer(
    tokenizer_with: Callable[[str], PreTrainedTokenizerFast],
) -> PreTrainedTokenizerFast:
    return tokenizer_with(CHAT_TEMPLATES["chatml"])


@pytest.fixture(scope="session")
def chat_templates() -> dict[str, str]:
    """Chat templates that keep prefixes, by what is peculiar to them."""
    return CHAT_TEMPLATES


@pytest.fixture(scope="session")
def template_that_forgets_thinking() -> str:
    return FORGETS_THINKING


def _llama(vocabulary: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,
        )
    )


def _qwen2(vocabulary: int) -> PreTrainedModel:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            initializer_range=0.3,
        )
    )


def _gpt2(vocabulary: int) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=512,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


MODELS = {"llama": _llama, "qwen2": _qwen2, "gpt2": _gpt2}


@pytest.fixture
def model_of(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], PreTrainedModel]:
    """Makes a tiny model with random weights, in evaluation mode; its answers are diverse."""

    def make(kind: str) -> PreTrainedModel:
        torch.manual_seed(0)
        return MODELS[kind](len(tokenizer)).eval()

    return make


@pytest.fixture
def model_with_own_past(
    tokenizer: PreTrainedTokenizerFast,
) -> Callable[[str], PreTrainedModel]:
    """Makes a tiny model with a sliding window or a state space."""

    def make(kind: str) -> PreTrainedModel:
        torch.manual_seed(0)
        size = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2}
        if kind == "mamba":
            model = MambaForCausalLM(MambaConfig(**size, state_size=4))
        else:
            heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
            model = MistralForCausalLM(
                MistralConfig(**size, **heads, intermediate_size=48, sliding_window=8)
            )
        return model.eval()

    return make
