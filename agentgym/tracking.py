"""A run's metrics for those who watch runs elsewhere; ``metrics.jsonl`` is written in any case.

Each tracker is accelerate's, as its own documentation tells, and takes its settings from its own
environment variables: ``WANDB_MODE=offline`` keeps everything on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from agentgym.errors import UsageError
from agentgym.run_files import flat

TrackerName = Literal["tensorboard", "wandb", "trackio"]

_PROJECT = "agentgym"


@contextmanager
def tracking(
    names: Sequence[TrackerName], folder: Path, config: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield what tells the trackers the metrics of a step.

    Args:
        names: Of the trackers.
        folder: The run's; what they write here goes to ``logs`` in it, and its name is the run's.
        config: The run's settings.

    Raises:
        UsageError: A tracker is not installed.
    """
    trackers: list[Any] = []
    with ExitStack() as stack:
        for name in names:
            tracker = _start(name, folder)
            stack.callback(tracker.finish)
            tracker.store_init_configuration(_settings(config))
            trackers.append(tracker)

        def tell(metrics: Mapping[str, float]) -> None:
            for tracker in trackers:
                values = {name: value for name, value in metrics.items() if name != "step"}
                tracker.log(values, step=int(metrics["step"]))

        yield tell


def _start(name: TrackerName, folder: Path) -> Any:
    try:
        module = import_module("accelerate.tracking")
        logs = str(folder / "logs")
        if name == "tensorboard":
            tracker = module.TensorBoardTracker("tensorboard", logging_dir=logs)
        elif name == "wandb":
            (folder / "logs").mkdir(exist_ok=True)
            tracker = module.WandBTracker(_PROJECT, name=folder.name, dir=logs)
        else:
            tracker = module.TrackioTracker(_PROJECT, name=folder.name)
        tracker.start()
    except ImportError as error:
        raise UsageError(
            f"the tracker {name} is not installed ({error}); pip install {name}, or leave it out of"
            " trackers"
        ) from error
    return tracker


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their dotted names, as every tracker takes them: texts and numbers."""
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in flat(config).items()
        if value is not None
    }
