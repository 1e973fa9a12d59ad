"""What customers ask for, made from the published instructions as the benchmark makes it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from agentgym.envs.draws import some
from agentgym.envs.webshop_catalogue import NO_PRICE_LIMIT, Goal, Product, Wish

_LIMITS = tuple(10.0 * step for step in range(1, 100))  # that shoppers name, in dollars
_SHUFFLE_SEED = 233


def synthetic_goals(
    product: Product, instruction: str, attributes: Sequence[str], seed: int
) -> Iterator[Goal]:
    """Yield a goal for each way to choose the product's options.

    All of them have one price limit, which is drawn from the seed.
    """
    limit = _limit(product, f"{seed}:{product.asin}:synthetic")
    names = sorted(product.options)
    for values in itertools.product(*(product.options[name] for name in names)):
        options = tuple(zip(names, values, strict=True))
        clause = ", and ".join(f"{name}: {value}" for name, value in options)
        text = f"{instruction} with {clause}" if clause else instruction
        yield _goal(product, text, attributes, options, limit)


def human_goal(
    product: Product,
    instruction: str,
    attributes: Sequence[str],
    options: Sequence[str],
    stream: str,
) -> Goal:
    """Return the goal that a person wrote; its price limit is drawn from ``stream``."""
    limit = _limit(product, f"{stream}:{product.asin}:human")
    return _goal(product, instruction.strip("."), attributes, tuple(options), limit)


def shuffled(goals: list[Goal], prefix: str) -> dict[str, Goal]:
    """Return goals by task id, in the benchmark's order: it deals them with a fixed seed.

    The number in an id is what papers call a goal's index.
    """
    order = list(goals)
    random.Random(_SHUFFLE_SEED).shuffle(order)
    return {f"{prefix}-{number:05}": goal for number, goal in enumerate(order)}


def _goal(
    product: Product,
    text: str,
    attributes: Sequence[str],
    options: tuple[Wish, ...],
    limit: float,
) -> Goal:
    return Goal(product.asin, text + price_clause(limit), tuple(attributes), options, limit)


def _limit(product: Product, stream: str) -> float:
    # Another draw would make other tasks of the seeds that results were told of.
    rng = random.Random(f"webshop:limit:{stream}")
    return price_limit(rng, product.price, random.Random.sample)


def price_limit(
    rng: random.Random,
    price: float,
    draw: Callable[[random.Random, Sequence[float], int], Sequence[float]] = some,
) -> float:
    """Return what a shopper would pay at most: the larger of two of the next four tens.

    Args:
        rng: Draws the two.
        price: Of the product.
        draw: How they are drawn: takes the generator, the tens, and how many.
    """
    above = [limit for limit in _LIMITS if limit > price][:4]
    return max(draw(rng, above, 2)) if len(above) > 1 else NO_PRICE_LIMIT


def price_clause(limit: float) -> str:
    """Return how an instruction ends that names a limit."""
    return "" if limit == NO_PRICE_LIMIT else f", and price lower than {limit:.2f} dollars"
