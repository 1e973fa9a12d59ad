"""What a purchase is worth: the benchmark's score, in [0, 1].

``score = (attributes + options + price) / (wanted attributes + wanted options + 1) * type``

The first three count what was asked for and is there; the last says whether the product is of the
right kind at all. Even the product that was meant, bought with all options that were asked for,
may score below 1: colours are reduced to the first colour word that they contain, and *standard*
contains *tan*.

Source: Yao et al., "WebShop: Towards Scalable Real-World Web Interaction with Grounded Language
Agents", NeurIPS 2022, and its released code, from which the rules of matching and the list of
colours are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from rapidfuzz import fuzz, utils

from agentgym.envs.webshop_catalogue import Goal, Product, Wish

_ALIKE = 85  # of 100: texts that are more alike than this match
_COLOUR_WORDS = """
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown
    burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee
    cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold
    granite grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon
    leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom
    mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust
    sand sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger
    turquoise violet walnut wheat white wine yellow
"""
_COLOURS = tuple(_COLOUR_WORDS.split())
_LATIN_1 = dict.fromkeys(range(128, 256))  # letters that the benchmark's matcher drops


def score(goal: Goal, wanted: Product, bought: Product, options: Mapping[str, str]) -> float:
    """Return what a purchase is worth.

    Args:
        goal: What was asked for.
        wanted: The product that was in mind.
        bought: The product that was bought.
        options: The chosen value of each option that one was chosen for.
    """
    earned = (
        _attributes_met(goal.attributes, bought)
        + _options_met(goal.options, options)
        + (bought.price <= goal.price_upper)
    )
    return earned / (len(goal.attributes) + len(goal.options) + 1) * kind_factor(wanted, bought)


def kind_factor(wanted: Product, bought: Product) -> float:
    """Return 1, 0.5, 0.1 or 0: how far what was bought is of the kind that was wanted."""
    shared = len(set(bought.nouns) & set(wanted.nouns))
    likeness = shared / len(wanted.nouns) if wanted.nouns else 0.2
    if likeness == 0:
        return 0.0
    if likeness < 0.1:
        return 0.1
    same_query = bought.query == wanted.query
    same_category = len(set(bought.category) & set(wanted.category)) >= 2
    return 1.0 if same_query or same_category or likeness > 0.2 else 0.5


def _attributes_met(wanted: tuple[str, ...], bought: Product) -> int:
    texts = (bought.title.lower(), " ".join(bought.features).lower(), bought.description.lower())
    return sum(
        any(alike(known, attribute) for known in bought.attributes)
        or any(attribute in text for text in texts)
        for attribute in wanted
    )


def _options_met(wanted: tuple[Wish, ...], chosen: Mapping[str, str]) -> int:
    bought = [_colour_of(value) for value in chosen.values()]
    return sum(any(alike(value, wish) for value in bought) for wish in map(_colour_of, wanted))


def _colour_of(wish: Wish) -> str:
    """Return the first colour in a value, else the value.

    A pair of option and value is one text, ``('size', 'large')``, unless one of the two is a
    colour's word as a whole.
    """
    for colour in _COLOURS:
        if colour in wish:
            return colour
    return str(wish)


@lru_cache(maxsize=1 << 16)
def alike(one: str, other: str) -> bool:
    """Return whether two texts have nearly the same words, as the benchmark's matcher says."""
    words = [utils.default_process(text.translate(_LATIN_1)) for text in (one, other)]
    return round(fuzz.token_set_ratio(*words)) > _ALIKE
