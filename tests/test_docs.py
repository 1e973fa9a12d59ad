"""The Python that the documentation shows is run; what pages link to and list is there."""

import re
from pathlib import Path

import pytest

from agentgym.trainers.guard import GuardOptions, detectors

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs() -> None:
    (code,) = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    assert str(names["observation"]).startswith("You arrive at")


def test_the_environment_of_the_guide_conforms() -> None:
    from agentgym.envs.check import check_env

    (code,) = blocks("docs/add-an-environment.md", "python")
    names: dict[str, object] = {"__name__": "guess"}
    exec(code, names)
    findings = check_env(names["GuessEnv"])  # type: ignore[arg-type]
    assert [finding for finding in findings if not finding.passed] == []


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]


@pytest.mark.parametrize("page", sorted(p.relative_to(ROOT) for p in PAGES), ids=str)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (ROOT / page.parent / target).exists(), f"{page} links to {target}"


def test_the_page_on_metrics_lists_every_detector_with_its_settings() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    for detector in detectors(GuardOptions()):
        assert f"| `{detector.name}` | `{detector.metric}` |" in text
    for name, field in GuardOptions.model_fields.items():
        if name not in ("stall_after", "on_collapse"):
            assert f"`guard.{name}`" in text, name
            assert field.default is not None
