"""What a doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``FAIL`` stops a run, a ``note`` does not."""

    level: Level
    about: str
    said: str
    mend: str | None = None  # the command that mends it
