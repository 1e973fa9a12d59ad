"""Which methods there are, and how to build a chain from settings.

The built-in ones are listed here by path. Others register through the entry point group
``agentgym.methods``: ``name = "package.module:ClassName"``. One that is registered nowhere is named
by the file that it stands in, ``path/to/file.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentgym.errors import DataError, UsageError, unknown
from agentgym.plugins import load_file, load_plugin, plugin_paths
from agentgym.trainers.method import Chain, Method, RewardOptions

ENTRY_POINT_GROUP = "agentgym.methods"

BUILT_IN: Mapping[str, str] = {
    "aepo": "agentgym.trainers.aepo:AEPO",
    "arpo": "agentgym.trainers.arpo:ARPO",
    "dapo": "agentgym.trainers.dapo:DAPO",
    "drbot": "agentgym.trainers.drbot:DrBoT",
    "drgrpo": "agentgym.trainers.drgrpo:DrGRPO",
    "empg": "agentgym.trainers.empg:EMPG",
    "epo": "agentgym.trainers.epo:EPO",
    "gigpo": "agentgym.trainers.gigpo:GiGPO",
    "grpo": "agentgym.trainers.grpo:GRPO",
    "igpo": "agentgym.trainers.igpo:IGPO",
    "ppo": "agentgym.trainers.ppo:PPO",
    "reinforce++": "agentgym.trainers.reinforce_pp:ReinforcePP",
    "rloo": "agentgym.trainers.rloo:RLOO",
    "spear": "agentgym.trainers.spear:SPEAR",
}


@cache
def _paths() -> dict[str, str]:
    return plugin_paths(ENTRY_POINT_GROUP, BUILT_IN)


def method_names() -> tuple[str, ...]:
    """Return the names of all methods and bases, sorted, without presets."""
    return tuple(sorted(_paths()))


def is_file(name: str) -> bool:
    """Return whether a method's name, with or without a preset, is that of a Python file."""
    return name.partition(":")[0].endswith(".py")


def method_class(name: str) -> type[Method[Any]]:
    """Return the class of the method called ``name``, or of that in a file of this name.

    Raises:
        UsageError: No method has that name, or there is no such file.
        DataError: The entry point of that name, or the file, has no :class:`Method`.
    """
    if is_file(name):
        return load_file("method", Path(name), Method)
    return load_plugin("method", name, _paths(), Method)


def build_chain(
    settings: Mapping[str, Any], steps: int, reward: RewardOptions | None = None
) -> Chain:
    """Build a base and a method from one table of settings.

    Args:
        settings: ``name`` (``epo``, ``epo:released`` or ``path/to/file.py``), ``base``, and the
            options of both. An option that both have is the method's.
        steps: How many steps the run has.
        reward: What trajectories are rewarded for.

    Raises:
        UsageError: An unknown method, base, preset or option, or a value that does not fit.
        DataError: The method or its preset sets what neither it nor a base of it has.
    """
    options = dict(settings)
    called = str(options.pop("name", "grpo"))
    wanted_base = options.pop("base", None)
    name = called.partition(":")[0]
    cls = method_class(name)
    base = _base(cls, wanted_base)
    classes = [cls] if base is cls else [base, cls]
    chosen = {**cls.base_defaults, **preset_of(cls, called)}
    options = {**_known(chosen, cls, classes), **options}
    links = [link(_options(link, classes, options), steps) for link in classes]
    if options:
        raise unknown("method option", next(iter(options)), ["name", "base", *_fields(classes)])
    standing = "" if base is cls or base.name == cls.bases[0] else f" on {base.name}"
    named = cls.name + called.removeprefix(name) if is_file(name) else called
    return Chain(named + standing, links, reward)


def preset_of(cls: type[Method[Any]], called: str) -> Mapping[str, Any]:
    """Return what a method sets when it is called ``name:preset``; nothing without a preset.

    Raises:
        UsageError: There is no such preset, or it is refused; the message has the reason.
    """
    _, colon, preset = called.partition(":")
    if not colon:
        return {}
    if preset in cls.refused_presets:
        raise UsageError(f"there is no {cls.name}:{preset}: {cls.refused_presets[preset]}")
    if preset not in cls.presets:
        raise unknown(f"preset of {cls.name}", preset, cls.presets)
    return cls.presets[preset]


def _known(
    chosen: Mapping[str, Any], cls: type[Method[Any]], classes: list[type[Method[Any]]]
) -> dict[str, Any]:
    """Return what a method sets and one of the classes has; the rest must be another base's.

    Raises:
        DataError: No base has it.
    """
    fields = _fields(classes)
    if not fields.issuperset(chosen):
        bases = cls.bases if cls.role == "method" else ()
        anywhere = _fields([*classes, *map(method_class, bases)])
        strange = [key for key in chosen if key not in anywhere]
        if strange:
            fault = unknown("option", strange[0], anywhere)
            raise DataError(f"{cls.name} sets what neither it nor a base of it has: {fault}")
    return {key: value for key, value in chosen.items() if key in fields}


def _fields(classes: list[type[Method[Any]]]) -> set[str]:
    return {key for link in classes for key in link.options_type.model_fields}


def _base(cls: type[Method[Any]], wanted: str | None) -> type[Method[Any]]:
    if cls.role == "base":
        if wanted not in (None, cls.name):
            raise UsageError(f"{cls.name} is a base itself; leave method.base out")
        return cls
    if wanted is not None and wanted not in cls.bases:
        raise unknown(f"base of {cls.name}", wanted, cls.bases)
    return method_class(wanted or cls.bases[0])


def _options(
    link: type[Method[Any]], classes: list[type[Method[Any]]], options: dict[str, Any]
) -> Any:
    """Take a link's own options out of ``options`` and validate them."""
    later = {key for c in classes[classes.index(link) + 1 :] for key in c.options_type.model_fields}
    own = [key for key in options if key in link.options_type.model_fields and key not in later]
    try:
        return link.options_type.model_validate({key: options.pop(key) for key in own})
    except ValidationError as error:
        raise UsageError(first_fault(error)) from None


def first_fault(error: ValidationError) -> str:
    """Return the first thing that is wrong, and where."""
    first = error.errors(include_url=False)[0]
    where = ".".join(("method", *map(str, first["loc"])))
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"] or first["type"] == "missing":  # the input is all of the options
        return f"{where}: {message}"
    return f"{where} = {first['input']!r}: {message}"
