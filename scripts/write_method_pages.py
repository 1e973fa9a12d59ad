"""Write docs/methods from the methods' own words.

python scripts/write_method_pages.py
"""

from __future__ import annotations

from pathlib import Path

from agentgym.trainers.describe import describe_all, page

PAGES = Path(__file__).resolve().parent.parent / "docs" / "methods"


def main() -> None:
    """Write a page a method."""
    PAGES.mkdir(exist_ok=True)
    for description in describe_all():
        (PAGES / f"{description.name}.md").write_text(page(description), encoding="utf-8")


if __name__ == "__main__":
    main()
