"""Broken inputs made of good ones: bytes are flipped, cut, doubled and mixed, by a seed.

Neither hypothesis nor atheris makes them: docs/decisions/0016-own-mutator.md says why.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

WORDS = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"Infinity", b"0.1", b"9" * 5000, b'"', b"\\",
    b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", "\u202e\u2028".encode(), b"\x1b[2J", b"\r\n",
    b"{", b"}", b"[]", b"{}", b'""', b"[" * 3000, b'{"a":' * 3000, b"(" * 3000,
    b"../../../etc/passwd", b"/etc/passwd", b"~root/x", b"C:\\x", b"%s%n", b"{0.__class__}",
    b"{observation:>99999999}",
    b"<think>" * 2000, b"<action>" * 2000, b"</think>", b"<answer>" * 2000, b"<tool_call>" * 2000,
    b"\\boxed{" * 2000, b"<|im_end|>", b"<|im_start|>system\n", b"file:///etc/passwd", b"=", b"\n",
)  # fmt: skip
"""What has broken readers before."""


def inputs(seed: str, samples: Sequence[bytes], count: int) -> Iterator[bytes]:
    """Yield so many inputs: the samples themselves, then what becomes of them.

    Args:
        seed: The n-th input is a function of it and of the samples.
        samples: Good inputs, or nearly.
        count: How many.
    """
    rng = random.Random(seed)
    for number in range(count):
        if number < len(samples):
            yield samples[number]
            continue
        content = bytearray(rng.choice(samples))
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
            _mutate(content, samples, rng)
        yield bytes(content)


def _mutate(content: bytearray, samples: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + int(rng.expovariate(1 / 20)))
    kind = rng.randrange(8)
    if kind == 0 and at < len(content):
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        content[at:end] = rng.randbytes(rng.randrange(1, 9))
    elif kind == 2:
        del content[at:end]
    elif kind == 3:
        content[at:at] = content[at:end] * rng.choice((1, 2, 10, 100))
    elif kind == 4:
        content[at:end] = rng.choice(WORDS)
    elif kind == 5:
        content[at:at] = rng.choice(WORDS)
    elif kind == 6:
        other = rng.choice(samples)
        begin = rng.randrange(len(other) + 1)
        content[at:end] = other[begin : begin + int(rng.expovariate(1 / 50))]
    else:
        del content[at:]
