"""What a method is, for people: one source for the terminal and for the pages of ``docs/methods``.

The words are the method's own: its module's docstring, and the descriptions of its options.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import getdoc, getmodule
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from agentgym.errors import AgentGymError, DataError
from agentgym.trainers import sft
from agentgym.trainers.method import Method
from agentgym.trainers.registry import first_fault, method_class, method_names, preset_of

HOOKS = (
    "collect",
    "turn_rewards",
    "select",
    "advantages",
    "prepare",
    "hold_back",
    "loss",
    "replay",
    "observe",
)


@dataclass(frozen=True, slots=True)
class OptionLine:
    """One setting: its name, its value by default or by preset, what it is."""

    name: str
    value: str
    about: str
    of_preset: bool = False  # whether the preset that was asked for chose the value


@dataclass(frozen=True, slots=True)
class Description:
    """A method, or one of its presets, in words.

    Attributes:
        name: With its preset, as ``--method`` takes it.
        text: Paper, equations, departures and what to watch; plain text.
        needs: What must be there with the default settings, or the run refuses to start.
        base_options: What the method, or its preset, sets on its base.
    """

    name: str
    summary: str
    paper: str
    role: str
    bases: tuple[str, ...]
    hooks: tuple[str, ...]
    needs: tuple[str, ...]
    text: str
    options: tuple[OptionLine, ...]
    base_options: tuple[tuple[str, str], ...]
    presets: tuple[str, ...]
    refused: Mapping[str, str]


def describe(called: str) -> Description:
    """Describe a method by its name or file, or by ``name:preset``.

    Raises:
        UsageError: No such method or preset, or the preset is refused.
        DataError: The method, or its preset, does not fit its own options.
    """
    if called == sft.NAME:
        return _cloning()
    cls = method_class(called.partition(":")[0])
    chosen = preset_of(cls, called)
    own = cls.options_type.model_fields
    beside = {k: v for k, v in {**cls.base_defaults, **chosen}.items() if k not in own}
    return Description(
        name=called,
        summary=cls.summary,
        paper=cls.paper,
        role=cls.role,
        bases=cls.bases if cls.role == "method" else (),
        hooks=hooks(cls),
        needs=_needs(cls, chosen),
        text=getdoc(getmodule(cls)) or "",
        options=tuple(_line(key, field, chosen) for key, field in own.items()),
        base_options=tuple((key, _shown(value)) for key, value in beside.items()),
        presets=tuple(cls.presets),
        refused=cls.refused_presets,
    )


def describe_all(skip: Callable[[str], None] | None = None) -> list[Description]:
    """Describe every method that is registered, without presets, in the order of their names.

    Args:
        skip: Told which method cannot be described, and why; by default that is an error.
    """
    found = []
    for name in sorted((*method_names(), sft.NAME)):
        try:
            found.append(describe(name))
        except AgentGymError as error:
            if skip is None:
                raise
            skip(f"{name} cannot be described: {error}")
    return found


def hooks(cls: type[Method[Any]]) -> tuple[str, ...]:
    """Return the hooks that a method overrides, in the order in which a step calls them."""
    return tuple(hook for hook in HOOKS if getattr(cls, hook) is not getattr(Method, hook))


def page(description: Description) -> str:
    """Return the method's page as Markdown."""
    d = description
    lines = [
        f"# {d.name}",
        "",
        f"*{d.summary}*" + (f" ({d.paper})" if d.paper else ""),
        "",
        f"A {d.role}. {_standing(d)}",
        "",
        f"Hooks: {', '.join(f'`{hook}`' for hook in d.hooks) or 'none'}. "
        f"Needs: {', '.join(d.needs) or 'nothing beyond the rollouts'}.",
        "",
        "```text",
        d.text,
        "```",
        "",
        "## Options",
        "",
        "| option | default | what it is |",
        "|---|---|---|",
        *(f"| `{o.name}` | `{o.value}` | {o.about.replace('|', '&#124;')} |" for o in d.options),
        "",
    ]
    if d.base_options:
        listed = ", ".join(f"`{key} = {value}`" for key, value in d.base_options)
        lines += [f"It sets on its base: {listed}.", ""]
    for preset in d.presets:
        lines += [f"## {d.name}:{preset}", "", _preset_table(describe(f"{d.name}:{preset}")), ""]
    for preset, reason in d.refused.items():
        lines += [f"`{d.name}:{preset}` is refused: {reason}.", ""]
    return "\n".join(lines)


def _preset_table(description: Description) -> str:
    chosen = [(o.name, o.value) for o in description.options if o.of_preset]
    rows = [*chosen, *description.base_options]
    return "\n".join(
        ["| option | value |", "|---|---|", *(f"| `{key}` | `{value}` |" for key, value in rows)]
    )


def _standing(description: Description) -> str:
    if description.role == "base":
        return "It stands by itself, and methods stand on it."
    if not description.bases:
        return "It stands on nothing."
    first, *others = description.bases
    choice = f"; `method.base` may be {' or '.join(others)}" if others else ""
    return f"It stands on {first}{choice}."


def _cloning() -> Description:
    """Describe the one way to train that is no link of a chain."""
    fields = sft.CloningOptions.model_fields
    return Description(
        name=sft.NAME,
        summary="behaviour cloning of a demonstrator, in a loop of its own",
        paper="",
        role="method",
        bases=(),
        hooks=(),
        needs=("demonstrations",),
        text=getdoc(sft) or "",
        options=tuple(_line(f"sft.{key}", field, {}) for key, field in fields.items()),
        base_options=(),
        presets=(),
        refused={},
    )


def _needs(cls: type[Method[Any]], chosen: Mapping[str, Any]) -> tuple[str, ...]:
    own = cls.options_type.model_fields
    if any(field.is_required() and key not in chosen for key, field in own.items()):
        return ("what its required options ask for",)
    try:
        options = cls.options_type(**{key: value for key, value in chosen.items() if key in own})
    except ValidationError as error:
        raise DataError(f"{cls.name} does not fit its own options: {first_fault(error)}") from None
    return tuple(str(need.name).lower().replace("_", " ") for need in cls(options, 1).needs)


def _line(name: str, field: FieldInfo, chosen: Mapping[str, Any]) -> OptionLine:
    about, of_preset = field.description or "", name in chosen
    if field.is_required() and not of_preset:
        return OptionLine(name, "required", about)
    value = chosen[name] if of_preset else field.get_default(call_default_factory=True)
    return OptionLine(name, _shown(value), about, of_preset)


def _shown(value: object) -> str:
    """Return a value as TOML has it; ``none`` where it is left out."""
    if value is None:
        return "none"
    return "inf" if value == math.inf else json.dumps(value, default=str)
