"""A GGUF file as a plain Hugging Face folder, which can be trained and saved as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers.pre_tokenizers import ByteLevel, Digits
from tokenizers.pre_tokenizers import Sequence as InTurn
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from agentgym.errors import DataError


def write_gguf_as_folder(source: Path, folder: Path) -> None:
    """Write weights, settings, tokenizer and chat template of a SmolLM2 in GGUF into a folder.

    Quantized weights are unpacked and rounded to bfloat16: to three digits, where four bits have
    left about one.

    Args:
        source: The ``.gguf`` file.
        folder: Is there, and empty.

    Raises:
        DataError: The file is broken, or the folder cannot be written.
    """
    model, tokenizer = _read(source)
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # a full disk, in the words of another library
        raise DataError(f"cannot write {folder}: {error}") from error
    tokenizer.save_pretrained(folder)


def _read(source: Path) -> tuple[PreTrainedModel, Any]:
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"cannot read the model {source}: {first}") from error
    # GGUF only names how text is cut before it is merged ("smollm"), and transformers cuts as
    # GPT-2 does. SmolLM2 was trained with every digit cut off, so that a run of blanks or line
    # ends before a number stays whole.
    tokenizer.backend_tokenizer.pre_tokenizer = InTurn(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    return model, tokenizer
