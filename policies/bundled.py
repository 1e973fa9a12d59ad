"""The models that have a name of their own: those that come with the package, and SmolLM2."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from agentgym.errors import unknown
from agentgym.policies.smollm2 import SMOLLM2, smollm2_folder

_MODELS = files("agentgym") / "data" / "models"


def bundled_models() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    if not _MODELS.is_dir():
        return ()
    return tuple(sorted(path.name for path in _MODELS.iterdir() if path.is_dir()))


def resolve_model(name: str) -> str:
    """Return the folder of a model with a name, or ``name`` itself: a folder or a hub id.

    The folder of ``smollm2`` is made the first time, which takes half a minute.

    Raises:
        UsageError: It is neither a known name nor a folder, and no hub id (``owner/model``).
        DataError: It is ``smollm2``, and the package that carries it is not installed.
    """
    if name in bundled_models():
        return str(_MODELS / name)
    if name == SMOLLM2:
        return str(smollm2_folder())
    if Path(name).is_dir() or ("/" in name and not name.startswith((".", "/"))):
        return name
    raise unknown("model (or folder, or hub id owner/model)", name, (*bundled_models(), SMOLLM2))
