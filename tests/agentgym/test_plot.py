"""Curves of runs: what stands in a panel, what the band of seeds is, and the pictures."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentgym import plot as plot_module
from agentgym.curves import PANELS, Curve, by_seed, curve, found, label, panels_of
from agentgym.errors import UsageError
from agentgym.plot import plot
from agentgym.run_files import Run, open_run

MakeRun = Callable[..., Path]


def run(values: Mapping[float, float], config: Mapping[str, Any] | None = None) -> Run:
    steps = tuple({"step": step, "x": value} for step, value in values.items())
    return Run(Path("r"), steps, (), config or {})


def test_a_curve_is_the_mean_of_the_seeds_from_the_lowest_to_the_highest() -> None:
    runs = [run({1: 1.0, 2: 4.0}), run({1: 3.0, 2: 8.0}), run({1: 5.0})]
    # Step 1: (1 + 3 + 5) / 3 = 3. Step 2: (4 + 8) / 2 = 6, of the two runs that have it.
    assert curve(runs, "x", "range") == Curve((1, 2), (3, 6), (1, 4), (5, 8))


def test_a_band_of_a_standard_deviation_has_ddof_1() -> None:
    # Deviations from 3 are -2, 0, 2: sqrt((4 + 0 + 4) / (3 - 1)) = 2.
    runs = [run({1: 1.0}), run({1: 3.0}), run({1: 5.0})]
    assert curve(runs, "x", "sd") == Curve((1,), (3,), (1,), (5,))


def test_smoothing_averages_each_run_over_this_value_and_those_before() -> None:
    assert curve([run({1: 1.0, 2: 3.0, 3: 8.0})], "x", "none", 2).mean == (1, 2, 5.5)


def test_a_single_run_has_no_band() -> None:
    for band in ("range", "sd", "none"):
        alone = curve([run({1: 1.0})], "x", band)  # type: ignore[arg-type]
        assert alone.low == alone.mean == alone.high


def test_runs_that_differ_only_in_their_seed_are_one_group() -> None:
    epo = {"seed": 0, "method": {"name": "epo"}, "optim": {"lr": 1.0}}
    runs = [
        run({}, epo),
        run({}, {**epo, "seed": 1}),
        run({}, {**epo, "optim": {"lr": 2.0}}),
        run({}, {**epo, "method": {"name": "grpo"}}),
        run({}),
        run({}),
    ]
    groups = by_seed(runs)
    assert list(groups) == ["epo, optim.lr 1.0", "epo, optim.lr 2.0", "grpo", "r", "r (r)"]
    assert [len(group) for group in groups.values()] == [2, 1, 1, 1, 1]


def test_turns_are_in_the_order_of_their_numbers() -> None:
    (panel,) = [panel for panel in PANELS if panel.heat]
    names = ["actor/entropy", "actor/entropy_turn_10", "actor/entropy_turn_2"]
    assert found(panel, names) == ("actor/entropy_turn_2", "actor/entropy_turn_10")


def test_every_metric_of_a_panel_is_named_as_people_read_it() -> None:
    assert label("eval/alfworld/gen-unseen/success_rate") == "held out, alfworld/gen-unseen"
    assert label("episode/pick_two_obj/success_rate") == "pick two obj"
    assert label("time/generate") == "generate"


def test_panels_without_metrics_are_left_out(make_run: MakeRun) -> None:
    opened = [open_run(make_run())]
    titles = [panel.title for panel, _ in panels_of(opened)]
    assert titles == ["Success", "Reward", "Entropy", "Entropy by turn", "Time"]


def test_what_is_0_where_a_step_makes_one_update_is_left_out_if_it_always_was() -> None:
    def shown(*values: float) -> list[str]:
        steps = tuple(
            {"step": n, "actor/ppo_kl": value, "actor/clip_frac": 0.0, "actor/entropy": 0.0}
            for n, value in enumerate(values)
        )
        return [panel.title for panel, _ in panels_of([Run(Path("r"), steps, ())])]

    assert shown(0.0, 0.0) == ["Entropy"]
    assert shown(0.0, 1e-9) == ["Entropy", "KL"]


# Pictures -----------------------------------------------------------------------------------------


def test_pictures_are_made_of_several_seeds_and_are_the_same_twice(
    make_run: MakeRun, tmp_path: Path
) -> None:
    runs = [open_run(make_run(seed=seed)) for seed in (0, 1)]
    png, svg = plot(runs, tmp_path / "a" / "curves")
    assert png.read_bytes().startswith(b"\x89PNG")
    drawn = svg.read_text()
    for said in ("Entropy by turn", "epo on corridor/train, 2 seeds", "lowest to highest seed"):
        assert said in drawn
    again = plot(runs, tmp_path / "b" / "curves.png")
    assert [path.read_bytes() for path in again] == [png.read_bytes(), svg.read_bytes()]


def test_a_picture_says_over_what_it_averages_and_whose_the_map_is(
    make_run: MakeRun, tmp_path: Path
) -> None:
    runs = [open_run(make_run(seed=seed)) for seed in (1, 2)]
    drawn = plot(runs, tmp_path / "c", smooth=2)[1].read_text()
    assert "lowest to highest seed; mean of 2 steps" in drawn
    assert "epo on corridor/train, seed 1" in drawn
    drawn = plot(runs[:1], tmp_path / "c")[1].read_text()
    assert "mean of" not in drawn
    assert "seed 1" not in drawn
    # Five panels and the scale of the map have two axes each, the place of the sixth panel none.
    assert len(re.findall(r'id="matplotlib\.axis_\d+"', drawn)) == 12


def test_a_panel_of_many_lines_goes_without_bands(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(seed=seed) for seed in (0, 1)]
    for folder in runs:
        types = {f"episode/type_{n}/success_rate": 0.5 for n in range(5)}
        with (folder / "metrics.jsonl").open("a") as stream:
            stream.writelines(json.dumps({"step": step, **types}) + "\n" for step in (4, 5))
    opened = [open_run(folder) for folder in runs]
    for title, bands in (("Success by task type", 0), ("Reward", 1)):
        drawn = plot(opened, tmp_path / "c", only=[title])[1].read_text()
        assert len(re.findall('id="FillBetween', drawn)) == bands


def test_only_the_panels_that_are_wanted_are_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    _, svg = plot([open_run(make_run())], tmp_path / "c", only=["reward"])
    drawn = svg.read_text()
    assert "Reward" in drawn
    assert "Success" not in drawn
    with pytest.raises(UsageError, match="no panel 'Loss'; they have: Success, Reward"):
        plot([open_run(make_run("other"))], tmp_path / "c", only=["Loss"])


def test_without_matplotlib_the_extra_is_named(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(plot_module, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'agentgym\[plot\]'"):
        plot([open_run(make_run())], tmp_path / "c")


def test_the_command_draws_and_says_what_it_could_not_read(
    agentgym: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4')
    code, out, err = agentgym("plot", folder, "-o", tmp_path / "curves")
    assert code == 0
    assert out.splitlines() == [f"written: {tmp_path / 'curves'}.{k}" for k in ("png", "svg")]
    assert err.count("\n") == 1
    assert "metrics.jsonl line 4" in err


def test_a_run_without_a_metric_leaves_its_picture_to_the_next(
    agentgym: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    foreign, whole = make_run("foreign"), make_run("whole")
    (foreign / "metrics.jsonl").write_text('{"loss": 1.0, "epoch": 2}\n')
    code, _, err = agentgym("plot", foreign, whole, "-o", tmp_path / "curves")
    assert code == 0
    assert "no step in it" in err
    assert "Entropy by turn" in (tmp_path / "curves.svg").read_text()


def test_a_metric_that_only_a_later_run_has_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    first, second = make_run("a"), make_run("b")
    config = second / "config.toml"
    config.write_text(config.read_text().replace("epo", "grpo"))
    with (second / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "time/update": 2.0}\n')
    _, svg = plot([open_run(first), open_run(second)], tmp_path / "x", only=["Time"])
    assert [name in svg.read_text() for name in ("generate", "update")] == [True, True]


def test_an_evaluation_has_no_curves(tmp_path: Path) -> None:
    evaluation = run({}, {"policy": "random", "suite": "corridor/test"})
    with pytest.raises(UsageError, match="is an evaluation, which has no curves; expected a run"):
        plot([run({1: 1.0}), evaluation], tmp_path / "x")


def test_small_values_are_written_on_their_ticks(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "rollout/logprob_abs_diff": 5e-7}\n')
    _, svg = plot([open_run(folder)], tmp_path / "x", only=["Trainer against sampler"])
    assert "e-07" in svg.read_text()


def test_the_command_refuses_what_is_no_run_in_one_line(agentgym: Any, tmp_path: Path) -> None:
    code, _, err = agentgym("plot", tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert str(tmp_path) in err
