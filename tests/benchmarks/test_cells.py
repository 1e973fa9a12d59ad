"""Cells of a benchmark count as done for the model that began them, and for no other."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def cells(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("cells")


def measured(cells: ModuleType, folder: Path, arm: Sequence[str] | None, weights: str):
    """Return a cell that was measured: 3 of 4 episodes won, by these weights."""
    cell = cells.Cell("arm", folder, "search", arm, "search/gen-easy-test", 0)
    cell.results.parent.mkdir(parents=True)
    success = {"success": {"won": 3, "episodes": 4}}
    cell.results.write_text(json.dumps({"protocol": {"weights": weights}, "summary": success}))
    return cell


def test_an_untrained_cell_is_done_if_the_present_model_played(cells, tmp_path: Path) -> None:
    cell = measured(cells, tmp_path, None, cells.present_weights("search"))
    assert cell.is_done
    assert cells.do(cell) == "search, arm, seed 0: 0.750"


def test_what_another_model_played_is_refused_and_not_counted(cells, tmp_path: Path) -> None:
    cell = measured(cells, tmp_path, None, "0" * 64)
    assert not cell.is_done
    assert cells.missing([cell]) == "Not done yet: arm, seed 0."
    with pytest.raises(SystemExit, match=r"began with weights 0+, and search-tiny has [0-9a-f]+"):
        cells.do(cell)


def test_a_trained_cell_is_of_the_model_that_its_training_began_with(
    cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = measured(cells, tmp_path, [], "1" * 64)  # a checkpoint's, which tell nothing of that
    with pytest.raises(SystemExit, match="began with weights that nothing tells"):
        cells.do(cell)
    monkeypatch.setattr(cells, "_agentgym", lambda *words: cell.run.mkdir())
    cells._train(cell)
    assert cell.is_done


def test_a_cell_took_what_its_steps_and_the_evaluations_between_them_took(
    cells, tmp_path: Path
) -> None:
    cell = measured(cells, tmp_path, [], "1" * 64)
    assert cell.minutes == 0
    cell.run.mkdir()
    lines = [{"step": 1, "time/step": 60.0}, {"step": 2, "time/step": 90.0, "time/eval": 30.0}]
    (cell.run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert cell.minutes == 3
