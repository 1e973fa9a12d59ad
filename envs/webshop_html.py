"""A page of the shop as HTML. Every text of it is escaped."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from agentgym.envs.webshop_pages import Kind, Node, Page
from agentgym.envs.webshop_session import Place, Session

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: #1c2430; background: #f4f5f7 }
header { background: #1d3557; color: #fff; padding: .8rem 1.5rem }
header b { font-size: 1.3rem; margin-right: 1rem }
header small { opacity: .8 }
main { max-width: 60rem; margin: 1.2rem auto; padding: 0 1rem }
form { display: inline }
.goal { background: #fff7dc; border-left: 4px solid #e9b44c; padding: .7rem 1rem }
.bar { display: flex; gap: .5rem; margin: 1rem 0 }
.bar form { display: flex; flex: 1; gap: .5rem }
.bar input { flex: 1; font: inherit; padding: .4rem .7rem }
.page { background: #fff; border-radius: .5rem; padding: 1rem 1.5rem }
.page p { margin: .4rem 0 }
.product { border-top: 1px solid #e3e6ea; padding: .6rem 0 }
button { font: inherit; cursor: pointer; padding: .25rem .8rem; border: 1px solid #9aa5b1;
  border-radius: .4rem; background: #fff; margin: .15rem .1rem }
button.chosen { background: #1d3557; color: #fff }
button.buy { background: #e9b44c; border-color: #c8932b }
.score { font-size: 1.4rem }
"""


def render(page: Page, session: Session, task: str, turns: int, score: float) -> str:
    """Return the page as a document.

    Args:
        page: What is seen and can be clicked.
        session: Tells which options are chosen, which the page itself does not.
        task: The task's id.
        turns: Actions so far.
        score: Of the purchase, in [0, 1].
    """
    done = session.place is Place.DONE
    goal = "" if done else f'<p class="goal">{escape(_goal(page))}</p>{_search_bar(session)}'
    body = _receipt(score) if done else "\n".join(_body(page, session))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>WebShop</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>
<body><header><b>WebShop</b><small>task {escape(task)}, {turns} actions so far</small></header>
<main>{goal}<div class="page">{body}</div>
<div>{_button("next", "task", "Next task")}</div></main></body></html>
"""


def _goal(page: Page) -> str:
    """Return the instruction, the last text before the page's own."""
    return page.nodes[page.body - 1].text


def _search_bar(session: Session) -> str:
    query = escape(session.query)
    return (
        '<div class="bar"><form method="post" action="/">'
        f'<input name="search" maxlength="500" aria-label="Search" value="{query}" autofocus>'
        "<button>Search</button></form></div>"
    )


def _body(page: Page, session: Session) -> Iterator[str]:
    """Yield the page's own texts: buttons where one can click, else paragraphs."""
    for node in page.nodes[page.body :]:
        text = escape(node.text.strip())
        if page.has_search_bar and node.kind is Kind.BUTTON:
            yield "<p>Search for what you are asked to buy.</p>"
        elif node.kind is Kind.PRODUCT:
            yield f'<div class="product">{_click(node)}</div>'
        elif node.kind is Kind.OPTION:
            chosen = node.text in session.options.values()
            yield _click(node, "chosen" if chosen else "")
        elif node.kind is Kind.BUTTON:
            yield _click(node, "buy" if node.text == "Buy Now" else "")
        else:
            yield f"<p>{text}</p>"


def _receipt(score: float) -> str:
    praise = "exactly what was asked for" if score == 1.0 else "not all that was asked for"
    return (
        "<h1>Thank you for shopping with us!</h1>"
        f'<p class="score">Your score: <b>{score:.2f}</b> of 1.00, {praise}.</p>'
    )


def _click(node: Node, look: str = "") -> str:
    return _button("click", node.text.lower(), node.text, look)


def _button(name: str, value: str, text: str, look: str = "") -> str:
    look = f' class="{look}"' if look else ""
    return (
        '<form method="post" action="/">'
        f'<button name="{name}" value="{escape(value)}"{look}>{escape(text)}</button>'
        "</form>"
    )
