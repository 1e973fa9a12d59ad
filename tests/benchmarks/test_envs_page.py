"""The page of the environment benchmarks is what its sections say, whichever were measured anew."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def envs_page(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("envs_page")


def figures(envs_page: ModuleType, step_ms: float, hop_ms: float) -> Any:
    """Return figures of an environment that is twice as fast as the published one."""
    one = {"start_s": 1.0, "reset_ms": 5.0, "step_wall_ms": 9.0, "memory_mb": 40.0}
    names = {envs_page.OURS: 1, envs_page.NONE_TOLD: 0.5, envs_page.PUBLISHED: 2}
    pool = {"steps_a_second": 7.0, "own_ms": 1.0}
    held = {(0, 1): 1, (0, 64): 16, (1, 1): 1, (2, 2): 2, (4, 64): 64}
    return envs_page.Figures(
        {name: {**one, "step_ms": step_ms * factor} for name, factor in names.items()},
        {
            key: {
                **pool,
                "environments": n,
                "cpu_ms": step_ms + hop_ms * bool(key[0]),
                "memory_mb": 100.0 + 30 * (n - 1),
            }
            for key, n in held.items()
        },
        {},
    )


def section(envs_page: ModuleType, name: str, step_ms: float, hop_ms: float = 0.5) -> str:
    goals = [
        envs_page.Goal("≥ 100 steps a second and core", envs_page.steps_a_second),
        envs_page.Goal("≥ 3 times", envs_page.times_the_published_step),
        envs_page.Goal("≤ 60 MB", envs_page.memory_of_a_further_one),
    ]
    measured = figures(envs_page, step_ms, hop_ms)
    return envs_page.section(f"{name}: {name}/test", "Measured.", goals, measured, "3 steps.")


def test_goals_stand_above_the_sections_with_what_was_measured(envs_page: ModuleType) -> None:
    text = envs_page.page({"maze": section(envs_page, "maze", 4.0)})
    assert "| maze | ≥ 100 steps a second and core | 250 |" in text  # 1,000 ms of 4
    assert "| maze | ≥ 3 times | 2.0 times, 4.0 where no actions are told |" in text
    assert "| maze | ≤ 60 MB | 30 MB |" in text
    assert "| 64 inline, 16 held | 4.000 | 1.000 | 7 | 550 | 30.0 |" in text


def test_an_environment_that_is_measured_again_replaces_its_own_section_alone(
    envs_page: ModuleType,
) -> None:
    before = {name: section(envs_page, name, 4.0) for name in ("maze", "shop")}
    kept = envs_page.sections(envs_page.page(before))
    assert list(kept) == ["maze", "shop"]
    kept["shop"] = section(envs_page, "shop", 2.0)
    after = envs_page.page(kept)
    assert "| maze | ≥ 100 steps a second and core | 250 |" in after
    assert "| shop | ≥ 100 steps a second and core | 500 |" in after
    assert envs_page.page(envs_page.sections(after)) == after
    assert after == envs_page.page({"maze": before["maze"], "shop": kept["shop"]})


def test_a_hop_that_is_lost_in_the_noise_is_said_to_be(envs_page: ModuleType) -> None:
    text = section(envs_page, "maze", 4.0, -0.5)
    assert "costs less than can be measured beside a step of 4.000 ms" in text
    assert "would give 2.0 times" in text


def test_what_is_said_of_processes_is_what_was_measured(envs_page: ModuleType) -> None:
    slow, fast = (section(envs_page, name, 4.0, hop) for name, hop in (("slow", 9), ("fast", 0)))
    text = envs_page.page({"slow": slow, "fast": fast})
    assert "two free cores would give 0.6 times" in slow  # 2 * 4 of 4 + 9
    assert "A process costs more than it gives in slow:" in text
    assert "It may be worth its cost, where cores are free, in fast." in text
