"""The pages of the shop, as the benchmark's templates write them.

A page is a list of visible texts. What an agent reads is one of three renderings of it
(:data:`RENDERINGS`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from agentgym.envs.webshop_catalogue import Catalogue, Goal, Product
from agentgym.envs.webshop_session import SUB_PAGES, Place, Session

PER_PAGE = 10
"""Products on one page of results."""

_SEPARATOR = " [SEP] "
_ASCII_SPACES = " \t\n\r\f\v"


class Kind(Enum):
    """What a text on a page is."""

    TEXT = "text"
    BUTTON = "button"
    PRODUCT = "product"  # an ASIN, which opens the product
    OPTION = "option"  # a value of an option


class Node(NamedTuple):
    """One visible text of a page."""

    text: str
    kind: Kind = Kind.TEXT


_BACK_TO_SEARCH = Node("Back to Search", Kind.BUTTON)
_PREVIOUS = Node("< Prev", Kind.BUTTON)
_NEXT = Node("Next >", Kind.BUTTON)
_ITEM_BUTTONS = tuple(
    Node(name, Kind.BUTTON) for name in ("Description", "Features", "Reviews", "Buy Now")
)


@dataclass(frozen=True, slots=True)
class Page:
    """What is seen and what can be clicked."""

    nodes: tuple[Node, ...]
    clickables: tuple[str, ...]  # in lower case: buttons, products, then values of options
    options: Mapping[str, str]  # the option that each clickable value belongs to
    body: int  # the first node after the instruction
    has_search_bar: bool = False


def show(catalogue: Catalogue, goal: Goal, session: Session, score: float) -> Page:
    """Return the page that a session stands on.

    Args:
        catalogue: The shop.
        goal: What is asked for; its instruction heads every page but the last.
        session: Where the customer stands.
        score: What the purchase earned; only the last page tells it.
    """
    if session.place is Place.DONE:
        return _page(_receipt(session, score), heading=())
    title = (Node("WebShop"),) if session.place is Place.SEARCH else ()
    heading = (*title, Node("Instruction:"), Node(goal.instruction))
    if session.place is Place.SEARCH:
        return _page([Node("Search", Kind.BUTTON)], heading, has_search_bar=True)
    if session.place is Place.RESULTS:
        return _page(_results(catalogue, session), heading)
    product = catalogue.products[session.asin]
    if session.place is Place.ITEM:
        return _page(_item(product), heading, product.options)
    return _page(_sub_page(product, session.place), heading)


def _page(
    body: Sequence[Node],
    heading: tuple[Node, ...],
    options: Mapping[str, Sequence[str]] | None = None,
    has_search_bar: bool = False,
) -> Page:
    # A text that is empty is no node; one of white space is one, unless it has a line break.
    nodes = [node for node in body if node.text and not _is_blank_line(node.text)]
    owner = {value: name for name, values in (options or {}).items() for value in values}
    names = [node.text.lower() for node in nodes if node.kind is Kind.BUTTON]
    names += [node.text.lower() for node in nodes if node.kind is Kind.PRODUCT]
    return Page(
        nodes=(*heading, *nodes),
        clickables=tuple(dict.fromkeys((*names, *owner))),
        options=owner,
        body=len(heading),
        has_search_bar=has_search_bar,
    )


def _is_blank_line(text: str) -> bool:
    return "\n" in text and not text.strip(_ASCII_SPACES)


def _results(catalogue: Catalogue, session: Session) -> list[Node]:
    heading = Node(f"Page {session.page} (Total results: {len(session.found)})")
    nodes = [_BACK_TO_SEARCH, heading, *[_PREVIOUS] * (session.page > 1), _NEXT]
    first = (session.page - 1) * PER_PAGE
    for asin in session.found[first : first + PER_PAGE]:
        product = catalogue.products[asin]
        nodes += [Node(asin, Kind.PRODUCT), Node(product.title), Node(product.price_tag)]
    return nodes


def _item(product: Product) -> list[Node]:
    nodes = [_BACK_TO_SEARCH, _PREVIOUS]
    for name, values in product.options.items():
        nodes.append(Node(name))
        nodes += [Node(value, Kind.OPTION) for value in values]
    nodes += [Node(product.title), Node(f"Price: {product.price_tag}"), Node("Rating: N.A.")]
    return [*nodes, *_ITEM_BUTTONS]


def _sub_page(product: Product, place: Place) -> list[Node]:
    bodies = {
        Place.DESCRIPTION: [Node(product.description)],
        Place.FEATURES: [Node(f" {feature}") for feature in product.features],
        Place.REVIEWS: [],  # the published files have none
    }
    assert set(bodies) == set(SUB_PAGES)
    return [_BACK_TO_SEARCH, _PREVIOUS, *bodies[place]]


def _receipt(session: Session, score: float) -> list[Node]:
    """Return the last page, whose template shows what it was not given as None or nothing."""
    options = json.dumps(session.options, sort_keys=True)
    for letter in "<>&'":  # as JSON inside of HTML is written
        options = options.replace(letter, f"\\u{ord(letter):04x}")
    bought = ["asin", session.asin, "options", options]
    bought += [text for name in _UNSAID for text in (name, "None")]
    texts = [
        *("Thank you for shopping with us!", "Your code: ", "None"),
        *(" (Paste it in your MTurk interface.)", "Purchased", *bought, "Target", *_TARGET),
        *("Goal ", "None", "Reward", "Your score (min 0.0, max 1.0)", str(score)),
        *("Reward Details ", "None"),
    ]
    return [Node(text) for text in texts]


_UNSAID = ("attrs", "category", "query", "product category")
_TARGET = (
    *("asin", "options", "attrs", "price upper"),
    *("instuction text", "category", "product category", "query"),  # the template's own spelling
)


# Renderings ---------------------------------------------------------------------------------------


def plain_text(page: Page, session: Session) -> str:
    """Return the texts, separated: what the benchmark calls ``text``."""
    return _SEPARATOR.join([node.text.strip() for node in page.nodes])


def rich_text(page: Page, session: Session) -> str:
    """Return a line a text, with what is a button and what was clicked: ``text_rich``."""
    return "".join([*_clicked(page, session), *_rich_lines(page, session)])


def bare_text(page: Page, session: Session) -> str:
    """Return the quoted texts without the instruction, as verl-agent puts them into prompts.

    The last page has no instruction, and there is as it is in plain text.
    """
    if not page.body:
        return plain_text(page, session)
    return _SEPARATOR.join([f"'{node.text.strip()}'" for node in page.nodes[page.body :]])


RENDERINGS: Mapping[str, Callable[[Page, Session], str]] = {
    "text": plain_text,
    "text_rich": rich_text,
    "bare": bare_text,
}
"""How a page is put into words, by name."""


def _rich_lines(page: Page, session: Session) -> Iterator[str]:
    for node in page.nodes:
        if node.kind is Kind.TEXT:
            yield f"{node.text}\n"
        else:
            clicked = _was_clicked(node, session)
            button = f"[clicked button] {node.text} [clicked button_]\n"
            before = {Kind.PRODUCT: "\n", Kind.OPTION: "  "}.get(node.kind, "")
            yield before + (button if clicked else button.replace("clicked button", "button"))


def _clicked(page: Page, session: Session) -> Iterator[str]:
    """Yield what was chosen, last first."""
    for node in reversed(page.nodes):
        if node.kind is Kind.OPTION and _was_clicked(node, session):
            yield f"You have clicked {node.text}.\n"


def _was_clicked(node: Node, session: Session) -> bool:
    if node.kind is Kind.PRODUCT:
        return node.text in session.seen
    # The original looks for the quoted text in the page's address: names of options count too.
    return node.kind is Kind.OPTION and f'"{node.text}"' in json.dumps(session.options)
