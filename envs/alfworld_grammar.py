"""Reads the text grammar that an ALFWorld game file carries.

A grammar has *rules* (``"look.feedback"``), each a list of alternatives of which the first whose
condition holds is taken, and for every action a *template* (the command) and a *feedback*. Text
holds references to rules (``#task#``), values (``{r.name}``) and lists over everything that
answers a question (``[{o.name | inreceptacle(o:object, r:receptacle)}]``). The language is read
as TextWorld reads it, including where its reader stops short.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from functools import lru_cache

from agentgym.envs.alfworld_logic import Binding, Literal, Query
from agentgym.envs.alfworld_phrases import (
    Alternative,
    Evaluation,
    ForEach,
    Grammar,
    Listing,
    Part,
    Phrase,
    Reference,
    Value,
    Wording,
    Words,
)
from agentgym.errors import DataError

_PIECE = re.compile(
    r'\s+|\#[^\n]*|(?P<token>"""(?:.|\n)*?"""|"[^"]*"|[\w/-]+|::|[;{}])|(?P<wrong>.)'
)


def read_grammar(text: str) -> Grammar:
    """Read a grammar.

    Raises:
        DataError: The text is broken or uses what is not supported.
    """
    tokens = _Tokens(text)
    actions: dict[str, Wording] = {}
    rules: dict[str, tuple[Alternative, ...]] = {}
    while tokens.more:
        if tokens.take("grammar", "action") == "grammar":
            rules.update(_rules(tokens.value()))
        else:
            name, wording, own_rules = _read_action(tokens)
            actions[name.lower()] = wording
            rules.update(own_rules)
    return Grammar(actions, rules)


class _Tokens:
    """The words of a grammar, taken one by one."""

    def __init__(self, text: str) -> None:
        self._tokens = []
        for match in _PIECE.finditer(text):
            if match["wrong"]:
                raise DataError(f"the grammar has a stray {match['wrong']!r}")
            if match["token"]:
                self._tokens.append(match["token"])
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether any are left."""
        return self._at < len(self._tokens)

    def take(self, *expected: str) -> str:
        """Return the next token, which must be one of ``expected`` if any are given."""
        token = self._tokens[self._at] if self.more else "the end of the text"
        if not self.more or (expected and token not in expected):
            wanted = " or ".join(expected) or "more text"
            raise DataError(f"expected {wanted} in the grammar, got {token[:40]}")
        self._at += 1
        return token

    def value(self) -> str:
        """Return the quoted text of ``:: "…";``."""
        self.take("::")
        token = self.take()
        if not token.startswith('"'):
            raise DataError(f"expected a quoted text in the grammar, got {token[:40]}")
        self.take(";")
        return token[3:-3] if token.startswith('"""') else token[1:-1]


def _read_action(tokens: _Tokens) -> tuple[str, Wording, Mapping[str, tuple[Alternative, ...]]]:
    name = tokens.take()
    tokens.take("{")
    parts: dict[str, str] = {}
    while (part := tokens.take("template", "feedback", "grammar", "pddl", "}")) != "}":
        parts[part] = tokens.value()
    if "template" not in parts or "feedback" not in parts:
        raise DataError(f"action {name} of the grammar needs a template and a feedback")
    wording = Wording(read_phrase(parts["template"]), read_phrase(parts["feedback"]))
    lines = parts.get("grammar", "{}").split("\n")
    kept = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return name, wording, _rules(kept)


@lru_cache(maxsize=512)  # of a game's rules only the task's are its own
def _rules(text: str) -> Mapping[str, tuple[Alternative, ...]]:
    try:
        content = json.loads(text)
        return {
            name: tuple(_alternative(one) for one in alternatives)
            for name, alternatives in content.items()
        }
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"the grammar's rules are broken: {error!r}") from error


def _alternative(content: Mapping[str, str]) -> Alternative:
    condition = content.get("condition")
    return Alternative(read_phrase(content["rhs"]), read_query(condition) if condition else None)


# Phrases --------------------------------------------------------------------------------------

_LEADING = re.compile(r"(?:\s+|//[^\n]*)*")
_TAG = r"[\w()/!<>\-\s,.]+"
_SYMBOL = re.compile(
    rf"""\t*(?:
        (?P<list>\[)?\{{
            (?: \#(?P<called>{_TAG})\# | (?P<expression>[^|\[\]{{}}\n<>]+) )
            (?: \s*\|\s* (?P<given>[^;|{{}}\n\[\]#]+) )?
        \}}(?(list)\])
      | \#(?P<rule>{_TAG})\#
      | "(?P<quoted>[^;|"<>\[\]#{{}}]*)"
      | (?P<words>[^;|"<>\[\]#{{}}]+)
    )""",
    re.VERBOSE,
)


@lru_cache(maxsize=4096)
def read_phrase(text: str) -> Phrase:
    """Read a phrase.

    White space at its beginning is dropped, and so is all that follows the first character that
    has no meaning there: TextWorld's reader does both.
    """
    parts: list[Part] = []
    at = len(text) - len(_LEADING.sub("", text, count=1))
    while at < len(text) and (symbol := _SYMBOL.match(text, at)):
        parts.append(_read_part(symbol))
        at = symbol.end()
    return Phrase(tuple(parts))


def _read_part(symbol: re.Match[str]) -> Part:
    if symbol["rule"]:
        return Reference(symbol["rule"])
    if symbol["words"] is not None or symbol["quoted"] is not None:
        return Words(symbol["words"] or symbol["quoted"] or "")
    called = symbol["called"]
    part: Part = Reference(called) if called else Evaluation(read_expression(symbol["expression"]))
    if symbol["given"]:
        part = ForEach(part, read_query(symbol["given"]))
    return Listing(part) if symbol["list"] else part


_LITERAL = re.compile(r"\s*([\w-]+)\(([^()]*)\)\s*")


@lru_cache(maxsize=4096)
def read_query(text: str) -> Query:
    """Read a question: ``holds(a:agent, o:object) & openable(r:receptacle)``.

    Raises:
        DataError: It is broken.
    """
    literals = []
    types: dict[str, str] = {}
    for piece in text.split("&"):
        match = _LITERAL.fullmatch(piece)
        if match is None:
            raise DataError(f"the grammar asks {text!r}, which is no question about facts")
        typed = [argument.partition(":") for argument in match[2].split(",") if argument.strip()]
        terms = tuple(f"?{name.strip()}" for name, _, _ in typed)
        types.update(zip(terms, (kind.strip() for _, _, kind in typed), strict=True))
        literals.append(Literal(match[1], terms))
    return Query(tuple(literals), types=types, in_order=True, distinct=True)


@lru_cache(maxsize=4096)
def read_expression(text: str) -> Value:
    """Read an expression: names, their ``name``, ``id`` and articles, texts, ``+`` and ``or``.

    Raises:
        DataError: It holds anything else. (Nothing of a game file is ever executed.)
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise DataError(f"the grammar's expression {text!r} is broken: {error}") from error


def _value(node: ast.expr) -> Value:
    match node:
        case ast.Constant(value=str(text)):
            return lambda scene, binding: text
        case ast.Name(id=variable):
            return _attribute(variable, "name")
        case ast.Attribute(value=ast.Name(id=variable), attr=attribute):
            return _attribute(variable, attribute)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            before, after = _value(left), _value(right)
            return lambda scene, binding: before(scene, binding) + after(scene, binding)
        case ast.BoolOp(op=ast.Or(), values=choices):
            values = [_value(choice) for choice in choices]
            return lambda scene, binding: next(
                (text for value in values if (text := value(scene, binding))), ""
            )
    raise DataError(f"the grammar's expression {ast.unparse(node)!r} is not supported")


def _attribute(variable: str, attribute: str) -> Value:
    term = f"?{variable}"
    match attribute:
        case "name":
            return lambda scene, binding: scene.names[_bound(binding, term)]
        case "id":
            return lambda scene, binding: _bound(binding, term)
        case "indefinite":
            return lambda scene, binding: "a"
        case "definite":
            return lambda scene, binding: "the"
    raise DataError(f"the grammar asks for {variable}.{attribute}, which is not supported")


def _bound(binding: Binding, term: str) -> str:
    if term not in binding:
        raise DataError(f"the grammar speaks of {term[1:]!r}, which stands for nothing there")
    return binding[term]
