"""The models that come with the package, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from agentgym.errors import unknown

_MODELS = files("agentgym") / "data" / "models"


def bundled_models() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    if not _MODELS.is_dir():
        return ()
    return tuple(sorted(path.name for path in _MODELS.iterdir() if path.is_dir()))


def resolve_model(name: str) -> str:
    """Return the folder of a bundled model, or ``name`` itself: a folder or a hub id.

    Raises:
        UsageError: It is neither a bundled model nor a folder, and no hub id (``owner/model``).
    """
    if name in bundled_models():
        return str(_MODELS / name)
    if Path(name).is_dir() or ("/" in name and not name.startswith((".", "/"))):
        return name
    raise unknown("model (or folder, or hub id owner/model)", name, bundled_models())
