"""Updates by processes together equal those of a process alone, method by method.

Each job starts its processes once and goes through all cases in them (benchmarks/scale_job.py).
`make check` takes the few that leave nothing untouched; `make test-scale` takes all.
"""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentgym.trainers.registry import BUILT_IN

pytestmark = pytest.mark.timeout(1800)  # a busy machine may take its time

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
MUON = 5e-4
"""Muon multiplies in bfloat16 whatever the weights are: a twentieth of what weights move there."""

HALF = "bfloat16"
"""A case: shards are moved in it, and weights are so rounded that AdamW turns some steps around."""

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def scale_job() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "scale_job.py"
    spec = importlib.util.spec_from_file_location("scale_job", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale_job"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def check(found: Found, size: int) -> None:
    for one in found:
        where = f"{one['case']} on {size} processes, {one['weights']}"
        tolerance = MUON if one["case"] == "muon" else TOLERANCE[one.get("dtype", "float64")]
        if one["case"] == HALF:
            assert 0 < one["mean_difference"] < 0.2, where
            assert one["metrics_difference"] < 0.5, where
            tolerance = math.inf
        assert one["difference"] <= tolerance, where
        if "moved" not in one:
            continue
        assert one["metrics_difference"] <= 100 * tolerance, where  # some are sums of many tokens
        assert one["moved"] > 1e-3, where  # an update of nothing would be equal too
        assert one["split_groups"] == 2, where
        sharded = one["weights"] == "sharded"
        assert one["dtensors"] == (one["parameters"] if sharded else 0), where
        if sharded:
            assert one["share"] < 0.7 if size == 2 else one["share"] < 0.4, where


def test_every_method_that_can_be_named_is_among_the_cases(scale_job) -> None:
    named = {settings["name"] for settings in scale_job.METHODS.values()}
    assert named >= set(BUILT_IN)


def test_two_processes_learn_what_one_does_with_whole_weights_and_in_shards(
    scale_job, tmp_path
) -> None:
    options = ("--dtypes", "float64", "--methods", "epo on ppo")  # it has entropies and a critic
    found = scale_job.run(2, "compare", tmp_path / "out.json", *options)
    assert [(one["case"], one["weights"]) for one in found] == [
        ("epo on ppo", "whole"),
        ("epo on ppo", "sharded"),
        ("answer scores", "whole"),
        ("answer scores", "sharded"),
    ]
    check(found, 2)


@pytest.mark.scale
@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_method_learns_on_many_processes_what_it_does_on_one(
    size, scale_job, tmp_path
) -> None:
    found = scale_job.run(size, "compare", tmp_path / "out.json")
    assert {one["case"] for one in found} > set(scale_job.METHODS)
    check(found, size)


@pytest.mark.scale
def test_a_checkpoint_of_two_processes_is_gone_on_from_by_one_and_by_four(
    scale_job, tmp_path
) -> None:
    scale_job.run(2, "save", tmp_path / "saved.json")
    for size, weights in ((1, ["whole"]), (4, ["whole", "sharded"])):
        found = scale_job.run(size, "resume", tmp_path / "resumed.json")
        assert [one["weights"] for one in found] == weights
        check(found, size)
