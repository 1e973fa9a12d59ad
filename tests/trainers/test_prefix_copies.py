"""The single pass over all prefixes of a row against one pass of the plain model for each."""

import random
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from agentgym.policies.gold_answer import WrittenAnswer
from agentgym.trainers import prefix_copies
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.prefix_copies import CopyScorer, PrefixCopies

VOCAB = 23
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
}


def draw(count: int, rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randrange(VOCAB) for _ in range(count))


def copies(cuts: Sequence[int], seed: int = 0, before: int = 2, own: int = 3) -> PrefixCopies:
    """Build a row with a text after each prefix, each text another."""
    rng = random.Random(seed)
    tails = tuple(WrittenAnswer(draw(before + own, rng), before) for _ in cuts)
    return PrefixCopies(draw(max(cuts), rng), tuple(cuts), tails)


ASKED = [
    copies([3, 9, 20], 1),
    copies([5], 2),
    copies([1, 2, 3, 4, 12, 31], 3, before=0),
    copies([7, 7], 4, own=1),
    copies([40], 5, before=0, own=1),
]


@torch.no_grad()
def reference(model: nn.Module, asked: Sequence[PrefixCopies]) -> list[list[float]]:
    """Return the means by the plain model, a prefix at a time and without padding."""

    def one(ids: tuple[int, ...], tail: WrittenAnswer) -> float:
        whole = torch.tensor([*ids, *tail.ids])
        logp_TV = model(input_ids=whole[None]).logits[0].log_softmax(-1)
        first = len(ids) + tail.start
        return logp_TV[first - 1 : -1].gather(1, whole[first:, None]).mean().item()

    return [
        [one(c.ids[:cut], tail) for cut, tail in zip(c.cuts, c.tails, strict=True)] for c in asked
    ]


def difference(ours: list[list[float]], theirs: list[list[float]]) -> float:
    assert [len(row) for row in ours] == [len(row) for row in theirs]
    pairs = zip(chain(*ours), chain(*theirs), strict=True)
    return max(abs(one - other) for one, other in pairs)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("tokens", [1, 100, 10_000])
def test_a_single_pass_scores_what_a_pass_for_each_prefix_scores(
    make_model: Callable[..., nn.Module], attention: str, tokens: int
) -> None:
    model = make_model(torch.float32, attn_implementation=attention)
    scorer = CopyScorer(CausalLM(model), tokens)
    assert scorer.single_pass
    together = scorer(ASKED)
    scorer.single_pass = False
    apart = scorer(ASKED)
    assert difference(together, reference(model, ASKED)) < 1e-5
    assert difference(apart, reference(model, ASKED)) < 1e-5


def test_in_float64_the_passes_agree_to_the_last_digits(
    make_model: Callable[..., nn.Module],
) -> None:
    model = make_model(torch.float64, attn_implementation="sdpa")
    found = CopyScorer(CausalLM(model), 1000)(ASKED)
    assert difference(found, reference(model, ASKED)) < 1e-12


def test_bfloat16_products_take_the_single_pass_too(make_model: Callable[..., nn.Module]) -> None:
    model = make_model(torch.float32)
    scorer = CopyScorer(CausalLM(model, "bfloat16"), 1000)
    assert scorer.single_pass
    assert difference(scorer(ASKED), reference(model, ASKED)) < 0.2


def test_a_copy_sees_its_prefix_and_itself_and_nothing_else(
    make_model: Callable[..., nn.Module],
) -> None:
    scorer = CopyScorer(CausalLM(make_model(torch.float64)), 1000)
    row = copies([4, 8], 1)
    first, second = scorer([row])[0]
    # The row behind the first prefix, and the other copies.
    changed = PrefixCopies(
        (*row.ids[:4], *(21 - n for n in row.ids[4:])),
        row.cuts,
        (row.tails[0], WrittenAnswer((1, 2, 3, 4), 1)),
    )
    assert scorer([changed])[0][0] == pytest.approx(first, abs=1e-12)
    assert abs(scorer([changed])[0][1] - second) > 1e-3
    # A token of the prefix.
    nearer = PrefixCopies(((row.ids[0] + 1) % VOCAB, *row.ids[1:]), row.cuts, row.tails)
    assert abs(scorer([nearer])[0][0] - first) > 1e-6


def test_only_the_answers_own_tokens_count(make_model: Callable[..., nn.Module]) -> None:
    scorer = CopyScorer(CausalLM(make_model(torch.float64)), 1000)
    ids = (5, 9, 2, 14)
    each = [
        scorer([PrefixCopies((1, 2, 3, *ids[:n]), (3 + n,), (WrittenAnswer(ids[n : n + 1], 0),))])
        for n in range(4)
    ]
    found = scorer([PrefixCopies((1, 2, 3), (3,), (WrittenAnswer(ids, 2),))])[0][0]
    assert found == pytest.approx((each[2][0][0] + each[3][0][0]) / 2, abs=1e-12)


def windowed(window: int | None) -> nn.Module:
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=window)).eval()


def test_a_model_with_a_sliding_window_is_asked_prefix_by_prefix() -> None:
    model = windowed(6)
    scorer = CopyScorer(CausalLM(model), 1000)
    assert not scorer.single_pass
    assert difference(scorer(ASKED), reference(model, ASKED)) < 1e-5
    assert CopyScorer(CausalLM(windowed(None)), 1000).single_pass


def test_a_window_that_is_in_the_configuration_and_not_in_use_is_none() -> None:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, sliding_window=4, use_sliding_window=False))
    scorer = CopyScorer(CausalLM(model), 1000)
    assert scorer.single_pass
    assert difference(scorer(ASKED), reference(model, ASKED)) < 1e-5


def test_a_model_that_does_not_heed_masks_is_asked_prefix_by_prefix(
    make_model: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = make_model(torch.float32)
    plain = model.model.forward

    def deaf(attention_mask: object = None, **others: object) -> object:
        return plain(**others)

    monkeypatch.setattr(model.model, "forward", deaf)
    scorer = CopyScorer(CausalLM(model), 1000)
    assert not scorer.single_pass
    assert difference(scorer(ASKED), reference(model, ASKED)) < 1e-5


def test_rows_share_a_mask_no_larger_than_the_largest(
    make_model: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = make_model(torch.float32), [copies([3, 9, 20], seed) for seed in range(5)]
    scorer = CopyScorer(CausalLM(model), 10_000)
    pairs, mask = [], scorer._mask
    largest = 2 * asked[0].length ** 2
    monkeypatch.setattr(prefix_copies, "_LARGEST_MASK", largest)
    monkeypatch.setattr(scorer, "_mask", lambda seen: pairs.append(seen.numel()) or mask(seen))
    assert difference(scorer(asked), reference(model, asked)) < 1e-5
    assert pairs == [largest, largest, largest // 2]


def test_nothing_to_score_is_no_pass(make_model: Callable[..., nn.Module]) -> None:
    assert CopyScorer(CausalLM(make_model()), 1000)([]) == []
