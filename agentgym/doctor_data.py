"""Whether the data of an environment is what it was when it was published, by its hashes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from agentgym.doctor_finding import Finding
from agentgym.download import DataSet
from agentgym.envs.registry import env_class
from agentgym.fetch import RemoteFile

_BUNDLED = "agentgym/data/"


def data_findings(name: str) -> Iterator[Finding]:
    """Look at the data that an environment brings, and at what was downloaded for it.

    Every byte is read, except of archives that were unpacked: of those, names and sizes.
    """
    yield from _bundled(name)
    seen: set[Path] = set()  # one file may be part of several sets
    for key, data in env_class(name).data_sets().items():
        yield from _published(name, key, data, seen)


def _bundled(name: str) -> Iterator[Finding]:
    """Compare the package's data with what the wheel that was installed says of it."""
    folder = Path(str(files("agentgym") / "data" / name))
    if not folder.is_dir():
        return
    about = f"{name}, bundled data"
    listed = _listed()
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}
    changed = [n for n, own in hashes.items() if listed.get(f"{_BUNDLED}{name}/{n}", own) != own]
    if changed:
        said = f"{', '.join(changed)} in {folder}: not what was installed"
        yield Finding("FAIL", about, said, "pip install --force-reinstall --no-deps agentgym")
        return
    yield Finding("ok", about, f"{len(hashes)} files, SHA-256 {_digest(hashes)}")


def _listed() -> dict[str, str]:
    """Return SHA-256 by path of the files that were installed; none of an editable install."""
    hashes = {}
    for entry in metadata.files("agentgym") or ():
        if entry.hash is not None and entry.hash.mode == "sha256":
            value = base64.urlsafe_b64decode(entry.hash.value + "=")
            hashes[entry.as_posix()] = value.hex()
    return hashes


def _published(name: str, key: str, data: DataSet, seen: set[Path]) -> Iterator[Finding]:
    folder = data.default_folder()
    trees = [folder / path for path in data.unpacked]
    plain = [file for file in data.files if not file.archive]
    there = [file for file in plain if (folder / file.name).is_file()]
    if not there and not any(tree.is_dir() for tree in trees):
        return  # nobody asked for it
    about = f"{name}, published data {key}"
    bring = f"agentgym envs download {name} --set {key}"
    missing = [f.name for f in plain if f not in there] + [t.name for t in trees if not t.is_dir()]
    wrong = [file for file in there if not _is_published(folder / file.name, file, seen)]
    if wrong:
        aside = " && ".join(f"mv {folder / file.name} {folder / file.name}.other" for file in wrong)
        names = ", ".join(file.name for file in wrong)
        said = f"{names} in {folder}: another SHA-256 than what was published"
        yield Finding("FAIL", about, said, f"{aside} && {bring}")
    elif missing:
        yield Finding("note", about, f"{', '.join(missing)} is not in {folder}", bring)
    else:
        yield Finding("ok", about, _identity(folder, there, trees))


def _is_published(path: Path, file: RemoteFile, seen: set[Path]) -> bool:
    if path in seen or file.sha256 is None:
        return True
    if file.size not in (None, path.stat().st_size) or _sha256(path) != file.sha256:
        return False
    seen.add(path)
    return True


def _identity(folder: Path, there: Iterable[RemoteFile], trees: list[Path]) -> str:
    """Return by what the data can be told from other data."""
    said = [f"{f.name} {f.sha256[:12] if f.sha256 else 'of any hash'}" for f in there]
    for tree in trees:
        inside = sorted(path for path in tree.rglob("*") if path.is_file())
        sizes = {path.relative_to(tree).as_posix(): path.stat().st_size for path in inside}
        said.append(f"{tree.name} {len(sizes):,} files, names and sizes {_digest(sizes)}")
    return f"{folder}: {'; '.join(said)}"


def _digest(lines: Mapping[str, object]) -> str:
    """Return the beginning of SHA-256 over names and what is known of each."""
    text = "".join(f"{name} {known}\n" for name, known in lines.items())
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
