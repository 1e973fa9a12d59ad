"""Every reader of what others wrote, over 100,000 broken inputs each.

``make test-fuzz`` runs all and writes ``benchmarks/fuzz.md``; ``AGENTGYM_FUZZ`` sets another
number, ``AGENTGYM_FUZZ_SEED`` another seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COUNT = int(os.environ.get("AGENTGYM_FUZZ", "100000"))
SEED = os.environ.get("AGENTGYM_FUZZ_SEED", "0")

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(7200)]


def names() -> list[str]:
    """Return the targets' names, without making any of them."""
    text = (Path(__file__).parent / "targets.py").read_text(encoding="utf-8")
    return [line[len("def fuzz_") :].partition("(")[0] for line in text.splitlines()
            if line.startswith("def fuzz_")]  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_no_input_breaks_it(
    name: str, beside: Callable[[str], Any], ram: Path, keep: Callable[[Any], None]
) -> None:
    targets, harness, mutator = (beside(one) for one in ("targets", "harness", "mutator"))
    home = ram / name
    home.mkdir()
    samples, target = getattr(targets, f"fuzz_{name}")(home)
    made = mutator.inputs(f"{SEED}:{name}", samples, COUNT)
    result = harness.run(name, target, made, home)
    keep(result)
    told = [f"{kind}\n    {data[:200]!r}" for kind, data in result.failures.items()]
    assert not told, f"{name}: {len(told)} kinds of failure\n" + "\n".join(told[:20])
