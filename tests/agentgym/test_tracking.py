"""Trackers are told the run's settings and each step's metrics, and are closed."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentgym import tracking as tracking_module
from agentgym.errors import UsageError
from agentgym.tracking import tracking


class Tracker:
    """What accelerate's trackers do, written down."""

    def __init__(self, *names: object, **options: object) -> None:
        self.told: list[object] = [(names, options)]
        MADE.append(self)

    def start(self) -> None:
        self.told.append("start")

    def store_init_configuration(self, values: Mapping[str, object]) -> None:
        self.told.append(values)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.told.append((step, values))

    def finish(self) -> None:
        self.told.append("finish")


MADE: list[Tracker] = []


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[Tracker]:
    names = ("TensorBoardTracker", "WandBTracker", "TrackioTracker")
    module = SimpleNamespace(**dict.fromkeys(names, Tracker))
    monkeypatch.setattr(tracking_module, "import_module", lambda _: module)
    MADE.clear()
    return MADE


def test_trackers_are_told_settings_and_steps_and_closed_also_after_an_error(
    fakes: list[Tracker], tmp_path: Path
) -> None:
    config = {"seed": 3, "optim": {"lr": 0.5, "betas": [0.9, 0.99], "mini_batch": None}}
    with (
        suppress(RuntimeError),
        tracking(("tensorboard", "wandb", "trackio"), tmp_path, config) as t,
    ):
        t({"step": 2, "reward/mean": 0.25})
        raise RuntimeError
    for tracker in fakes:
        assert tracker.told[1:] == [
            "start",
            {"seed": 3, "optim.lr": 0.5, "optim.betas": "[0.9, 0.99]"},
            (2, {"reward/mean": 0.25}),
            "finish",
        ]
    assert [tracker.told[0] for tracker in fakes] == [
        (("tensorboard",), {"logging_dir": str(tmp_path / "logs")}),
        (("agentgym",), {"name": tmp_path.name, "dir": str(tmp_path / "logs")}),
        (("agentgym",), {"name": tmp_path.name}),
    ]


def test_no_tracker_imports_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(name)

    monkeypatch.setattr(tracking_module, "import_module", refuse)
    with tracking((), tmp_path, {}) as tell:
        tell({"step": 1})


def test_a_tracker_that_is_not_installed_is_named_and_the_others_are_closed(
    fakes: list[Tracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: Tracker) -> None:
        raise ModuleNotFoundError("No module named 'wandb'")

    class Missing(Tracker):
        start = missing

    module = tracking_module.import_module("")
    monkeypatch.setattr(module, "WandBTracker", Missing)
    with (
        pytest.raises(UsageError, match=r"wandb is not installed .*pip install wandb"),
        tracking(("tensorboard", "wandb"), tmp_path, {}),
    ):
        pass
    assert fakes[0].told[-1] == "finish"
