import pytest
import torch
from pydantic import ValidationError

from agentgym.trainers.optim import OptimOptions, build_optimizers, learning_rate


def test_the_rate_rises_then_falls_to_the_floor() -> None:
    options = OptimOptions(lr=1.0, warmup=0.2, floor=0.1)
    rates = [learning_rate(options, step, 10) for step in range(1, 11)]
    assert rates[:3] == [0.5, 1.0, 1.0]  # two steps of rise, then the peak
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    # step 6 is 3/7 of the way from step 3 to step 10: .1 + .9 (1 + cos(3 pi / 7)) / 2
    assert rates[5] == pytest.approx(0.1 + 0.9 * (1 + 0.222521) / 2, abs=1e-6)


def test_a_floor_of_one_keeps_the_peak() -> None:
    options = OptimOptions(lr=1.0, warmup=0, floor=1)
    assert {learning_rate(options, step, 7) for step in range(1, 8)} == {1.0}


def test_a_run_of_one_step_has_the_peak() -> None:
    assert learning_rate(OptimOptions(lr=1.0), 1, 1) == 1.0


def test_steps_beyond_the_last_stay_on_the_floor() -> None:
    options = OptimOptions(lr=1.0, floor=0.2)
    assert learning_rate(options, 500, 100) == pytest.approx(0.2)


def shapes(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    return [list(p.shape) for group in optimizer.param_groups for p in group["params"]]


def test_adamw_decays_matrices_only(make_model) -> None:
    model = make_model()
    (adamw,) = build_optimizers(model, OptimOptions(weight_decay=0.3))
    decay = {id(p): g["weight_decay"] for g in adamw.param_groups for p in g["params"]}
    assert {decay[id(p)] for p in model.parameters() if p.ndim == 2} == {0.3}
    assert {decay[id(p)] for p in model.parameters() if p.ndim == 1} == {0.0}


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_the_matrices_between_the_ends_and_adamw_all_else(make_model, tied) -> None:
    model = make_model(tie_word_embeddings=tied)
    muon, adamw = build_optimizers(model, OptimOptions(optimizer="muon"))
    assert isinstance(muon, torch.optim.Muon)
    assert len(shapes(muon)) == 2 * 7  # q, k, v, o, gate, up, down of two layers
    assert [23, 16] not in shapes(muon)
    assert len(shapes(muon)) + len(shapes(adamw)) == len(list(model.parameters()))


def test_frozen_parameters_are_left_out(make_model) -> None:
    model = make_model()
    model.model.layers[0].requires_grad_(False)
    (adamw,) = build_optimizers(model, OptimOptions())
    assert len(shapes(adamw)) == sum(p.requires_grad for p in model.parameters())


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        OptimOptions(learning_rate=1e-3)
