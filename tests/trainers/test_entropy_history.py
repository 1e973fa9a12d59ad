import json
import math

import pytest
import torch

from agentgym.trainers.entropy_history import EntropyHistory, turn_entropies


def test_the_mean_is_over_the_steps_so_far() -> None:
    history = EntropyHistory()
    for entropy in (1.0, 0.8):
        history = history.with_step({0: entropy}, entropy)
    assert history.mean(0) == history.mean() == pytest.approx(0.9)
    assert history.with_step({0: 0.6}, 0.6).mean(0) == pytest.approx(0.8)


def test_a_turn_that_a_step_lacks_stays_missing() -> None:
    # Two steps of 2 and 4 turns: means over the steps that have the turn.
    history = EntropyHistory().with_step({0: 1.2, 1: 1.0}, 1.1)
    history = history.with_step({0: 1.0, 1: 0.9, 2: 0.8, 3: 0.7}, 0.85)
    assert [history.mean(k) for k in range(4)] == pytest.approx([1.1, 0.95, 0.8, 0.7])
    assert math.isnan(history.mean(4))


def test_an_empty_history_has_no_mean() -> None:
    assert math.isnan(EntropyHistory().mean())
    assert math.isnan(EntropyHistory().mean(0))


def test_a_history_survives_json_exactly() -> None:
    history = EntropyHistory().with_step({0: 0.1, 7: 1 / 3}, 0.2).with_step({0: 0.7}, 0.7)
    assert EntropyHistory.from_json(json.loads(json.dumps(history.to_json()))) == history


def test_a_turns_entropy_is_over_its_tokens_and_not_over_padding() -> None:
    entropy_BT = torch.tensor([[9.0, 2.0, 2.0, 0.0, 0.0], [9.0, 5.0, 9.0, 1.0, 0.0]])
    turn_BT = torch.tensor([[-1, 0, 0, -1, -1], [-1, 0, -1, 2, -1]])
    assert turn_entropies(entropy_BT, turn_BT) == {0: 3.0, 2: 1.0}
