"""Sampling in this process against a vLLM server on the same processor.

Part of ``rollout.py``. Both engines play the same episodes: a prompt of household text, then turn
by turn what the model said and another piece of such text. In this process all episodes take their
turns together; with the server each asks as soon as it needs its turn. They draw different tokens,
so the turns are not equally long; what is compared is tokens a second, tokens a second of the
processor (which a busy machine changes less), and the seconds that an episode waits for its turn.
Products of matrices have as many threads in both. Before a measurement each engine has played other
episodes.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from agentgym.policies.bundled import resolve_model
from agentgym.policies.hf import HFPolicy
from agentgym.policies.serve import ModelServer
from agentgym.policies.serve_command import Served, ServeOptions
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions
from agentgym.types import Request, Sample

MODELS = ("alfworld-tiny", "smollm2")
AT_ONCE = (1, 8, 32)
TURNS = {"alfworld-tiny": 8, "smollm2": 3}
OPENING, OBSERVATION, ANSWER = (120, 200), (15, 55), 24  # tokens; of an answer at most
CONTEXT = 1024
TEXT = (
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a fridge 1,"
    " a shelf 3, and a sink basin 1. On the shelf 3, you see a mug 1, and a soap bottle 2. The"
    " fridge 1 is closed. You open the drawer 4. In it, you see a knife 1. You arrive at desk 1. "
)


@dataclass(slots=True)
class Played:
    """Episodes, played by one engine."""

    tokens: int  # sampled
    turns: int
    wall: float
    processor: float  # seconds, of the engine and of who asks it
    waited: float  # seconds of all turns together, until each was sampled


class Episodes:
    """Episodes that are played at once, each with a stream of draws of its own."""

    def __init__(self, tokenizer: Any, count: int, name: str) -> None:
        self._words = tokenizer.encode(TEXT * 3, add_special_tokens=False)
        self._names = [f"{name}:{n}" for n in range(count)]
        self._draws = [random.Random(one) for one in self._names]
        self._contexts = [self._read(n, OPENING) for n in range(count)]

    def request(self, n: int, turn: int) -> Request:
        """Return what an episode asks for."""
        name = self._names[n]
        return Request(name, tuple(self._contexts[n]), ANSWER, 1.0, f"{name}:{turn}")

    def hear(self, n: int, sample: Sample) -> None:
        """Add what was said, and what was seen then."""
        self._contexts[n] += [*sample.ids, *self._read(n, OBSERVATION)]

    def _read(self, n: int, between: tuple[int, int]) -> list[int]:
        size = self._draws[n].randint(*between)
        start = self._draws[n].randrange(len(self._words) - size)
        return list(self._words[start : start + size])

    def __len__(self) -> int:
        return len(self._names)


async def in_rounds(policy: HFPolicy, episodes: Episodes, turns: int) -> list[tuple[int, float]]:
    """Play; return the tokens of each turn and how long it was waited for."""
    found = []
    for turn in range(turns):
        begun = time.perf_counter()
        samples = await policy.sample([episodes.request(n, turn) for n in range(len(episodes))])
        waited = time.perf_counter() - begun
        for n, sample in enumerate(samples):
            found.append((len(sample.ids), waited))
            episodes.hear(n, sample)
    return found


async def freely(policy: VLLMPolicy, episodes: Episodes, turns: int) -> list[tuple[int, float]]:
    """Play; return what :func:`in_rounds` returns."""

    async def one(n: int) -> list[tuple[int, float]]:
        found = []
        for turn in range(turns):
            begun = time.perf_counter()
            (sample,) = await policy.sample([episodes.request(n, turn)])
            found.append((len(sample.ids), time.perf_counter() - begun))
            episodes.hear(n, sample)
        return found

    played = await asyncio.gather(*(one(n) for n in range(len(episodes))))
    return [turn for turns_of_one in played for turn in turns_of_one]


def play(
    engine: Callable[[Any, Episodes, int], Coroutine[Any, Any, list[tuple[int, float]]]],
    policy: HFPolicy | VLLMPolicy,
    tokenizer: Any,
    count: int,
    turns: int,
    processor: Callable[[], float],
) -> Played:
    """Play episodes with an engine, after others that do not count."""
    asyncio.run(engine(policy, Episodes(tokenizer, count, "before"), 1))
    wall, work = time.perf_counter(), processor()
    found = asyncio.run(engine(policy, Episodes(tokenizer, count, "counted"), turns))
    wall, work = time.perf_counter() - wall, processor() - work
    tokens, waited = (sum(column) for column in zip(*found, strict=True))
    return Played(int(tokens), len(found), wall, work, waited)


def spent_by(group: int) -> float:
    """Return the processor seconds that the living processes of a group have spent."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name, in parentheses, may have spaces in it.
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def server_of(folder: str, name: str) -> Iterator[ModelServer]:
    """Start vLLM with as many threads as this process has."""
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    served = Served(model=folder, name=name, max_model_len=CONTEXT)
    with (
        tempfile.TemporaryDirectory() as logs,
        ModelServer(served, ServeOptions(), Path(logs) / "vllm.log", print) as server,
    ):
        yield server


def measure_model(name: str) -> dict[int, tuple[Played, Played]]:
    """Return what both engines did, by the number of episodes at once."""
    folder, turns = resolve_model(name), TURNS[name]
    own = HFPolicy.from_pretrained(folder, device="cpu")
    words = own.tokenizer
    with server_of(folder, name) as server:
        with closing(VLLMPolicy(ServerOptions(urls=(server.url,)), words, None)) as vllm:

            def both_processes() -> float:
                return spent_by(server.group) + time.process_time()

            found = {
                count: (
                    play(in_rounds, own, words, count, turns, time.process_time),
                    play(freely, vllm, words, count, turns, both_processes),
                )
                for count in AT_ONCE
            }
        assert not server.restarts
    return found


def measure() -> str:
    """Measure all models and return the comparison as Markdown."""
    before = os.getloadavg()[0]
    lines = [
        f"""## Sampling in this process, and by vLLM on the same processor

Measured {datetime.now(UTC):%Y-%m-%d} by `AGENTGYM_VLLM=.venv-vllm OMP_NUM_THREADS=\
{torch.get_num_threads()} python benchmarks/rollout.py --part engines --write`, {os.cpu_count()} \
cores, load {before:.1f} before, torch {torch.__version__}, float32. Openings of {OPENING[0]} to \
{OPENING[1]} tokens, observations of {OBSERVATION[0]} to {OBSERVATION[1]}, answers of at most \
{ANSWER}; {TURNS["alfworld-tiny"]} turns of alfworld-tiny, {TURNS["smollm2"]} of SmolLM2-135M. \
In this process episodes act in rounds, with vLLM each at its own pace.

| model | episodes at once | engine | turns | tokens sampled | tokens/s | tokens a \
processor second | seconds a turn waits |
|---|---:|---|---:|---:|---:|---:|---:|"""
    ]
    for name in MODELS:
        for count, both in measure_model(name).items():
            lines += [_row(name, count, *one) for one in zip(("hf", "vLLM"), both, strict=True)]
    return "\n".join(lines) + "\n"


def _row(name: str, count: int, engine: str, one: Played) -> str:
    return (
        f"| {name} | {count} | {engine} | {one.turns} | {one.tokens:,} |"
        f" {one.tokens / one.wall:,.1f} | {one.tokens / one.processor:,.1f} |"
        f" {one.waited / one.turns:.2f} |"
    )
