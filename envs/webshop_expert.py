"""An oracle for WebShop: it knows which product is meant, and finds it as a customer would.

It searches with words of the instruction until the product is among the results, turns pages
until it sees it, opens it, chooses the options that are asked for and buys. Where it is taken over
in the middle of an episode, it goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from agentgym.envs.webshop_catalogue import Catalogue, Goal, Product, SearchEngine
from agentgym.envs.webshop_pages import PER_PAGE
from agentgym.envs.webshop_session import RESULTS_KEPT, Place, Session


def next_action(catalogue: Catalogue, goal: Goal, session: Session) -> str | None:
    """Return what the oracle does next; None when the episode is over or no search finds it."""
    if session.place is Place.DONE:
        return None
    product = catalogue.products[goal.asin]
    if session.asin == goal.asin:
        return _at_product(product, goal, session)
    if session.place is Place.RESULTS and goal.asin in session.found:
        return _turn_to(goal.asin, session)
    query = best_query(catalogue.engine, product, goal)
    return None if query is None else f"search[{query}]"


def best_query(engine: SearchEngine, product: Product, goal: Goal) -> str | None:
    """Return a search that finds the product, if possible with words of the instruction only.

    Tried are, in this order, the words of the instruction that its title has, those that any
    text of it has, and all of them; the first that shows it on the first page is taken, else the
    one that shows it earliest. Where none finds it, its title does; None if not even that.
    """
    ranks: dict[str, int] = {}
    for query in _queries(product, goal):
        found = engine.search(query, RESULTS_KEPT)
        if goal.asin in found:
            ranks[query] = found.index(goal.asin)
            if ranks[query] < PER_PAGE:
                return query
    title = " ".join(_words(product.title))
    known = title if goal.asin in engine.search(title, RESULTS_KEPT) else None
    return min(ranks, key=lambda query: ranks[query], default=known)


def _queries(product: Product, goal: Goal) -> Iterator[str]:
    asked = list(dict.fromkeys(_words(goal.instruction)))
    title = set(_words(product.title))
    texts = title.union(_words(product.description), _words(" ".join(product.features)))
    yield " ".join(word for word in asked if word in title)
    yield " ".join(word for word in asked if word in texts)
    yield " ".join(asked)


def _at_product(product: Product, goal: Goal, session: Session) -> str:
    if session.place is not Place.ITEM:
        return "click[< prev]"
    for name, value in _choices(product, goal):
        if session.options.get(name) != value:
            return f"click[{value}]"
    return "click[buy now]"


def _choices(product: Product, goal: Goal) -> Iterator[tuple[str, str]]:
    """Yield the options that are asked for and that the product has, as name and value."""
    for wish in goal.options:
        named, value = ("", wish) if isinstance(wish, str) else wish
        for name, values in product.options.items():
            if value in values and named in ("", name):
                yield name, value
                break


def _turn_to(asin: str, session: Session) -> str:
    page = session.found.index(asin) // PER_PAGE + 1
    if page == session.page:
        return f"click[{asin.lower()}]"
    return "click[next >]" if page > session.page else "click[< prev]"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
