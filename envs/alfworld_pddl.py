"""Reads the planning side of an ALFWorld game: its PDDL domain and problem.

Read is the subset that ALFWorld's domains use: typed parameters, conditions of ``and``, ``or``,
``not``, ``exists`` and ``=``, effects of ``and``, ``not`` and ``when``; action costs are read
over, for nothing in a game depends on them. Names are lower-cased, as PDDL has it. Anything else
is refused rather than played wrongly.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice, product
from math import prod
from typing import TypeAlias

from agentgym.envs.alfworld_actions import Action, Domain, Effect, Problem
from agentgym.envs.alfworld_logic import ROOT_TYPE, Arguments, Literal, Query, ground
from agentgym.errors import DataError

Node: TypeAlias = "str | list[Node]"

_MOST_CHOICES = 10_000
"""Ways in which a condition can hold; the benchmark's have a few. More is no game but a trap."""

_COMMENT = re.compile(r";[^\n]*")
_TOKEN = re.compile(r"[()]|\??[^\s()?]+")


@lru_cache(maxsize=16)  # all games of a release share one domain
def read_domain(text: str) -> Domain:
    """Read a domain.

    Raises:
        DataError: The text is broken or uses what is not supported.
    """
    sections = _sections(text, "domain")
    known = {":requirements", ":types", ":constants", ":predicates", ":functions", ":action"}
    for section in sections:
        if section[0] not in known:
            raise DataError(f"the domain has a section {_show(section)}, which is not supported")
    types = {
        kind: above for section in _named(sections, ":types") for kind, above in _typed(section)
    }
    constants = {
        c: kind for section in _named(sections, ":constants") for c, kind in _typed(section)
    }
    actions = tuple(_action(section) for section in _named(sections, ":action"))
    return Domain(types, constants, actions)


def read_problem(text: str, domain: Domain) -> Problem:
    """Read a problem of ``domain``.

    Raises:
        DataError: The text is broken or uses what is not supported.
    """
    sections = _sections(text, "problem")
    goals = _named(sections, ":goal")
    inits = _named(sections, ":init")
    if len(goals) != 1 or len(goals[0]) != 1 or len(inits) != 1:
        raise DataError("the problem needs one :init and one :goal")
    objects = dict(domain.constants)
    for section in _named(sections, ":objects"):
        objects.update(_typed(section))
    facts = _initial_facts(inits[0], objects)
    return Problem(_members(objects, domain.types), facts, _condition(goals[0][0], {}))


# Text to nested lists -------------------------------------------------------------------------


def _parse(text: str) -> Node:
    top: list[Node] = []
    stack: list[list[Node]] = [top]
    for word in _TOKEN.findall(_COMMENT.sub("", text).lower()):
        if word == "(":
            stack.append([])
            stack[-2].append(stack[-1])
        elif word == ")":
            stack.pop()
            if not stack:
                raise DataError("the PDDL closes a parenthesis that it never opened")
        else:
            stack[-1].append(word)
    if len(stack) != 1 or len(top) != 1:
        raise DataError("the PDDL is cut off: a parenthesis is left open, or it is empty")
    return top[0]


def _sections(text: str, kind: str) -> list[list[Node]]:
    tree = _parse(text)
    if not (isinstance(tree, list) and len(tree) > 1 and tree[0] == "define"):
        raise DataError(f"a PDDL {kind} begins with (define ({kind} …), got {_show(tree)}")
    head, *rest = tree[1:]
    if not (isinstance(head, list) and head and head[0] == kind):
        raise DataError(f"expected a PDDL {kind}, got {_show(head)}")
    sections = [section for section in rest if isinstance(section, list) and section]
    if len(sections) != len(rest):
        raise DataError(f"the PDDL {kind} has text between its sections")
    return sections


def _named(sections: list[list[Node]], name: str) -> list[list[Node]]:
    return [section[1:] for section in sections if section[0] == name]


def _typed(nodes: list[Node]) -> Iterator[tuple[str, str]]:
    """Yield the names of ``a b - t c - u d`` with their types; without one it is the root."""
    names: list[str] = []
    words = iter(nodes)
    for word in words:
        if not isinstance(word, str):
            raise DataError(f"expected a name, got {_show(word)}")
        if word != "-":
            names.append(word)
            continue
        kind = next(words, None)
        if not isinstance(kind, str):
            raise DataError(f"expected a type after '-', got {_show(kind)}")
        yield from ((name, kind) for name in names)
        names.clear()
    yield from ((name, ROOT_TYPE) for name in names)


def _show(node: object) -> str:
    text = re.sub(r"[',\[\]]", "", str(node).replace("[", "(").replace("]", ")"))
    return text if len(text) < 60 else text[:57] + "…"


# The problem ----------------------------------------------------------------------------------


def _initial_facts(nodes: list[Node], objects: Mapping[str, str]) -> dict[str, set[Arguments]]:
    facts: dict[str, set[Arguments]] = defaultdict(set)
    for node in nodes:
        if not (isinstance(node, list) and node and isinstance(node[0], str)):
            raise DataError(f"expected a fact, got {_show(node)}")
        predicate, *arguments = node
        if predicate in ("=", "not"):  # numbers of the planner; what does not hold anyway
            continue
        for argument in arguments:
            if not isinstance(argument, str) or argument not in objects:
                raise DataError(f"{_show(node)} speaks of {_show(argument)}, which is no object")
        alike = facts[str(predicate)]
        if any(len(arguments) != len(fact) for fact in islice(alike, 1)):
            raise DataError(
                f"{_show(node)} has another number of arguments than others of its kind"
            )
        alike.add(tuple(str(argument) for argument in arguments))
    return facts


def _members(objects: Mapping[str, str], types: Mapping[str, str]) -> dict[str, set[str]]:
    members: dict[str, set[str]] = defaultdict(set)
    for name, own in objects.items():
        kind = own
        members[ROOT_TYPE].add(name)
        while kind != ROOT_TYPE and name not in members[kind]:
            members[kind].add(name)
            kind = types.get(kind, ROOT_TYPE)
    return members


# Actions --------------------------------------------------------------------------------------


def _action(nodes: list[Node]) -> Action:
    name, *rest = nodes
    if not isinstance(name, str) or len(rest) % 2:
        raise DataError(f"expected an action with its parts, got {_show(nodes)}")
    parts = {str(key): value for key, value in zip(rest[::2], rest[1::2], strict=True)}
    unknown = set(parts) - {":parameters", ":precondition", ":effect"}
    if unknown:
        raise DataError(f"action {name} has {', '.join(sorted(unknown))}, which is not supported")
    parameters = dict(_typed(_as_list(parts.get(":parameters", []))))
    when = _condition(parts.get(":precondition", []), parameters)
    effects = tuple(_effects(parts.get(":effect", []), (), parameters))
    return Action(name, tuple(parameters), when, effects)


def _effects(
    node: Node, when: tuple[Query, ...], parameters: Mapping[str, str]
) -> Iterator[Effect]:
    match node:
        case [] | ["increase", *_]:
            return
        case ["and", *parts]:
            for part in parts:
                yield from _effects(part, when, parameters)
        case ["when", condition, effect] if not when:
            yield from _effects(effect, _condition(condition, parameters), parameters)
        case ["not", atom]:
            yield Effect(_atom(atom), False, when)
        case ["when" | "forall", *_]:
            raise DataError(f"the effect {_show(node)} is not supported")
        case _:
            yield Effect(_atom(node), True, when)


# Conditions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """One conjunction on the way to a query, with the variables it introduces."""

    types: tuple[tuple[str, str], ...] = ()
    positive: tuple[Literal, ...] = ()
    negative: tuple[Literal, ...] = ()
    equal: tuple[Arguments, ...] = ()
    unequal: tuple[Arguments, ...] = ()

    def __and__(self, other: _Part) -> _Part:
        return _Part(
            self.types + other.types,
            self.positive + other.positive,
            self.negative + other.negative,
            self.equal + other.equal,
            self.unequal + other.unequal,
        )


def _condition(node: Node, parameters: Mapping[str, str]) -> tuple[Query, ...]:
    """Return the disjuncts of a condition, inner variables renamed apart."""
    return tuple(
        Query(
            part.positive,
            part.negative,
            part.equal,
            part.unequal,
            {**parameters, **dict(part.types)},
        )
        for part in _disjuncts(node, {}, set(parameters), wanted=True)
    )


def _disjuncts(
    node: Node, renamed: Mapping[str, str], taken: set[str], *, wanted: bool
) -> list[_Part]:
    match node:
        case []:
            return [_Part()]
        case ["not", inner]:
            return _disjuncts(inner, renamed, taken, wanted=not wanted)
        case ["and" | "or" as joint, *inner]:
            choices = [_disjuncts(part, renamed, taken, wanted=wanted) for part in inner]
            if (joint == "and") is wanted:
                if prod(map(len, choices)) > _MOST_CHOICES:
                    raise DataError(
                        f"a condition can hold in more than {_MOST_CHOICES:,} ways, which those of"
                        " no game can"
                    )
                return [_conjunction(chosen) for chosen in product(*choices)]
            return [part for choice in choices for part in choice]
        case ["exists", variables, inner] if wanted:
            return _introduced(_as_list(variables), inner, renamed, taken)
        case ["exists" | "forall" | "imply" | "when", *_]:
            raise DataError(f"the condition {_show(node)} is not supported")
    literal = ground(_atom(node), renamed)
    if literal.predicate == "=":
        return [_Part(equal=(literal.terms,)) if wanted else _Part(unequal=(literal.terms,))]
    return [_Part(positive=(literal,)) if wanted else _Part(negative=(literal,))]


def _introduced(
    variables: list[Node], inner: Node, renamed: Mapping[str, str], taken: set[str]
) -> list[_Part]:
    scope, types = dict(renamed), []
    for variable, kind in _typed(variables):
        if not variable.startswith("?"):
            raise DataError(f"expected a variable, as ?o, got {variable}")
        scope[variable] = _fresh(variable, taken)
        taken.add(scope[variable])
        types.append((scope[variable], kind))
    own = _Part(tuple(types))
    return [own & part for part in _disjuncts(inner, scope, taken, wanted=True)]


def _conjunction(parts: tuple[_Part, ...]) -> _Part:
    joined = _Part()
    for part in parts:
        joined = joined & part
    return joined


def _fresh(variable: str, taken: AbstractSet[str]) -> str:
    if variable not in taken:
        return variable
    return next(name for n in count(2) if (name := f"{variable}.{n}") not in taken)


def _as_list(node: Node) -> list[Node]:
    if not isinstance(node, list):
        raise DataError(f"expected a list in parentheses, got {_show(node)}")
    return node


def _atom(node: Node) -> Literal:
    if not (isinstance(node, list) and node and all(isinstance(part, str) for part in node)):
        raise DataError(f"expected a predicate with its arguments, got {_show(node)}")
    predicate, *terms = (str(part) for part in node)
    return Literal(predicate, tuple(terms))
