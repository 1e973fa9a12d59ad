"""The tables of faults and of promises name tests, and each of them is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["reliability.md", "trust.md"])
def test_every_row_of_the_table_names_tests_that_are_there(page: str) -> None:
    table = (ROOT / "docs" / page).read_text()
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)\(", code, re.MULTILINE))
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) >= 15
    for row, tests in zip(rows, named, strict=True):
        assert tests, f"no test stands behind {row!r}"
        assert set(tests) <= there, set(tests) - there
