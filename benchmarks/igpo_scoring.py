"""Scoring an answer before each turn: one pass over a trajectory against a pass for each turn.

    python benchmarks/igpo_scoring.py            # measure and print
    python benchmarks/igpo_scoring.py --write    # and write igpo_scoring.md beside this file

Three ways to score K copies of an answer after K prefixes of one row:

- naive: each prefix with its answer goes through the model, as many at once as fit
- single: the row once, the copies behind it, an attention mask (``CopyScorer``)
- cached: keys and values of the row are kept; the row is read turn by turn, and after each
  boundary the answer is read on top of what is kept, which then is cut back

Time is processor time on one thread, which other work on the machine disturbs least; the three in
turn, the best of some rounds. All three must give the same scores.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import torch
from learner import processor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from agentgym.policies.gold_answer import WrittenAnswer
from agentgym.trainers.causal_lm import CausalLM
from agentgym.trainers.prefix_copies import CopyScorer, PrefixCopies

SHAPE = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14}
KV_HEADS, LAYERS, VOCABULARY = 2, 2, 2048
PROMPT, SAID, SEEN = 128, 32, 96  # tokens of the prompt, of a turn, of what it brought
BEFORE, ANSWER = 16, 8  # tokens of what stands before an answer, and of the answer
TOKENS = 4096  # at once
TURNS = (2, 4, 8, 16)
GOAL = 0.7


def model() -> LlamaForCausalLM:
    """Return random weights of the width of a model of half a billion."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=LAYERS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=8192,
        attn_implementation="sdpa",
        **SHAPE,
    )
    return LlamaForCausalLM(config).eval()


def trajectory(turns: int) -> PrefixCopies:
    """Return a row with an answer before each of its turns."""
    rng = random.Random(turns)
    cuts = tuple(PROMPT + k * (SAID + SEEN) for k in range(turns))
    answer = tuple(rng.randrange(VOCABULARY) for _ in range(BEFORE + ANSWER))
    ids = tuple(rng.randrange(VOCABULARY) for _ in range(cuts[-1]))
    return PrefixCopies(ids, cuts, (WrittenAnswer(answer, BEFORE),) * turns)


@torch.no_grad()
def cached(lm: LlamaForCausalLM, row: PrefixCopies) -> list[float]:
    """Score each answer on top of the keys and values of its prefix."""
    cache = DynamicCache(config=lm.config)
    scores = []
    for (begin, cut), tail in zip(pairwise((0, *row.cuts)), row.tails, strict=True):
        lm.model(input_ids=torch.tensor([row.ids[begin:cut]]), past_key_values=cache)
        ids = torch.tensor(tail.ids)
        hidden = lm.model(input_ids=ids[None], past_key_values=cache).last_hidden_state[0]
        logp = lm.lm_head(hidden[tail.start - 1 : -1]).log_softmax(-1)
        scores.append(logp.gather(1, ids[tail.start :, None]).mean().item())
        cache.crop(-len(tail.ids))
    return scores


def measure(turns: int, lm: LlamaForCausalLM, rounds: int) -> dict[str, float]:
    """Return the best seconds of each way, and the tokens of two of them."""
    row = trajectory(turns)
    scorer = CopyScorer(CausalLM(lm), TOKENS)
    assert scorer.single_pass

    def by_scorer(single_pass: bool) -> list[float]:
        scorer.single_pass = single_pass
        return scorer([row])[0]

    ways: dict[str, Callable[[], list[float]]] = {
        "naive": lambda: by_scorer(False),
        "single": lambda: by_scorer(True),
        "cached": lambda: cached(lm, row),
    }
    best = dict.fromkeys(ways, float("inf"))
    scores: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.process_time()
            scores[name] = way()
            best[name] = min(best[name], time.process_time() - begun)
    apart = torch.tensor(scores["naive"])
    for name in ("single", "cached"):
        assert (torch.tensor(scores[name]) - apart).abs().max() < 1e-4
    naive = sum(part.length for part in row.apart())
    return {**best, "naive tokens": float(naive), "single tokens": float(row.length)}


def table(rounds: int) -> list[str]:
    """Measure all numbers of turns and return the lines of a table."""
    lines = [
        "| turns | tokens, naive | tokens, single | their ratio"
        " | naive, s | single, s | cached, s | naive / single | of the ratio | cached / single |",
        "|" + "---|" * 10,
    ]
    lm = model()
    for turns in TURNS:
        found = measure(turns, lm, rounds)
        fewer = found["naive tokens"] / found["single tokens"]
        faster = found["naive"] / found["single"]
        lines.append(
            f"| {turns} | {found['naive tokens']:.0f} | {found['single tokens']:.0f} |"
            f" {fewer:.2f} | {found['naive']:.2f} | {found['single']:.2f} | {found['cached']:.2f} |"
            f" **{faster:.2f}** | {faster / fewer:.2f} |"
            f" {found['cached'] / found['single']:.2f} |"
        )
    return lines


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write igpo_scoring.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = [
        "# Scoring an answer before each turn in one pass",
        "",
        f"`python benchmarks/igpo_scoring.py --rounds {options.rounds} --write`: a Llama-shaped"
        f" model of width {SHAPE['hidden_size']}, intermediate {SHAPE['intermediate_size']},"
        f" {SHAPE['num_attention_heads']} heads ({KV_HEADS} for keys and values), {LAYERS} layers,"
        f" vocabulary {VOCABULARY}, float32, scaled dot product attention. A prompt of {PROMPT}"
        f" tokens, turns of {SAID}, what each brings of {SEEN}; {BEFORE} tokens before an answer of"
        f" {ANSWER}. At most {TOKENS} tokens go through the model at once.",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, one thread, processor"
        f" time, {processor()}. Goal: naive / single at least {GOAL} of the ratio of their tokens."
        " Scores agree within 1e-4. Naive passes go together, padded to the longest of a batch;"
        " their tokens are counted without padding.",
        "",
        *table(options.rounds),
    ]
    print("\n".join(report))
    if options.write:
        Path(__file__).with_suffix(".md").write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
