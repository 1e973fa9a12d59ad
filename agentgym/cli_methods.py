"""``agentgym methods``: which methods there are, and what each does, in its own words."""

from __future__ import annotations

from typing import Annotated

import typer

from agentgym.console import say, say_table, warn

app = typer.Typer(
    name="methods",
    help="List and explain training methods.",
    epilog="Example: agentgym methods explain epo",
    no_args_is_help=True,
)

_COLUMNS = ("name", "about", "paper", "needs", "hooks", "stands on", "presets")
_SPARE = ("presets", "stands on", "hooks", "needs")  # explain tells them as well


@app.command("list", epilog="Example: agentgym methods list")
def list_() -> None:
    """List the methods: what each does, where it is from, what it needs and stands on."""
    from agentgym.trainers.describe import describe_all

    rows = [
        (
            d.name,
            d.summary,
            d.paper,
            ", ".join(d.needs),
            ", ".join(d.hooks),
            ", ".join(d.bases) or "-",
            ", ".join(d.presets),
        )
        for d in describe_all(skip=warn)
    ]
    say_table(_COLUMNS, rows, _SPARE)
    say("agentgym methods explain NAME tells more")


@app.command("explain", epilog="Example: agentgym methods explain epo:released")
def explain(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Method, method:preset, or a .py file.")
    ],
) -> None:
    """Tell what a method does: equations, departures, needs, and every option with its value."""
    from agentgym.trainers.describe import describe

    d = describe(name)
    say(f"{d.name} ({d.role}){f', {d.paper}' if d.paper else ''}\n\n{d.text}\n")
    if d.bases:
        say(f"stands on: {', '.join(d.bases)}")
    say(f"hooks: {', '.join(d.hooks) or 'none'}")
    say(f"needs: {', '.join(d.needs) or 'nothing beyond the rollouts'}\n")
    say_table(
        ("option", "value", "what it is"),
        [(o.name, o.value + (" (preset)" if o.of_preset else ""), o.about) for o in d.options],
    )
    for key, value in d.base_options:
        say(f"on its base: {key} = {value}")
    if d.presets:
        plain = d.name.partition(":")[0]
        say(f"presets: {', '.join(f'{plain}:{preset}' for preset in d.presets)}")
    for preset, reason in d.refused.items():
        say(f"refused: {d.name}:{preset}: {reason}")
