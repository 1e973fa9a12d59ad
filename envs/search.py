"""Search: questions that take several searches of a corpus to answer.

An agent searches as often as it likes and answers once. What it writes is read by a protocol
(Search-R1's tags, tool calls in JSON, ARPO's tags), what it finds is shown by the same. The reward
is what the metric gives the answer, at the turn that answers; searching brings none, and an
episode that ends without an answer has none.

Generated questions about a generated world (suites ``gen-…``) need nothing; the published data
sets are read from files, with any corpus or any server that speaks Search-R1's ``/retrieve``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import ClassVar

from agentgym.download import DataSet
from agentgym.envs.base import Outcome, TextEnv, check_text
from agentgym.envs.search_corpus import WIKI_OFFLINE
from agentgym.envs.search_cut import cut_by_estimate, cut_by_tokenizer
from agentgym.envs.search_data import Question
from agentgym.envs.search_datasets import TRAIN, data_folder, find_corpus, load_questions
from agentgym.envs.search_download import QUESTIONS
from agentgym.envs.search_generate import SETS, generate
from agentgym.envs.search_metrics import metric_of
from agentgym.envs.search_protocols import Answer, Cut, Misread, Search, protocol_of
from agentgym.envs.search_remote import RemoteRetriever
from agentgym.envs.search_retrieval import Retriever, corpus_file, open_corpus
from agentgym.errors import DataError, UsageError
from agentgym.types import Info, Suite

PUBLISHED = (
    "nq",
    "triviaqa",
    "popqa",
    "hotpotqa",
    "2wikimultihopqa",
    "musique",
    "bamboogle",
)
"""The data sets whose test questions Search-R1 and IGPO report."""

_FOLDER = "folder"


class SearchEnv(TextEnv):
    """Search.

    Args:
        suite: ``search/gen-train``, ``gen-test``, ``gen-easy-train``, ``gen-easy-test`` or
            ``gen-plain-train`` (generated); ``search/hotpotqa`` and the like or
            ``search/train`` (published, read from ``data``); ``search/folder`` (all questions in
            ``data``).
        max_turns: Searches and answers an episode may take together; 10 by default, as IGPO.
        protocol: How actions are written and results shown: ``search_r1``, ``tool_call`` or
            ``arpo``.
        metric: What an answer is worth: ``em``, ``sub_em``, ``f1``, ``f1_closed`` or
            ``f1_of_sets``. An episode is won where it is worth 1.
        topk: Articles a query brings; None takes the protocol's own number.
        result_tokens: What is shown of a turn's results together, in tokens; None takes the
            protocol's own number.
        tokenizer: A ``tokenizer.json`` that counts these tokens; without one a token counts as
            four characters.
        data: Folder with questions, for published suites by default ``$AGENTGYM_SEARCH_DATA`` or
            ``~/.cache/agentgym/search``.
        corpus: What is searched: a JSONL file, ``wiki-offline``, or the world of a generated set;
            None takes the generated questions' own world, or the file in ``data`` whose name says
            corpus.
        retriever: Address of a server that is asked in place of a corpus.
        cache: File that keeps what the server found.

    Raises:
        UsageError: An unknown suite, protocol or metric, or options that do not fit together.
        DataError: Questions or corpus are not there, or broken.
    """

    name: ClassVar[str] = "search"
    default_suite: ClassVar[str] = "search/gen-train"
    default_max_turns: ClassVar[int] = 10
    has_expert: ClassVar[bool] = True
    has_answer: ClassVar[bool] = True

    def __init__(
        self,
        suite: str | None = None,
        max_turns: int | None = None,
        protocol: str = "search_r1",
        metric: str = "em",
        topk: int | None = None,
        result_tokens: int | None = None,
        tokenizer: str | None = None,
        data: str | None = None,
        corpus: str | None = None,
        retriever: str | None = None,
        cache: str | None = None,
    ) -> None:
        paths = {"tokenizer": tokenizer, "data": data, "corpus": corpus, "cache": cache}
        for name, value in {**paths, "retriever": retriever}.items():
            check_text(name, value)
        self._protocol = protocol_of(protocol)
        self._metric = metric_of(metric)
        self._topk = _count("topk", topk, self._protocol.topk)
        tokens = _count("result_tokens", result_tokens, self._protocol.result_tokens)
        self._cut = _cutter(tokens, tokenizer)
        self._data, self._corpus = data, corpus
        super().__init__(suite, max_turns)
        self._remote = _remote(retriever, corpus, cache)
        if self._remote is None:
            self._corpus = self._find_corpus()

    @classmethod
    def suite_names(cls) -> tuple[str, ...]:
        """Return the generated suites, the published ones and the one for own questions."""
        return tuple(f"{cls.name}/{short}" for short in (*SETS, *PUBLISHED, TRAIN, _FOLDER))

    @classmethod
    def data_sets(cls) -> Mapping[str, DataSet]:
        """Return published questions; what is searched for them is the user's choice."""
        return {"questions": QUESTIONS}

    def load_suite(self, name: str) -> Suite:
        """Return a suite; files are read for it, worlds are generated later."""
        if name not in self.suite_names():
            raise self.unknown_suite(name)
        short = name.removeprefix(f"{self.name}/")
        return Suite(
            name=name,
            tasks=SETS[short].task_ids if short in SETS else tuple(self._read(short)),
            official=short in PUBLISHED,
            held_out=SETS[short].held_out if short in SETS else short in PUBLISHED,
            about=_about(short),
        )

    def task_type(self, task: str) -> str:
        """Return the kind of a question; generated ids begin with it."""
        if self._short in SETS:
            return task.rpartition("-")[0]
        return self._questions[task].kind

    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        """Ask the question. The task alone decides everything: the seed changes nothing."""
        self._question = self._questions[task]
        self._goal = self._question.text.rstrip(" ?") + "?"
        self._shown: set[str] = set()  # ids of articles
        self._names = [self._goal]  # what can be searched for without a thought
        self._searched: set[str] = set()
        self._score = 0.0
        _ = self._retriever  # an index that must be built is built now, not in a search
        return self._goal, self._info(self._goal, admissible=True)

    def act(self, action: str) -> Outcome:
        """Search or answer; whatever else is written costs a turn.

        Raises:
            EnvFault: The retriever failed.
        """
        match self._protocol.read(action):
            case Misread() as misread:
                return self._outcome(self._protocol.explain(misread), admissible=False)
            case Search(queries):
                return self._outcome(self._search(queries))
            case Answer(text):
                self._score = self._metric(text, self._question.answers)
                return self._outcome("Right." if self._score == 1.0 else "Wrong.", answered=True)

    def expert(self) -> str | None:
        """Return the next search of those that lead to the answer, then the answer.

        An article that was shown already is not searched for, nor is anything twice. Of questions
        without known searches the question itself is searched for.
        """
        hops = self._question.hops
        unread = [hop.query for hop in hops if hop.article not in self._shown]
        wanted = unread if hops else [self._goal]
        query = next((query for query in wanted if query not in self._searched), None)
        last = len(self._actions) + 1 >= self.max_turns
        if query is None or last:
            return self._protocol.write_answer(self._question.answers[0])
        return self._protocol.write_search(query)

    def close(self) -> None:
        """Close the connection to a server, where there is one."""
        if self._remote is not None:
            self._remote.close()
        super().close()

    @property
    def _short(self) -> str:
        return self.suite.name.removeprefix(f"{self.name}/")

    @cached_property
    def _questions(self) -> Mapping[str, Question]:
        if self._short in SETS:
            return {one.id: one for one in generate(self._short).questions}
        return self._read(self._short)

    @cached_property
    def _retriever(self) -> Retriever:
        return open_corpus(str(self._corpus)) if self._remote is None else self._remote

    def _read(self, short: str) -> dict[str, Question]:
        """Return the questions of a suite that is read from files."""
        if short == _FOLDER and self._data is None:
            raise UsageError("suite search/folder asks your own questions; name a folder: data=…")
        folder = data_folder(self._data)
        found = load_questions(folder)
        if short == _FOLDER:
            return {one.id: one for questions in found.values() for one in questions}
        if short not in found:
            raise DataError(
                f"{folder} has no questions of {short}; it has {', '.join(found)}. For all of"
                " them take suite search/folder"
            )
        return {one.id: one for one in found[short]}

    def _find_corpus(self) -> str:
        """Return what is searched, having seen that it is there."""
        if self._corpus in (WIKI_OFFLINE, *SETS):
            return str(self._corpus)
        if self._corpus is not None:
            return str(corpus_file(self._corpus))
        if self._short in SETS:
            return self._short
        folder = data_folder(self._data)
        found = find_corpus(folder)
        if found is None:
            raise DataError(
                f"there is no corpus in {folder}: a JSONL file whose name says corpus; or name"
                f" one with corpus=… ({WIKI_OFFLINE} is one), or a server with retriever=http://…"
            )
        return str(found)

    def _search(self, queries: tuple[str, ...]) -> str:
        hits = self._retriever.search_all(queries, self._topk)
        found = [[hit.article for hit in of_one] for of_one in hits]
        self._searched.update(queries)
        self._shown.update(article.id for articles in found for article in articles)
        titles = [article.title for articles in found for article in articles if article.title]
        self._names = list(dict.fromkeys([*self._names, *titles]))
        return self._protocol.show(found, self._cut)

    def _outcome(
        self, observation: str, admissible: bool = True, answered: bool = False
    ) -> Outcome:
        info = self._info(observation, admissible)
        return Outcome(observation, self._score, answered, info)

    def _info(self, observation: str, admissible: bool) -> Info:
        protocol = self._protocol
        return Info(
            task_id=self._question.id,
            task_type=self._question.kind,
            goal=self._goal,
            won=self._score == 1.0,
            score=self._score,
            admissible=admissible,
            templates=(protocol.write_search("OBJ"), protocol.write_answer("OBJ")),
            objects=tuple(self._names),  # any text will do; these are the names at hand
            anchor=observation,
            answer=self._question.answers[0],
        )


def _about(short: str) -> str:
    if short in SETS:
        made = SETS[short]
        whom = "people that training never asks about" if made.held_out else "training's people"
        return f"generated questions over {made.corpus.articles:,} articles, about {whom}"
    if short == TRAIN:
        return "the published training questions in the data folder"
    if short == _FOLDER:
        return "all questions in the folder that the option data names"
    return f"the published test questions of {short} in the data folder"


def _count(name: str, value: object, otherwise: int) -> int:
    if value is None:
        return otherwise
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} is {value!r}; expected a whole number of at least 1")
    return value


def _cutter(tokens: int, tokenizer: str | None) -> Cut:
    if tokenizer is None:
        return partial(cut_by_estimate, tokens=tokens)
    cut = partial(cut_by_tokenizer, tokens=tokens, path=tokenizer)
    cut("")  # a tokenizer that is not there is found out now, not in a search
    return cut


def _remote(retriever: str | None, corpus: str | None, cache: str | None) -> RemoteRetriever | None:
    if retriever is None:
        if cache is not None:
            raise UsageError("cache keeps what a server found; name one with retriever=http://…")
        return None
    if corpus is not None:
        raise UsageError("a server searches its own corpus; give corpus or retriever, not both")
    return RemoteRetriever(retriever, cache)
