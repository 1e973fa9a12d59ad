"""Which environments there are, and how to build one by name.

The built-in ones are listed here by path, so that listing names imports none of them. Others
register through the entry point group ``agentgym.envs``: ``name = "package.module:ClassName"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from inspect import signature

import gymnasium

from agentgym.envs.base import TextEnv
from agentgym.errors import UsageError, unknown
from agentgym.plugins import load_plugin, plugin_paths
from agentgym.types import EnvSpec

ENTRY_POINT_GROUP = "agentgym.envs"

BUILT_IN: Mapping[str, str] = {
    "alfworld": "agentgym.envs.alfworld:ALFWorldEnv",
    "corridor": "agentgym.envs.corridor:CorridorEnv",
    "scienceworld": "agentgym.envs.scienceworld:ScienceWorldEnv",
    "webshop": "agentgym.envs.webshop:WebShopEnv",
    "search": "agentgym.envs.search:SearchEnv",
}


def register_with_gymnasium() -> None:
    """Register every environment, so that ``gymnasium.make("agentgym/ALFWorld-v0")`` works.

    An id is the class's name without ``Env``. Nothing is imported before it is made. Gymnasium
    adds no wrappers: the contract itself refuses a step out of turn and truncates, and the
    conformance suite has checked what the passive checker would look at in every step.
    """
    for path in _paths().values():
        title = path.partition(":")[2].removesuffix("Env")
        env_id = f"agentgym/{title}-v0"
        if title and env_id not in gymnasium.registry:
            gymnasium.register(
                env_id, entry_point=path, order_enforce=False, disable_env_checker=True
            )


@cache
def _paths() -> dict[str, str]:
    return plugin_paths(ENTRY_POINT_GROUP, BUILT_IN)


def env_names() -> tuple[str, ...]:
    """Return the names of all environments, sorted."""
    return tuple(sorted(_paths()))


def env_class(name: str) -> type[TextEnv]:
    """Return the class of the environment called ``name``.

    Raises:
        UsageError: No environment has that name.
        DataError: The entry point of that name names no :class:`TextEnv`.
    """
    return load_plugin("environment", name, _paths(), TextEnv)  # type: ignore[type-abstract]


def env_of_suite(suite: str) -> str:
    """Return the name of the environment that plays ``suite`` (``environment/set``).

    Raises:
        UsageError: No such environment or suite.
    """
    name, slash, _ = suite.partition("/")
    if not slash:
        raise UsageError(f"a suite is called environment/set, got {suite!r}")
    kind = env_class(name)
    if suite not in kind.suite_names():
        raise kind.unknown_suite(suite)
    return name


def check_options(spec: EnvSpec) -> type[TextEnv]:
    """Return the environment's class if it has the options that ``spec`` names.

    Raises:
        UsageError: No such environment, or it has no such option.
    """
    kind = env_class(spec.name)
    known = signature(kind).parameters
    for option in spec.options:
        if option not in known:
            raise unknown(f"option of {spec.name}", option, known)
    return kind


def make_env(spec: EnvSpec) -> TextEnv:
    """Build an environment.

    Raises:
        UsageError: No such environment, it has no such option, or an option does not fit.
        DataError: The suite's data is not there.
    """
    kind = check_options(spec)
    return kind(**spec.options)  # type: ignore[arg-type] # each environment checks its own values
