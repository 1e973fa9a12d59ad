"""What a model is told at each turn, and what counts as an answer.

The words live in plain text files (``templates/<environment>.<style>.txt``); the path of a file of
one's own takes the place of a style. A file is a header and named sections::

    format: tags
    lowercase: yes

    === full.first ===
    Your task is to: {goal}
    {observation}

A context says what of the past the model sees. In ``full`` the conversation grows: ``full.first``
opens it and ``full.next`` is each later message. In ``window(k)`` the prompt is rebuilt at each
turn: ``window.first``, then ``window.next`` with the last k turns, one ``window.past`` each.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple, TypedDict

from agentgym.errors import DataError, UsageError, unknown
from agentgym.files import write_atomic
from agentgym.policies.action_format import ActionFormat, Parsed, action_format
from agentgym.types import View

PROMPT_FILE = "prompt.json"
"""Where a model folder keeps the prompt that the model was trained with."""

_TEMPLATES = files("agentgym.policies") / "templates"
_SECTION = re.compile(r"^=== (\S+) ===$", re.MULTILINE)
_TOOL = "tool."  # how the sections begin that tell of a tool
_VIEW = frozenset({"observation", "goal", "turn", "actions"})
PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "system": frozenset(),
    "full.first": _VIEW,
    "full.next": _VIEW,
    "window.first": _VIEW,
    "window.next": _VIEW | {"history", "history_length", "turns_taken"},
    "window.past": frozenset({"number", "observation", "action"}),
    "actions": frozenset({"admissible_actions"}),
    "templates": frozenset({"templates", "objects"}),
}
"""What each section may name in braces; those that tell of a tool (``tool.act``) name nothing.

``turn`` and ``number`` count from 1. ``actions`` is the section of that name where the
environment names admissible actions, the section ``templates`` where it names templates of actions
and objects instead, and nothing where it names neither.
"""


class Message(TypedDict):
    """One message of a conversation, as chat templates take it."""

    role: str
    content: str


class Past(NamedTuple):
    """An earlier turn: what was seen and what was done."""

    observation: str
    action: str


@dataclass(frozen=True, slots=True)
class Context:
    """What of the past the model sees.

    ``window`` is None where the conversation only grows, else how many earlier turns are retold.
    """

    window: int | None

    @classmethod
    def parse(cls, text: str) -> Context:
        """Read ``full`` or ``window(k)``.

        Raises:
            UsageError: It is neither.
        """
        if text == "full":
            return cls(None)
        match = re.fullmatch(r"window\((\d+)\)", text)
        if match is None:
            raise UsageError(f"a context is full or window(k), as in window(2); got {text!r}")
        return cls(int(match[1]))

    @property
    def kind(self) -> str:
        """Return ``full`` or ``window``, as section names begin."""
        return "full" if self.window is None else "window"

    def __str__(self) -> str:
        return "full" if self.window is None else f"window({self.window})"


@dataclass(frozen=True, slots=True)
class Template:
    """The words of a prompt: a template file, checked."""

    name: str
    format: ActionFormat
    texts: Mapping[str, str]  # by section

    @classmethod
    def parse(cls, name: str, text: str) -> Template:
        """Read the text of a template file.

        Raises:
            DataError: It breaks a rule; the message names the section and what is allowed.
        """
        header, *parts = _SECTION.split(text)
        texts = {k: v.strip("\n") for k, v in zip(parts[::2], parts[1::2], strict=True)}
        if len(texts) < len(parts) // 2:
            raise DataError(f"template {name}: a section is there twice; name each once")
        form = _read_header(name, header)
        _check_sections(name, texts, form)
        return cls(name, form, texts)

    def tools(self) -> list[dict[str, Any]]:
        """Return what a request says of the tools that there are; nothing without any."""
        told = ((tool, f"{_TOOL}{tool.name}") for tool in self.format.tools)
        return [tool.declare(self.section(s) if s in self.texts else "") for tool, s in told]

    def section(self, section: str, **values: object) -> str:
        """Return a section with its placeholders filled in.

        Raises:
            UsageError: The template has no such section.
        """
        if section not in self.texts:
            raise UsageError(
                f"template {self.name} has no section {section}, which this context needs;"
                f" it has {', '.join(self.texts)}"
            )
        return self.texts[section].format_map(values)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A template in a context: turns what an episode shows into messages.

    Raises:
        UsageError: The template lacks a section that the context needs.
    """

    template: Template
    context: Context

    def __post_init__(self) -> None:
        kind = self.context.kind
        needed = [f"{kind}.first", f"{kind}.next"] + ["window.past"] * (kind == "window")
        missing = [section for section in needed if section not in self.template.texts]
        if missing:
            raise UsageError(
                f"template {self.template.name} cannot be used with context {self.context}:"
                f" it has no section {' and no section '.join(missing)}"
            )

    def opening(self, view: View) -> list[Message]:
        """Return the messages before the first answer."""
        system = self.template.texts.get("system")
        first = self._user(f"{self.context.kind}.first", view)
        return [first] if system is None else [Message(role="system", content=system), first]

    def reply(self, view: View) -> Message:
        """Return what the environment says after an answer; for a context that only grows."""
        return self._user("full.next", view)

    def retold(self, view: View, past: Sequence[Past]) -> list[Message]:
        """Return the messages of a rebuilt prompt.

        Args:
            view: What is seen now.
            past: All earlier turns, oldest first; the context chooses the last of them.
        """
        opening = self.opening(view)
        if not past:
            return opening
        shown = list(enumerate(past, 1))[-self.context.window :] if self.context.window else []
        lines = [
            self.template.section("window.past", number=n, **turn._asdict()) for n, turn in shown
        ]
        message = self._user(
            "window.next",
            view,
            history="\n".join(lines),
            history_length=len(shown),
            turns_taken=len(past),
        )
        return [*opening[:-1], message]

    def parse(self, text: str, calls: Sequence[object] = ()) -> Parsed:
        """Return the action in an answer, or why there is none.

        Args:
            text: What was said.
            calls: Tool calls beside it, as they came.
        """
        return self.template.format.parse(text, calls)

    def refuse_tools(self) -> None:
        """See that answers are text.

        Raises:
            UsageError: Actions are tool calls, which only a chat endpoint answers with.
        """
        if self.template.format.tools:
            raise UsageError(
                f"template {self.template.name} has actions as tool calls, which only a chat"
                " endpoint answers with (--policy openai); choose another, as tags"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of everything a model learns to read and write, in hexadecimal.

        Covers the words and the format, and also messages and actions rendered from made-up
        episodes, so that a change of this code changes it as a change of the words does.
        """
        probe = [self._probe(actions) for actions in (None, ("look", "go to shelf 1"))]
        parts = [self.template.texts, str(self.context), self.template.format.describe(), probe]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the prompt into a model folder, with its digest."""
        content = {
            "name": self.template.name,
            "context": str(self.context),
            "format": self.template.format.name,
            "lowercase": self.template.format.lowercase,
            "tags": list(self.template.format.tags),
            "texts": dict(self.template.texts),
            "sha256": self.digest,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_atomic(folder / PROMPT_FILE, text)

    def _user(self, section: str, view: View, **more: object) -> Message:
        content = self.template.section(
            section,
            observation=view.observation,
            goal=view.goal,
            turn=view.turn + 1,
            actions=self._actions(view),
            **more,
        )
        return Message(role="user", content=content.strip())

    def _actions(self, view: View) -> str:
        texts = self.template.texts
        if view.admissible_actions is not None and "actions" in texts:
            listed = "\n".join(f"'{action}'" for action in view.admissible_actions)
            return self.template.section("actions", admissible_actions=listed)
        if view.templates and "templates" in texts:
            templates, objects = ", ".join(view.templates), ", ".join(view.objects)
            return self.template.section("templates", templates=templates, objects=objects)
        return ""

    def _probe(self, actions: tuple[str, ...] | None) -> list[object]:
        views = [View(f"You see {n}.", "find a cup.", n, actions, None) for n in range(4)]
        past = [Past(view.observation, f"Go to shelf {view.turn}") for view in views]
        if self.context.window is None:
            messages = [self.opening(views[0]), *([self.reply(view)] for view in views[1:])]
        else:
            messages = [self.retold(view, past[: view.turn]) for view in views]
        answers = ("Look", "<think>a</think><action>Look</action>", "<action>Look", "")
        probe: list[object] = [messages, [list(self.parse(answer)) for answer in answers]]
        return [*probe, *self._probe_tools()]

    def _probe_tools(self) -> list[object]:
        read: list[object] = []
        for tool, told in zip(self.template.format.tools, self.template.tools(), strict=True):
            function = {"name": tool.name, "arguments": json.dumps({tool.argument: "Look"})}
            read.append([told, list(self.parse("", [{"function": function}]))])
        return read


def _read_header(name: str, header: str) -> ActionFormat:
    fields: dict[str, str] = {}
    for line in filter(None, map(str.strip, header.splitlines())):
        key, colon, value = line.partition(":")
        if not colon or key not in ("format", "lowercase", "tags"):
            raise DataError(
                f"template {name}: cannot read {line!r} before the first section; expected"
                " 'format: plain|tags|blocks|tools' and, if you like, 'lowercase: yes|no'; for"
                " blocks and tools 'tags: …'"
            )
        fields[key] = value.strip()
    if "format" not in fields or fields.get("lowercase", "no") not in ("yes", "no"):
        raise DataError(f"template {name}: the header needs 'format: …' and 'lowercase: yes|no'")
    tags = fields.get("tags", "").split()
    return action_format(fields["format"], fields.get("lowercase") == "yes", tags)


def _check_sections(name: str, texts: Mapping[str, str], form: ActionFormat) -> None:
    of_tools = {f"{_TOOL}{tool.name}": frozenset[str]() for tool in form.tools}
    known = {**PLACEHOLDERS, **of_tools}
    for section, content in texts.items():
        if section not in known:
            raise DataError(f"template {name}: {unknown('section', section, known)}")
        _check_placeholders(name, section, content, known[section])


def _check_placeholders(name: str, section: str, content: str, allowed: frozenset[str]) -> None:
    try:
        parts = list(Formatter().parse(content))
    except ValueError as error:
        raise DataError(
            f"template {name}, section {section}: {error}; write {{{{ and }}}} for braces"
        ) from error
    for _, placeholder, spec, conversion in parts:
        if placeholder is None:
            continue
        if placeholder not in allowed or spec or conversion:
            known = ", ".join(f"{{{one}}}" for one in sorted(allowed)) or "none"
            raise DataError(
                f"template {name}, section {section}: {{{placeholder}}} means nothing here;"
                f" allowed: {known}"
            )


def template_names() -> tuple[str, ...]:
    """Return the names of the templates that come with the package."""
    names = (path.name for path in _TEMPLATES.iterdir())
    return tuple(sorted(n.removesuffix(".txt") for n in names if n.endswith(".txt")))


def is_template_file(style: str) -> bool:
    """Return whether a template is given by the path of its file, not by the name of a style."""
    return style.endswith(".txt")


def findable(style: str) -> str:
    """Return a style; of the path of a template file, the one that is found from anywhere."""
    return str(Path(style).absolute()) if is_template_file(style) else style


def load_template(name: str | Path) -> Template:
    """Load a template by name (``alfworld.tags``), or one's own by the path of its file.

    Raises:
        UsageError: No template has that name.
        DataError: The file cannot be read or breaks a rule.
    """
    if isinstance(name, str) and name in template_names():
        return Template.parse(name, (_TEMPLATES / f"{name}.txt").read_text(encoding="utf-8"))
    path = Path(name)
    if path.suffix != ".txt":
        raise unknown("template (or path of a .txt file)", str(name), template_names())
    try:
        # With its ending: a file called as a template of the package is must not pass for that.
        return Template.parse(path.name, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the template {path}: {error}") from error


def load_prompt(env: str, style: str, context: str) -> Prompt:
    """Load the prompt for an environment, or the general one where it has none of its own.

    Args:
        env: Name of the environment.
        style: ``tags`` for instruct models, ``plain`` for models that answer with an action only,
            or whatever else the environment has templates of; or the path of a template file
            (``mine.txt``), whatever the environment.
        context: ``full`` or ``window(k)``.

    Raises:
        UsageError: There is no such style, or the template lacks what the context needs.
        DataError: The file cannot be read or breaks a rule.
    """
    if is_template_file(style):
        return Prompt(load_template(Path(style)), Context.parse(context))
    for name in (f"{env}.{style}", f"text.{style}"):
        if name in template_names():
            return Prompt(load_template(name), Context.parse(context))
    raise unknown(f"template for {env} (or path of a .txt file)", style, styles(env, "text"))


def styles(*envs: str) -> set[str]:
    """Return the styles that some environments have templates of; of all where none is named."""
    owned = (name.partition(".") for name in template_names())
    return {style for env, _, style in owned if not envs or env in envs}


def saved_prompt(folder: Path) -> Prompt | None:
    """Return the prompt that a model folder carries, or None where it carries none.

    Raises:
        DataError: It cannot be read, or this code would not tell the model what it was trained
            on: the digest differs.
    """
    path = folder / PROMPT_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        form = action_format(content["format"], content["lowercase"], content.get("tags", ()))
        # A folder of anybody's: in braces stands what a template may name, and no format or member.
        _check_sections(content["name"], content["texts"], form)
        template = Template(content["name"], form, content["texts"])
        prompt = Prompt(template, Context.parse(content["context"]))
        expected = content["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"cannot read the prompt {path}: {error!r}") from error
    if prompt.digest != expected:
        raise DataError(
            f"{path} was written with digest {expected[:12]}, this version renders"
            f" {prompt.digest[:12]}: the model would see other words than it was trained on;"
            " use the version that wrote it, or train again"
        )
    return prompt
