"""The list of a checkpoint's files, by which it is known to be whole.

``manifest.json`` has the size and the SHA-256 of every other file. It is written last; a file that
was cut off, changed, added or lost since is named before anything of the checkpoint is loaded.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from agentgym.errors import DataError
from agentgym.files import sync_tree, write_atomic

MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Bring all files below a folder to the disk, and write down what they are.

    Raises:
        DataError: The manifest cannot be written.
        OSError: A file cannot be read back.
    """
    files = {}
    for path in _files(folder):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        files[_name(path, folder)] = {"bytes": path.stat().st_size, "sha256": digest}
    sync_tree(folder)
    write_atomic(folder / MANIFEST, json.dumps({"files": files}, indent=1) + "\n")


def flaw(folder: Path) -> str | None:
    """Return what is wrong with the files of a sealed folder; None where they are as written.

    Raises:
        DataError: They cannot be read, which tells nothing about what they are.
    """
    try:
        listed = _read(folder / MANIFEST)
        if listed is None:
            return f"its {MANIFEST} is missing or broken"
        there = {_name(path, folder): path for path in _files(folder)}
        for name in sorted(there.keys() | listed.keys()):
            if (wrong := _flaw_of(name, there.get(name), listed.get(name))) is not None:
                return wrong
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {folder}: {error}") from error
    return None


def _flaw_of(name: str, path: Path | None, listed: Any) -> str | None:
    if path is None:
        return f"{name} is missing"
    if not isinstance(listed, dict):
        return f"{name} is not in {MANIFEST}"
    if (size := path.stat().st_size) != listed.get("bytes"):
        return f"{name} has {size} bytes, and {listed.get('bytes')} were written"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if digest == listed.get("sha256") else f"the content of {name} has changed"


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    files = content.get("files") if isinstance(content, dict) else None
    return files if isinstance(files, dict) else None


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder, its manifest excepted; links are not followed."""
    inside = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(path for path in inside if path != folder / MANIFEST)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
