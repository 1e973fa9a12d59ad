"""Classes that are known by name: the package's own, and those of other installed packages.

A class is listed by its path, ``package.module:ClassName``, so that listing names imports none of
them. Others register theirs through an entry point group of their own kind.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from agentgym.errors import DataError, unknown

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
