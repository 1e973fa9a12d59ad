"""Classes that are known by name: the package's own, those of other packages, those in a file.

A class is listed by its path, ``package.module:ClassName``, so that listing names imports none of
them. Other packages register theirs through an entry point group of their own kind. A file that
nobody installed is asked for by its own path.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TypeVar

from agentgym.errors import DataError, UsageError, unknown

T = TypeVar("T")


def plugin_paths(group: str, built_in: Mapping[str, str]) -> dict[str, str]:
    """Return path by name; a name of the package's own cannot be taken by another package."""
    return {point.name: point.value for point in entry_points(group=group)} | dict(built_in)


def load_plugin(kind: str, name: str, paths: Mapping[str, str], base: type[T]) -> type[T]:
    """Return the class called ``name``.

    Args:
        kind: What is named, in the singular: ``"environment"``.
        name: As in ``paths``.
        paths: Path by name.
        base: What the class must be a subclass of.

    Raises:
        UsageError: Nothing has that name.
        DataError: The path leads to no such class.
    """
    if name not in paths:
        raise unknown(kind, name, paths)
    module, _, attribute = paths[name].partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DataError(f"{kind} {name!r} is registered as {paths[name]}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise DataError(
            f"{kind} {name!r} is registered as {paths[name]}, which is no {base.__name__}"
        )
    return found


def load_file(kind: str, path: Path, base: type[T]) -> type[T]:
    """Return the one class of a Python file that is a kind of ``base``.

    Args:
        kind: What is in the file, in the singular: ``"method"``.
        path: The file, wherever it is. It is run once, whoever asks for it again.
        base: What the class must be a subclass of.

    Raises:
        UsageError: There is no such file.
        DataError: The file cannot be imported, or does not have one such class.
    """
    if not path.is_file():
        raise UsageError(f"there is no {kind} {str(path)!r}: no such file")
    module = _module_of(path.resolve())
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base)
        if value.__module__ == module.__name__  # what it imports is not its own
    ]
    if len(found) != 1:
        names = ", ".join(one.__name__ for one in found) or "none"
        raise DataError(f"{path} should have one {base.__name__} of its own; it has {names}")
    return found[0]


@cache
def _module_of(path: Path) -> ModuleType:
    name = f"{path.stem} of {path.parent}"  # no import statement can mean it
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # where its annotations are looked up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a file of somebody else raises what it likes
        del sys.modules[name]
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"cannot import {path}{_place(error, path)}: {what}") from error
    return module


def _place(error: Exception, path: Path) -> str:
    """Return in which line of a file an exception arose, as a clause; empty where in none."""
    lines = [one.lineno for one in extract_tb(error.__traceback__) if one.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
