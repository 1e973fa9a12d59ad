"""Articles about a generated world: facts written as sentences, and sentences read as facts.

Writing and reading use the same wordings, so that what a reader can learn from an article is
exactly what the world knows about its subject.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

from agentgym.envs.draws import between, pick, shuffled, some
from agentgym.envs.search_data import Article
from agentgym.envs.search_facts import Entity, Facts
from agentgym.envs.search_names import NAME
from agentgym.envs.search_relations import (
    HOUSES,
    RELATIONS,
    WORD,
    WORKS,
    YEAR,
    Relation,
    relations_of,
)

_FILLERS = (2, 5)  # sentences of an article that state no fact, at least and at most
_NAMED_AGAIN = 0.3  # how often a later sentence says the name and not a pronoun
_OBJECTS = {YEAR: r"\d{4}", WORD: "[A-Za-z]+"}
_PRONOUNS = frozenset({"She", "He", "It"})
_SUBJECT = {"her": "She", "his": "He", "its": "It"}


def write_articles(facts: Facts, seed: str, plain: bool = False) -> tuple[Article, ...]:
    """Write one article about everything there is.

    Args:
        facts: What is known; an article states all facts of its subject, and no others.
        seed: Where the wording and the order of sentences come from.
        plain: Whether every fact is in its plain wording, and nothing is said beside facts.

    Returns:
        The articles, in an order that tells nothing.
    """
    rng = random.Random(seed)
    order = shuffled(rng, facts.entities.values())
    return tuple(
        Article(str(number), one.name, _text(rng, one, facts.about(one.name), plain))
        for number, one in enumerate(order)
    )


def _text(rng: random.Random, entity: Entity, known: Mapping[str, str], plain: bool) -> str:
    lead, *rest = [one.name for one in relations_of(entity.kind) if one.name in known]
    sentences = [_sentence(rng, entity, lead, known[lead], plain, lead=True)]
    sentences += (_sentence(rng, entity, name, known[name], plain) for name in shuffled(rng, rest))
    if not plain:
        fillers = _fillers()[_topic(entity.kind)]
        for filler in some(rng, fillers, between(rng, *_FILLERS)):
            sentences.insert(between(rng, 1, len(sentences)), filler)
    return " ".join(sentences)


def _sentence(
    rng: random.Random, entity: Entity, relation: str, value: str, plain: bool, lead: bool = False
) -> str:
    """State one fact; the lead sentence names its subject."""
    says = RELATIONS[relation].says
    wording = says[0] if plain else pick(rng, says)
    named = lead or (not plain and rng.random() < _NAMED_AGAIN)
    said = wording.format(
        s=entity.name if named else _SUBJECT[entity.possessive],
        o=value,
        p=entity.possessive,
        kind=_with_article(entity.role),
    )
    return said[0].upper() + said[1:]


def read_article(title: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the facts that an article states about what its title names.

    Args:
        title: The name of what the article is about.
        text: The article, or its beginning: a sentence that was cut off states nothing.

    Returns:
        Relations and their objects, in the order of the text.
    """
    for sentence in re.split(r"(?<=\.) ", text):
        for relation, pattern in _patterns():
            match = pattern.fullmatch(sentence)
            if match and match.groupdict().get("s", title) in {title, *_PRONOUNS}:
                yield relation, match["o"]
                break


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (relation.name, _pattern(relation, says))
        for relation in RELATIONS.values()
        for says in relation.says
    )


def _pattern(relation: Relation, says: str) -> re.Pattern[str]:
    """Return what recognises the sentences of one wording."""
    parts = {
        "s": rf"(?P<s>{NAME})",
        "o": rf"(?P<o>{_OBJECTS.get(relation.to, NAME)})",
        "p": r"(?:[Hh]er|[Hh]is|[Ii]ts)",
        "kind": "an? [a-z ]+",
    }
    return re.compile(re.escape(says).replace(r"\{", "{").replace(r"\}", "}").format(**parts))


@cache
def _fillers() -> Mapping[str, tuple[str, ...]]:
    text = files("agentgym").joinpath("data/search/fillers.json").read_text("utf-8")
    return {topic: tuple(sentences) for topic, sentences in json.loads(text).items()}


def _topic(kind: str) -> str:
    """Return which of the sentences that state nothing fit a kind of entity."""
    if kind in WORKS:
        return "work"
    if kind in HOUSES:
        return "house"
    return "person" if kind == "person" else "place"


def _with_article(role: str) -> str:
    return f"an {role}" if role[0] in "aeio" else f"a {role}"
