r"""How an agent writes what it wants, and how results are shown to it, in each paper's way.

``search_r1``: ``<search>query</search>``, results inside ``<information>``.
``tool_call``: ``<tool_call>{"name": "search", "arguments": {"query_list": ["…"]}}</tool_call>``,
results as JSON inside ``<tool_response>`` (verl's tool agent; IGPO's ``web_search`` is read too).
``arpo``: ``<search>query</search>``, results inside ``<result>``, and the answer in ``\boxed{}``.

In all three the answer stands inside ``<answer>``. Only the agent's own action is read, up to its
first whole block: what was retrieved, or made up after the block, is never taken for an action.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agentgym.blocks import first_block, whole
from agentgym.envs.search_data import Article
from agentgym.errors import unknown

MOST_QUERIES = 8
"""Of one turn; a list has more of them where a model repeats itself."""

Cut = Callable[[str], str]
"""Shortens what is shown."""


@dataclass(frozen=True, slots=True)
class Search:
    """The agent wants to see what is found for some queries; there is at least one."""

    queries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The agent answers, and the episode is over."""

    text: str


@dataclass(frozen=True, slots=True)
class Misread:
    """The action is neither; ``why`` is told to the agent."""

    why: str


Action = Search | Answer | Misread


class Protocol(ABC):
    """One way to write and to show. ``topk`` and ``result_tokens`` are the paper's own."""

    name: ClassVar[str]
    topk: ClassVar[int] = 3
    result_tokens: ClassVar[int] = 500  # of all results of a turn together
    _tags: ClassVar[tuple[str, ...]]

    def read(self, action: str) -> Action:
        """Return what an action asks for: its first whole block decides."""
        block = first_block(action, self._tags)
        if block is None:
            return Misread("that is no action")
        tag, content = block.tag, block.content.strip()
        if not content:
            return Misread(f"there is nothing inside <{tag}>")
        return self._read_answer(content) if tag == "answer" else self._read_call(tag, content)

    def show(self, found: Sequence[Sequence[Article]], cut: Cut) -> str:
        """Return what the agent sees of the articles found, one sequence a query."""
        texts = [self._list(articles) if articles else "Nothing was found." for articles in found]
        return self._wrap(cut("\n---\n".join(text.strip("\n") for text in texts)))

    def explain(self, misread: Misread) -> str:
        """Return what the agent sees after an action that is none."""
        how_to_search, how_to_answer = self.write_search("query"), self.write_answer("text")
        return (
            f"Nothing was done: {misread.why}. To search, write {how_to_search} and to answer,"
            f" write {how_to_answer}"
        )

    def write_answer(self, text: str) -> str:
        """Return the action that answers."""
        return f"<answer>{text}</answer>"

    def write_search(self, query: str) -> str:
        """Return the action that searches."""
        return f"<search>{query}</search>"

    def _read_answer(self, content: str) -> Action:
        return Answer(content)

    def _read_call(self, tag: str, content: str) -> Action:
        return Search((" ".join(content.split()),))

    @abstractmethod
    def _list(self, articles: Sequence[Article]) -> str:
        """Return the articles of one query as text, numbered from 1."""

    @abstractmethod
    def _wrap(self, text: str) -> str:
        """Return the results in the block that marks them as such."""


class SearchR1(Protocol):
    """B. Jin et al., "Search-R1", arXiv 2503.09516."""

    name: ClassVar[str] = "search_r1"
    _tags = ("search", "answer")

    def _list(self, articles: Sequence[Article]) -> str:
        # The title keeps the quotes that corpora store it in: models were trained on them.
        pairs = (one.contents.partition("\n") for one in articles)
        return "\n".join(f"Doc {n}(Title: {a}) {text}" for n, (a, _, text) in enumerate(pairs, 1))

    def _wrap(self, text: str) -> str:
        return f"<information>{text}</information>"


class ToolCall(Protocol):
    """Tool calls as JSON, as chat models know them (verl's search tool)."""

    name: ClassVar[str] = "tool_call"
    _tags = ("tool_call", "answer")
    _tools: ClassVar[tuple[str, ...]] = ("search", "web_search")

    def write_search(self, query: str) -> str:
        """Return the action that searches."""
        call = {"name": self._tools[0], "arguments": {"query_list": [query]}}
        return f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"

    def _read_call(self, tag: str, content: str) -> Action:
        try:
            call: Any = json.loads(content)
        except (ValueError, RecursionError):
            return Misread("the tool call is no JSON")
        if not isinstance(call, dict) or call.get("name") not in self._tools:
            return Misread("the tool call names no tool that is there")
        arguments = call.get("arguments")
        given = arguments if isinstance(arguments, dict) else {}
        queries = given.get("query_list", given.get("query"))
        listed = [queries] if isinstance(queries, str) else queries
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            return Misread("the tool call has no query_list of strings")
        asked = tuple(whole(" ".join(one.split())) for one in listed if one.strip())
        if len(asked) > MOST_QUERIES:
            return Misread(f"the tool call has {len(asked)} queries, at most {MOST_QUERIES}")
        return Search(asked) if asked else Misread("the tool call has no query")

    def _list(self, articles: Sequence[Article]) -> str:
        pairs = (one.contents.partition("\n") for one in articles)
        parts = (f"Doc {n} (Title: {a})\n{text}" for n, (a, _, text) in enumerate(pairs, 1))
        return "\n\n".join(parts)

    def _wrap(self, text: str) -> str:
        result = json.dumps({"result": text}, ensure_ascii=False)
        return f"<tool_response>{result}</tool_response>"


class ARPO(Protocol):
    r"""G. Dong et al., ARPO, arXiv 2507.19849, its search without its Python.

    A ``<python>`` block is told that there is none. The answer is what the last ``\boxed{}`` in
    ``<answer>`` holds; without one the answer is empty, and wrong.
    """

    name: ClassVar[str] = "arpo"
    topk: ClassVar[int] = 10
    result_tokens: ClassVar[int] = 2500  # ten pages of 1,000 characters
    _tags = ("search", "python", "answer")
    _page: ClassVar[int] = 1000  # characters

    def write_answer(self, text: str) -> str:
        """Return the action that answers."""
        return rf"<answer>\boxed{{{text}}}</answer>"

    def _read_answer(self, content: str) -> Action:
        return Answer((boxed(content) or "").strip())

    def _read_call(self, tag: str, content: str) -> Action:
        if tag == "python":
            return Misread("there is no Python here")
        return super()._read_call(tag, content)

    def _list(self, articles: Sequence[Article]) -> str:
        pages = (f"{one.title}\n{one.text}".strip()[: self._page] for one in articles)
        return "\n".join(f"Page {number}: {page}" for number, page in enumerate(pages, 1))

    def _wrap(self, text: str) -> str:
        return f"<result>\n{text}\n</result>"


def boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{}`` of a text, braces counted; None without."""
    begin = text.rfind(r"\boxed{")
    if begin < 0:
        return None
    begin += len(r"\boxed{")
    depth = 1
    for position, letter in enumerate(text[begin:], begin):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return text[begin:position]
    return None


PROTOCOLS: Mapping[str, Protocol] = {one.name: one for one in (SearchR1(), ToolCall(), ARPO())}
"""Every protocol by its name."""


def protocol_of(name: str) -> Protocol:
    """Return a protocol by its name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol of search", str(name), PROTOCOLS)
    return PROTOCOLS[name]
