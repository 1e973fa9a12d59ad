"""A model folder as it is served where weights are loaded again from the disk.

Many models have no output matrix of their own: they use the embedding's. vLLM on a CPU keeps a
packed copy of it for the output, and a reload renews the embedding and not that copy. So what is
served has an output matrix of its own, equal to the embedding, which is loaded as any other.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from agentgym.errors import DataError
from agentgym.files import make_folder, write_atomic

_HEAD = "lm_head.weight"
_HEAD_FILE = "model-lm_head.safetensors"
_CONFIG, _ONE_FILE, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_EMBEDDING = "embed_tokens.weight"


def link_untied(source: Path, folder: Path) -> Path:
    """Make a folder that is another one with an output matrix of its own; files are linked.

    Args:
        source: A model folder.
        folder: Is made.

    Returns:
        The folder.

    Raises:
        DataError: The source is no model folder, or the folder cannot be written.
    """
    make_folder(folder)
    for file in source.iterdir():
        (folder / file.name).symlink_to(file.absolute())
    untie(folder)
    return folder


def untie(folder: Path) -> None:
    """Give the model of a folder an output matrix of its own; one that has it stays as it is.

    Raises:
        DataError: The folder cannot be read or written.
    """
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        has_file = any((folder / name).exists() for name in (_INDEX, _ONE_FILE))
        if not config.get("tie_word_embeddings") or not has_file:
            return
        files = _files_by_weight(folder)
        name = next((name for name in files if name.endswith(_EMBEDDING)), None)
        if name is None:  # called otherwise than anything known here: left to vLLM
            return
        with safe_open(folder / files[name], "pt") as weights:
            save_file({_HEAD: weights.get_tensor(name)}, folder / _HEAD_FILE)
        _write_index(folder, files | {_HEAD: _HEAD_FILE})
        write_atomic(folder / _CONFIG, json.dumps(config | {"tie_word_embeddings": False}))
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"cannot make {folder} ready to be served: {error}") from error


def _files_by_weight(folder: Path) -> dict[str, str]:
    """Return the file of each weight, by name."""
    if (folder / _INDEX).exists():
        content = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return dict(content["weight_map"])
    with safe_open(folder / _ONE_FILE, "pt") as weights:
        return dict.fromkeys(weights.keys(), _ONE_FILE)


def _write_index(folder: Path, files: dict[str, str]) -> None:
    """Name all files; of a model in one file only that is read, whatever an index says."""
    first = "model-all_but_head.safetensors"
    if _ONE_FILE in files.values():
        (folder / _ONE_FILE).rename(folder / first)
        files = {name: first if file == _ONE_FILE else file for name, file in files.items()}
    size = sum((folder / file).stat().st_size for file in set(files.values()))
    index = {"metadata": {"total_size": size}, "weight_map": files}
    write_atomic(folder / _INDEX, json.dumps(index))
