"""What a model tells of itself without its weights: tokenizer, prompt, and how much it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig

from agentgym.errors import DataError
from agentgym.policies.hf import check_folder, load_tokenizer, max_context_of
from agentgym.policies.prompt import Prompt, saved_prompt


@dataclass(frozen=True, slots=True)
class Peek:
    """A model that was not loaded."""

    tokenizer: Any
    prompt: Prompt | None  # that it was trained with, where it carries one
    max_context: int


def peek(name: str) -> Peek | None:
    """Look at a model on this machine; nothing is fetched.

    Args:
        name: A folder or hub id.

    Returns:
        None for a model of the hub that is not here.

    Raises:
        DataError: It is here, and something is missing or broken: the same that loading it says.
    """
    folder = Path(name)
    if not (folder.is_dir() or isinstance(try_to_load_from_cache(name, "config.json"), str)):
        return None
    check_folder(folder)
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"cannot load the model {name}: {first}") from error
    prompt = saved_prompt(folder) if folder.is_dir() else None
    return Peek(load_tokenizer(name), prompt, max_context_of(config))
