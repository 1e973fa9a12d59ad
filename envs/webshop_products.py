"""Products and wishes of the generated WebShop catalogue, in plausible shop English.

A product is a function of its shop, category and number alone: all its draws come from one
generator seeded with these.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import capwords
from typing import NamedTuple

from agentgym.envs.draws import between, pick, shuffled, some
from agentgym.envs.webshop_catalogue import Goal, Product
from agentgym.envs.webshop_goals import price_clause, price_limit
from agentgym.envs.webshop_words import Category, OptionRange, words

_CENTS = (0.99, 0.99, 0.95, 0.49, 0.0)
_RANGES = 0.08  # of the products show a price range
_OPENINGS = ("Find me", "I am looking for", "I need", "I want to buy", "Show me")
_BULLETS = (
    (  # for what a product is
        "{Phrase}: tested by our own team before it leaves the house.",
        "{Phrase}, just as you would expect of {brand}.",
        "{Phrase}, so that it serves you well day after day.",
        "Truly {phrase}: you will notice the difference at once.",
    ),
    (  # for what it has
        "Comes with {phrase} for more comfort in use.",
        "Designed with {phrase}, made to last.",
        "{Phrase}: a detail that our customers like best.",
    ),
    (  # for what it is made for
        "Ideal for {phrase}, and a thoughtful gift too.",
        "Made with {phrase} in mind.",
        "Perfect for {phrase} and much more.",
    ),
)
_STORIES = (
    "{brand} has made {kinds} for many years, and this is one of our best.",
    "Meet the new {kind} from {brand}.",
    "Our customers asked for better {kinds}, and {brand} listened.",
)
_CLOSINGS = (
    "If anything is not as you wish, write to us and we will answer within one day.",
    "Please compare the size chart with your own measures before you order.",
    "Colors may look a little different on your screen.",
    "Packed in recycled paper and shipped within two days.",
)
_TITLES = (
    "{brand} {whose} {quality} {kind} with {part}, {quality2}, for {use}",
    "{brand} {quality} {quality2} {whose} {kind} for {use}",
    "{brand} {whose} {kind}, {quality}, {quality2}, {part}",
    "{quality} {whose} {kind} by {brand} with {part}",
)
_SHORT_TITLE = "{brand} {quality} {whose} {kind} with {part}"


@dataclass(frozen=True, slots=True)
class Shop:
    """How rich a generated shop is.

    Attributes:
        name: Where all draws come from.
        per_category: Products of each category.
        held_out: How many of them, the last, only test tasks ask for.
        train_goals: Wishes for each of the others.
        test_goals: Wishes for each of those held out.
        short: Titles say all there is to know of a product, one option with two or three values
            at most is left, and a wish names one attribute.
    """

    name: str
    per_category: int
    held_out: int
    train_goals: int
    test_goals: int
    short: bool


class Traits(NamedTuple):
    """The attributes of a product, or those of them that a wish names."""

    qualities: Sequence[str]  # what it is
    parts: Sequence[str]  # what it has
    uses: Sequence[str]  # what it is made for


@dataclass(frozen=True, slots=True)
class Made:
    """A product, and what of it the catalogue does not keep but a wish is made of."""

    product: Product
    category: Category
    number: int  # in its category
    kind: str
    traits: Traits


def make_product(shop: Shop, category: Category, number: int, asin: str) -> Made:
    """Make one product."""
    rng = random.Random(f"webshop/{shop.name}/{category.name}/{number}")
    brand, kind = pick(rng, words().brands), pick(rng, category.kinds)
    traits = _traits(rng, category, shop.short)
    pattern = _SHORT_TITLE if shop.short else pick(rng, _TITLES)
    title = _title(pattern, category.whose, brand, kind, traits)
    price, tag = _price(rng, category.prices)
    product = Product(
        asin=asin,
        title=title,
        description=_description(rng, brand, kind, traits),
        features=_features(rng, brand, traits),
        options=_options(rng, category.options, shop.short),
        attributes=(*traits.qualities, *traits.parts, *traits.uses),
        price=price,
        price_tag=tag,
        query=category.name,
        category=category.path,
        nouns=_nouns(title, category),
    )
    return Made(product, category, number, kind, traits)


def make_goal(shop: Shop, made: Made, number: int) -> Goal:
    """Make a wish that the product fulfils, in the form of the benchmark's synthetic ones.

    Args:
        shop: Says how much the wish asks for.
        made: The product that is meant.
        number: Of the wish among those for the same product.
    """
    product = made.product
    rng = random.Random(f"webshop/{shop.name}/{product.asin}/{number}")
    asked = _asked(rng, made.traits, shop.short)
    wishes = tuple((name, pick(rng, product.options[name])) for name in sorted(product.options))
    limit = price_limit(rng, product.price)
    wanted = f"{pick(rng, _OPENINGS)} {_wanted(made, asked)}"
    return Goal(
        asin=product.asin,
        instruction=f"{wanted}{_option_clause(wishes)}{price_clause(limit)}",
        attributes=(*asked.qualities, *asked.parts, *asked.uses),
        options=wishes,
        price_upper=limit,
    )


# What a product is ----------------------------------------------------------------------------


def _traits(rng: random.Random, category: Category, short: bool) -> Traits:
    least, most = ((1, 1, 0), (1, 1, 0)) if short else ((2, 1, 1), (3, 3, 2))
    groups = (category.qualities, category.parts, category.uses)
    return Traits(
        *(
            [pick(rng, group) for group in shuffled(rng, of)[: between(rng, low, high)]]
            for of, low, high in zip(groups, least, most, strict=True)
        )
    )


def _title(pattern: str, whose: str, brand: str, kind: str, traits: Traits) -> str:
    text = pattern.format(
        brand=brand,
        whose=whose,
        kind=kind,
        quality=capwords(traits.qualities[0]),
        quality2=capwords(traits.qualities[-1]),
        part=capwords(traits.parts[0]),
        use=capwords("".join(traits.uses[:1])),
    )
    return " ".join(text.split())  # nobody's: no gap where the name would stand


def _description(rng: random.Random, brand: str, kind: str, traits: Traits) -> str:
    opening = pick(rng, _STORIES).format(brand=brand, kind=kind.lower(), kinds=plural(kind.lower()))
    made_for = f" and made for {traits.uses[-1]}" if traits.uses else ""
    return f"{opening} It is {traits.qualities[0]}{made_for}. {pick(rng, _CLOSINGS)}"


def _features(rng: random.Random, brand: str, traits: Traits) -> tuple[str, ...]:
    """Return a sentence for each attribute, shuffled: only the first is found by searching."""
    sentences = [
        pick(rng, patterns).format(phrase=one, Phrase=one[0].upper() + one[1:], brand=brand)
        for patterns, phrases in zip(_BULLETS, traits, strict=True)
        for one in phrases
    ]
    return tuple(shuffled(rng, sentences))


def _options(
    rng: random.Random, ranges: Mapping[str, OptionRange], short: bool
) -> dict[str, tuple[str, ...]]:
    if short:
        name = pick(rng, [name for name, one in ranges.items() if one.least])
        ranges = {name: ranges[name]}
    options = {}
    for name, one in ranges.items():
        number = between(rng, 2, 3) if short else between(rng, one.least, one.most)
        if number:
            options[name] = tuple(_values(rng, one, number))
    return options


def _values(rng: random.Random, option: OptionRange, number: int) -> Sequence[str]:
    if not option.ordered:
        return some(rng, option.values, number)
    first = between(rng, 0, max(len(option.values) - number, 0))
    return option.values[first : first + number]


def _price(rng: random.Random, limits: tuple[float, float]) -> tuple[float, str]:
    """Return a price, likelier low than high, and how it is shown."""
    low, high = limits
    price = int(low + (high - low) * rng.random() ** 2) + pick(rng, _CENTS)
    if rng.random() >= _RANGES:
        return price, f"${price:.2f}"
    top = price + between(rng, 2, 12)
    return round(price + (top - price) * rng.random(), 2), f"${price:.2f} to ${top:.2f}"


def _nouns(title: str, category: Category) -> tuple[str, ...]:
    """Return the nouns of a title: here what is no quality and not listed as another word."""
    others = {word for group in category.qualities for one in group for word in one.split()}
    found = re.findall(r"[a-z]+", title.lower().replace("'s", ""))
    return tuple(word for word in found if word not in others | words().not_nouns)


# What is asked for ----------------------------------------------------------------------------


def _asked(rng: random.Random, traits: Traits, short: bool) -> Traits:
    """Return one to four of a product's attributes; in a short wish one."""
    if short:
        return pick(rng, (traits._replace(parts=()), traits._replace(qualities=())))
    qualities = some(rng, traits.qualities, between(rng, 1, 2))
    parts = some(rng, traits.parts, between(rng, 0, 1))
    return Traits(qualities, parts, some(rng, traits.uses, between(rng, 0 if parts else 1, 1)))


def _wanted(made: Made, asked: Traits) -> str:
    whose = f"{made.category.whose.lower()} " if made.category.whose else ""
    text = f"{', '.join(asked.qualities)} {whose}{plural(made.kind.lower())}".strip()
    text += f" with {', '.join(asked.parts)}" if asked.parts else ""
    return text + (f" for {', '.join(asked.uses)}" if asked.uses else "")


def _option_clause(wishes: Sequence[tuple[str, str]]) -> str:
    return " with " + ", and ".join(f"{name}: {value}" for name, value in wishes) if wishes else ""


def plural(noun: str) -> str:
    """Return the plural of a noun phrase; what ends with a single s is one already."""
    if noun.endswith("s") and not noun.endswith("ss"):
        return noun
    if noun.endswith(("ss", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
