"""WebShop: find a product that fits a wish, choose its options, buy it.

An agent searches (``search[red mug]``) and clicks what it sees (``click[b07xyz1234]``,
``click[large]``, ``click[buy now]``). The purchase ends the episode and is worth a score in
[0, 1]; a task counts as won only at exactly 1. An action that the page does not offer changes
nothing and costs a turn.

The published shop and tasks (suites ``small-…`` and ``full-…``) are downloaded; generated ones
(``gen-…``) need nothing, and their results are not comparable with published numbers.

Source: Yao et al., "WebShop: Towards Scalable Real-World Web Interaction with Grounded Language
Agents", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from agentgym.download import DataSet
from agentgym.envs import webshop_generate as generated
from agentgym.envs import webshop_original as original
from agentgym.envs.base import Outcome, TextEnv, check_text
from agentgym.envs.webshop_catalogue import Catalogue, Goal
from agentgym.envs.webshop_download import FULL, SMALL, data_folder
from agentgym.envs.webshop_expert import next_action
from agentgym.envs.webshop_pages import RENDERINGS, Page, show
from agentgym.envs.webshop_reward import score
from agentgym.envs.webshop_session import Place, Session, read_action
from agentgym.errors import UsageError, unknown
from agentgym.types import Info, Suite

SEARCH_HINT = "search[<your query>]"
"""How the benchmark's agents are told that they can search; any other words will do."""


_UNCLICKABLE = frozenset("[\n")


class WebShopEnv(TextEnv):
    """WebShop.

    Args:
        suite: ``webshop/gen-…`` (generated), ``small-…`` (1,000 published products) or
            ``full-…`` (all of them).
        max_turns: Actions an episode may take; by default 15, as in the papers.
        data: Where the published files lie, by default ``$WEBSHOP_DATA`` or the cache.
        observation: How a page is put into words: ``text`` (the benchmark's default: texts with
            ``[SEP]`` between them), ``text_rich`` (a line a text, with what can be and what was
            clicked) or ``bare`` (``text`` without the instruction, as verl-agent's prompts).
        price_seed: A published product with a range of prices has one that is drawn from it, and
            so have the price limits of instructions; all episodes share the draws of this seed.

    Attributes:
        catalogue: The shop that the suite's tasks are done in.

    Raises:
        UsageError: An unknown suite or observation, ``data`` that is no text or for a suite that
            reads none, or a ``price_seed`` that is no integer.
        DataError: The suite's data is not there.
    """

    name: ClassVar[str] = "webshop"
    default_suite: ClassVar[str] = "webshop/gen-train"
    default_max_turns: ClassVar[int] = 15
    has_expert: ClassVar[bool] = True
    has_answer: ClassVar[bool] = True

    def __init__(
        self,
        suite: str | None = None,
        max_turns: int | None = None,
        data: str | None = None,
        observation: str = "text",
        price_seed: int = 0,
    ) -> None:
        if observation not in RENDERINGS:
            raise unknown("observation of webshop", str(observation), RENDERINGS)
        check_text("data", data)
        if not isinstance(price_seed, int):
            raise UsageError(f"price_seed is an integer, got {price_seed!r}")
        self._data = data
        self._render = RENDERINGS[observation]
        self._price_seed = price_seed
        super().__init__(suite, max_turns)

    @classmethod
    def suite_names(cls) -> tuple[str, ...]:
        """Return the generated suites and the published ones."""
        return tuple(f"{cls.name}/{short}" for short in (*generated.SETS, *original.SETS))

    @classmethod
    def data_sets(cls) -> Mapping[str, DataSet]:
        """Return the small and the full shop."""
        return {"small": SMALL, "full": FULL}

    def load_suite(self, name: str) -> Suite:
        """Return a suite; the shop is read or made when it is first asked for."""
        if name not in self.suite_names():
            raise self.unknown_suite(name)
        short = name.removeprefix(f"{self.name}/")
        self.catalogue = self._shop(short)
        return Suite(
            name=name,
            tasks=self.catalogue.splits[short],
            official=short in original.SETS,
            held_out="train" not in short,
            about=original.SETS.get(short) or generated.SETS[short],
        )

    def _shop(self, short: str) -> Catalogue:
        if short in original.SETS:
            return original.catalogue(short, data_folder(self._data), self._price_seed)
        if self._data is not None:
            raise UsageError(
                f"suite webshop/{short} is generated and reads no files, got data={self._data!r};"
                " published suites read them: webshop/small-test"
            )
        return generated.catalogue(short)

    def begin(self, task: str, seed: int) -> tuple[str, Info]:
        """Enter the shop. The task alone decides everything: the seed changes nothing."""
        self._id = task
        self._goal = self.catalogue.goals[task]
        self._session = Session()
        self._score = 0.0
        return self._look(admissible=True)

    def act(self, action: str) -> Outcome:
        """Search or click; what is neither, or is not there to be clicked, changes nothing."""
        admissible = self._do(*read_action(action))
        bought = self._session.place is Place.DONE
        if bought:
            self._score = self._worth()
        observation, info = self._look(admissible)
        return Outcome(observation, self._score, bought, info)

    def expert(self) -> str | None:
        """Return what an oracle does, which knows the product; None once something is bought."""
        return next_action(self.catalogue, self._goal, self._session)

    def _do(self, verb: str, argument: str) -> bool:
        """Do an action; return whether the page, or every page, offers it."""
        if verb == "search" and argument:  # on every page, whether or not it has a search bar
            self._session.search(argument, self.catalogue.engine)
            return True
        if verb == "click" and argument in self._page.clickables and argument != "search":
            self._session.click(argument, self._page.options)
            return True
        return False

    def _worth(self) -> float:
        products, session = self.catalogue.products, self._session
        bought, wanted = products[session.asin], products[self._goal.asin]
        return score(self._goal, wanted, bought, session.options)

    def _look(self, admissible: bool) -> tuple[str, Info]:
        self._page = show(self.catalogue, self._goal, self._session, self._score)
        observation = self._render(self._page, self._session)
        info = Info(
            task_id=self._id,
            task_type=self.name,
            goal=self._goal.instruction,
            won=self._score == 1.0,
            score=self._score,
            admissible=admissible,
            admissible_actions=_actions(self._page),
            anchor=observation,
            answer=_answer(self.catalogue, self._goal),
        )
        return observation, info


def _actions(page: Page) -> tuple[str, ...]:
    """Return what can be done as agents of the benchmark are told, less what would do nothing."""
    # The button beside the search bar does nothing. What has a bracket or a line break in its
    # name can be seen, but not clicked: the form of actions has no way to say it.
    names = [name for name in page.clickables if name != "search" and _UNCLICKABLE.isdisjoint(name)]
    hint = (SEARCH_HINT,) if page.has_search_bar else ()
    return (*hint, *[f"click[{name}]" for name in names if name])


def _answer(catalogue: Catalogue, goal: Goal) -> str:
    """Return the product that is meant and the options that are asked for."""
    options = [wish if isinstance(wish, str) else ": ".join(wish) for wish in goal.options]
    return ", ".join([catalogue.products[goal.asin].title, *options])
