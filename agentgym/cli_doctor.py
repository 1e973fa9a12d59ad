"""``agentgym doctor``: would a run start here, and what mends what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentgym.console import say
from agentgym.errors import AgentGymError

if TYPE_CHECKING:
    from agentgym.doctor import Finding


def doctor(
    env: Annotated[
        list[str] | None,
        typer.Option("--env", help="Only this environment; repeatable. All by default."),
    ] = None,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="A vLLM server to ask.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where runs would be written.")
    ] = Path("runs"),
) -> None:
    """Look at all that a run needs here, and say what mends it; exit 1 if a run would not start."""
    from agentgym.doctor import default_envs, diagnose
    from agentgym.envs.registry import env_class, env_names

    for name in env or ():
        env_class(name)  # a wrong name is refused before anything is looked at
    failed = 0
    for finding in diagnose(env or default_envs(env_names()), output, server):
        _show(finding)
        failed += finding.level == "FAIL"
    if failed:
        raise AgentGymError(
            f"{failed} of these would stop a run; each stands above, with what mends it"
        )
    say("nothing here would stop a run")


def _show(finding: Finding) -> None:
    say(f"{finding.level:<4}  {finding.about}: {finding.said}")
    if finding.mend is not None:
        say(f"      mend: {finding.mend}")
