"""A language model small enough to learn on two cores: its tokenizer and its first weights.

The tokenizer is byte-level BPE, so that any text round-trips. Its splitting rule is made for
worlds that call things ``cabinet 8``: type and number are two tokens, so that what is learned
about one cabinet holds for all, and a phrase that the environment repeats at every turn is one
token, so that an episode is short. Another rule is for worlds whose things have names of their
own: a name is the same tokens wherever it stands, so that it can be copied.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import Regex as TokenizerRegex
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from agentgym.errors import UsageError
from agentgym.policies.prompt import Prompt

END = "<|end|>"
PAD = "<|pad|>"
ROLES = ("system", "user", "assistant")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '" + END + "' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = (PAD, END, *(f"<|{role}|>" for role in ROLES))

_WORDS = r" ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]|\s+"
_NAMES = (  # what stands before a name takes the space, so that no name has one
    r"\p{Lu}\p{L}*| ?\p{Ll}\p{L}*(?: \p{Ll}\p{L}*)* ?|\p{L}+|\p{N}{1,2}|[^\s\p{L}\p{N}] ?|\s+"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the model is. ``head`` is 32 or 64: what attention kernels of servers accept."""

    hidden: int = 128
    layers: int = 4
    head: int = 32
    intermediate: int = 384
    context: int = 2048  # tokens

    def __post_init__(self) -> None:
        if self.head not in (32, 64) or self.hidden % self.head:
            raise UsageError(
                f"a head of {self.head} in a hidden size of {self.hidden}; expected 32 or 64, and a"
                " hidden size that it divides"
            )


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, phrases: Sequence[str] = (), names: bool = False
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with a chat template on ``texts``.

    Args:
        texts: What the model will read and write, without special tokens.
        vocabulary: Tokens at most, the 256 bytes and the special tokens included.
        phrases: Strings that are split off whole, and so become one token where the texts repeat
            them often enough; where several fit, the longest.
        names: Whether a word with a capital is the same tokens after a space and without one.
            Words without a capital are then split off together, and years after two digits.
    """
    # The regular expression takes the first alternative that fits.
    longest_first = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    rule = "|".join([*map(_whole, longest_first), _NAMES if names else _WORDS])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(TokenizerRegex(rule), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    return made


def _whole(phrase: str) -> str:
    """Return what recognises a phrase; one that ends with a letter ends where the word does."""
    return re.escape(phrase) + (r"(?!\p{L})" if phrase[-1].isalpha() else "")


def fresh_model(tokenizer: PreTrainedTokenizerFast, shape: Shape, seed: int) -> LlamaForCausalLM:
    """Return a Llama-shaped model with random weights, float32.

    Embeddings are tied, so that a name which is read and a name which is written are one vector:
    copying it is the first thing such a model has to learn.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // shape.head,
        num_key_value_heads=shape.hidden // shape.head,
        head_dim=shape.head,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.get_vocab()[PAD],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write a plain Hugging Face folder with weights, tokenizer and the prompt.

    Args:
        folder: Is made if need be.
        model: Stays as it is, whatever ``dtype`` is.
        tokenizer: The model's.
        prompt: What the model was trained with.
        dtype: Of the weights on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = copy.deepcopy(model)
    nn.Module.to(saved, dtype)  # in place; the model's own method has no type
    saved.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prompt.save(folder)
