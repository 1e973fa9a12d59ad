"""What a rollout costs: keys and values kept between turns, pace, engines.

    python benchmarks/rollout.py --part cache --write
    python benchmarks/rollout.py --part pacing --write
    AGENTGYM_VLLM=.venv-vllm python benchmarks/rollout.py --part engines --write

``--write`` puts a part into ``rollout.md``, between the two comments that say so. Pacing is told in
``pacing.py``; it takes nine minutes, most of them asleep. Engines are told in ``engines.py``; they
want vLLM, which `make test-vllm` installs, and the extra ``smollm2``, and take some minutes.

Of the cache: the same episodes are played twice by the same model, with and without it: a tiny
Llama of the bundled model's shape with random weights, contexts that grow, and observations of
random tokens as long as those of household games. Both ways sample the same turns. Times are of
the processor and of one thread, so that a busy machine does not change what is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import engines
import pacing
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from agentgym.policies.hf import HFPolicy, Spent
from agentgym.types import Request

EPISODES = 64
TURNS = 20
OPENING = (120, 200)  # tokens of a first observation, with the task
OBSERVATION = (15, 55)  # of a later one
ANSWER = (4, 12)  # sampled, at most
VOCABULARY = 2048
END = 1


class Tokenizer:
    """All that sampling asks of a tokenizer when no stop strings are wanted."""

    eos_token_id = END


@dataclass(frozen=True)
class Played:
    """Episodes, played."""

    spent: Spent
    seconds: float
    said: tuple[tuple[int, ...], ...]


def model() -> LlamaForCausalLM:
    """Return a model of the bundled one's shape, with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=END,
    )
    return LlamaForCausalLM(config).eval()


def tokens(draw: random.Random, between: tuple[int, int]) -> list[int]:
    """Return random tokens, so and so many."""
    return [draw.randrange(2, VOCABULARY) for _ in range(draw.randint(*between))]


def play(shared: LlamaForCausalLM, keep: bool) -> Played:
    """Play all episodes in rounds, as a rollout does."""
    policy = HFPolicy(shared, Tokenizer(), keep=keep, clock=time.process_time)
    draws = [random.Random(n) for n in range(EPISODES)]
    contexts = [tokens(draw, OPENING) for draw in draws]
    said: list[tuple[int, ...]] = []
    begun = time.process_time()
    for turn in range(TURNS):
        requests = [
            Request(f"{n}", tuple(ids), draws[n].randint(*ANSWER), 1.0, f"{n}:{turn}")
            for n, ids in enumerate(contexts)
        ]
        for n, sample in enumerate(asyncio.run(policy.sample(requests))):
            said.append(sample.ids)
            contexts[n] += [*sample.ids, *tokens(draws[n], OBSERVATION)]
    return Played(policy.spent, time.process_time() - begun, tuple(said))


def table(kept: Played, fresh: Played) -> str:
    """Return the comparison as Markdown."""
    prefill, again = kept.spent.prefill_seconds, fresh.spent.prefill_seconds
    read, reread = kept.spent.prompt_tokens, fresh.spent.prompt_tokens
    decode, decode_again = kept.spent.decode_seconds, fresh.spent.decode_seconds
    each, each_again = kept.seconds / EPISODES, fresh.seconds / EPISODES
    same = sum(a == b for a, b in zip(kept.said, fresh.said, strict=True))
    return f"""## What keeping keys and values from turn to turn saves

Measured {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/rollout.py --part cache --write`, one \
thread, processor time, Python {platform.python_version()}, torch {torch.__version__}, \
transformers {transformers.__version__}: {EPISODES} episodes of {TURNS} turns in rounds, a random \
Llama of the bundled model's shape (hidden 128, 4 layers, 4 heads, vocabulary {VOCABULARY}), \
openings of {OPENING[0]} to {OPENING[1]} tokens, observations of {OBSERVATION[0]} to \
{OBSERVATION[1]}, answers of {ANSWER[0]} to {ANSWER[1]}.

| | kept | read again | ratio | goal |
|---|---:|---:|---:|---:|
| prompt tokens through the model | {read:,} | {reread:,} | {reread / read:.1f}x | ≥ 8x |
| prefill, s | {prefill:.2f} | {again:.2f} | {again / prefill:.1f}x | ≥ 4x |
| decoding, s | {decode:.2f} | {decode_again:.2f} | {decode_again / decode:.1f}x | |
| an episode, ms | {each * 1e3:.0f} | {each_again * 1e3:.0f} | {each_again / each:.1f}x | |

{kept.spent.sampled_tokens:,} tokens sampled. {same:,} of {len(kept.said):,} turns were the same \
tokens both ways.
"""


def cache() -> str:
    """Return what keeping keys and values saves."""
    shared = model()
    play(shared, keep=True)  # so that neither side pays for first calls
    return table(play(shared, keep=True), play(shared, keep=False))


PARTS = {"cache": cache, "pacing": pacing.measure, "engines": engines.measure}


def write(part: str, section: str) -> None:
    """Put a section into the file, in place of what was there of that part."""
    path = Path(__file__).with_suffix(".md")
    begin, end = (f"<!-- written by rollout.py, {part}: {edge} -->" for edge in ("begin", "end"))
    before, _, rest = path.read_text().partition(begin)
    path.write_text(f"{before}{begin}\n\n{section}\n{end}{rest.partition(end)[2]}")


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; repeatable")
    parser.add_argument("--write", action="store_true", help="write rollout.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.part or PARTS:
        section = PARTS[part]()
        print(section, flush=True)
        if options.write:
            write(part, section)


if __name__ == "__main__":
    main()
