"""A policy that vLLM servers answer for, over HTTP; nothing of vLLM is imported.

Each episode asks for its turns as soon as it needs them, and stays with one server, which keeps the
keys and values of its prefix (:mod:`agentgym.policies.vllm_fleet`). Turns are sampled with the
seeds that a policy in this process would use, but by other draws, and in batches that timing makes:
a served run repeats tasks and seeds, not tokens.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from agentgym.errors import ContextOverflow, UsageError
from agentgym.policies.vllm_fleet import Fleet, all_of
from agentgym.policies.vllm_http import ServerOptions
from agentgym.policies.vllm_loop import LoopThread
from agentgym.policies.vllm_replica import Answer, Replica, Way
from agentgym.policies.vllm_transfer import Source
from agentgym.policies.vllm_wire import Said, completion, read_choices
from agentgym.types import Request, Sample

_PROBE_ROWS, _PROBE_TOKENS = 2, 24


class Decoder(Protocol):
    """What is needed of a tokenizer."""

    def __len__(self) -> int:
        """Return how many tokens there are."""

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of ids, special tokens too."""


@dataclass(slots=True)
class Spent:
    """What sampling took so far."""

    seconds: float = 0.0  # in which at least one turn was being sampled


class VLLMPolicy:
    """One model on one or more vLLM servers.

    Args:
        options: The servers, and how they are treated.
        tokenizer: The model's own.
        way: How weights get there: ``disk`` reloads those of a folder, ``lora`` loads an adapter,
            ``nccl`` takes those that are sent. None is for evaluation: the servers keep the weights
            that they have, may be started without any flag, and may return log-probabilities of
            temperature 1.
        version: Of the weights that the servers have now.
        source: Who sends them, where the way is ``nccl``.

    Attributes:
        spent: What sampling took so far.
        probe: Rows of fixed tokens, by which server and trainer are compared.

    Raises:
        UsageError: There is no URL, or one is none.
        ServerError: A server cannot be used; the message says what was found and what to do.
    """

    pacing: Literal["rounds", "free"] = "free"

    def __init__(
        self,
        options: ServerOptions,
        tokenizer: Decoder,
        way: Way | None = "disk",
        version: int = 0,
        source: Source | None = None,
    ) -> None:
        if not options.urls:
            raise UsageError("no server is named; give one as --server http://HOST:PORT")
        self.version = version
        self.spent = Spent()
        self.probe = probe_rows(len(tokenizer))
        self._tokenizer = tokenizer
        self._sampling, self._busy_since = 0, 0.0
        # What is not trained on needs no log-probabilities of its temperature.
        self._cools_first: bool | None = True if way is None else None
        self._thread = LoopThread()
        try:
            self._fleet = self._thread.run(self._connect(options, way, source))
        except BaseException:
            self._thread.close(all_of([]))
            raise
        self.max_context = min(replica.max_context for replica in self._fleet.replicas)

    # Acting -----------------------------------------------------------------------------------

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        """Sample one turn for each request; see :class:`agentgym.types.Policy`.

        Requests of one call with the same prompt go to the server as one, for several samples: for
        who holds several at once. A rollout asks for each turn by itself, as soon as an episode
        needs it.

        Raises:
            UsageError: A session is named twice, or the servers return no log-probabilities at
                this temperature.
            ContextOverflow: A request does not fit into the context.
            ServerError: A server refused, stayed away, or lost a turn three times.
        """
        self._check(requests)
        return await self._thread.wait(self._sample_all(requests))

    async def score(self, ids: Sequence[Sequence[int]], start: Sequence[int]) -> list[list[float]]:
        """Return log-probabilities at temperature 1 of each row's tokens from ``start`` on.

        Raises:
            UsageError: A start is 0 or outside its row: a first token has no probability.
            ContextOverflow: A row leaves no room for the one token that vLLM samples beside.
            ServerError: As for :meth:`sample`.
        """
        for row, first in zip(ids, start, strict=True):
            if not 1 <= first <= len(row):
                raise UsageError(
                    f"scoring starts at token {first} of {len(row)}; expected 1 or more"
                )
            if len(row) >= self.max_context:
                raise ContextOverflow(
                    f"a row of {len(row)} tokens is to be scored; the servers read less than"
                    f" {self.max_context}"
                )
        return await self._thread.wait(self._fleet.score(ids, start))

    def fork(self, session: str, copy: str) -> None:
        """Let ``copy`` go to the server that keeps the prefix of ``session``."""
        self._thread.soon(self._fleet.fork, session, copy)

    def drop(self, session: str) -> None:
        """Forget a session. Dropping one that is not there does nothing."""
        self._thread.soon(self._fleet.drop, session)

    # Weights ----------------------------------------------------------------------------------

    def load(self, path: str | None, version: int) -> None:
        """Let every server take the weights of a folder; it must see the folder under that path.

        The folder is needed as long as these are the weights: a server that is restarted is given
        them again. Turns that are being sampled are sampled to their end by the weights before.

        Args:
            path: The folder; None where the weights are sent (``nccl``).
            version: Theirs.

        Raises:
            DataError: There are no weights in the folder.
            ServerError: A server did not take them.
        """
        self._thread.run(self._fleet.load(path, version))
        self.version = version

    def sleep(self) -> None:
        """Let the servers leave their GPUs until :meth:`load`, which wakes them.

        Turns that are being sampled are sampled to their end first; none may be asked for then.

        Raises:
            ServerError: A server stayed away, or does not go to sleep.
        """
        self._thread.run(self._fleet.sleep())

    def fingerprints(self) -> dict[str, list[list[float]]]:
        """Return by URL what each server said of :attr:`probe` after the last load.

        They are the log-probabilities of each row's tokens from the second on. Of a server that
        was gone at the load it is what it must answer when it is back.
        """
        return {replica.url: replica.fingerprint for replica in self._fleet.replicas}

    def check_temperature(self, temperature: float) -> None:
        """Refuse a temperature at which the servers return log-probabilities of another one.

        Raises:
            UsageError: They return those before the temperature.
        """
        self._thread.run(self._check_temperature(temperature))

    def close(self) -> None:
        """Hang up, also on turns that are being sampled. Closing twice is closing once."""
        if self._thread.closed:
            return
        self._thread.close(self._fleet.close())

    # Inside -----------------------------------------------------------------------------------

    async def _connect(
        self, options: ServerOptions, way: Way | None, source: Source | None
    ) -> Fleet:
        run = uuid.uuid4().hex[:6]
        replicas = [Replica(url, options, self.probe, run, self.version) for url in options.urls]
        try:
            # Only who trains takes turns with the server, and so knows that the GPU is free.
            wake = way is not None
            await all_of([replica.connect(way, source, wake=wake) for replica in replicas])
        except BaseException:
            await all_of([replica.close() for replica in replicas])
            raise
        return Fleet(replicas)

    def _check(self, requests: Sequence[Request]) -> None:
        if len({request.session for request in requests}) < len(requests):
            raise UsageError("two requests of one call name the same session; a session acts once")
        for request in requests:
            whole = len(request.ids) + request.max_tokens
            if not request.ids or request.max_tokens < 1 or whole > self.max_context:
                raise ContextOverflow(
                    f"a request of {len(request.ids)} tokens and at most {request.max_tokens} new"
                    f" ones; the model has room for 1 and 1 up to {self.max_context} together"
                )

    async def _check_temperature(self, temperature: float) -> None:
        if temperature in (0.0, 1.0) or self._cools_first:
            return
        found = await all_of([replica.cools_first() for replica in self._fleet.replicas])
        self._cools_first = all(found)
        if not self._cools_first:
            raise UsageError(
                f"at temperature {temperature} the server would return log-probabilities of"
                " temperature 1; start it with --logprobs-mode processed_logprobs (agentgym serve"
                " does)"
            )

    async def _sample_all(self, requests: Sequence[Request]) -> list[Sample]:
        """Sample in the loop that all servers belong to, so that rollouts may overlap."""
        for temperature in {request.temperature for request in requests}:
            await self._check_temperature(temperature)
        groups = self._same_prompts(requests)
        with self._busy():
            found = await all_of([self._sample(alike) for alike in groups])
        samples = {
            request.session: sample
            for alike, said in zip(groups, found, strict=True)
            for request, sample in zip(alike, said, strict=True)
        }
        return [samples[request.session] for request in requests]

    def _same_prompts(self, requests: Sequence[Request]) -> list[list[Request]]:
        groups: dict[object, list[Request]] = {}
        for request in requests:
            alike = replace(request, session="", seed="")
            groups.setdefault((alike, self._fleet.home(request.session).url), []).append(request)
        return list(groups.values())

    async def _sample(self, alike: Sequence[Request]) -> list[Sample]:
        """Sample requests that differ only in their sessions and seeds; the first seed is used."""
        first, n = alike[0], len(alike)
        answer = await self._fleet.ask(
            first.session,
            # No prefix that other weights read is read again.
            lambda model, version: completion(first, model, f"v{version}", n),
            lambda answer: read_choices(answer, first, n),
        )
        return [self._as_sample(said, first, answer) for said in answer.found]

    def _as_sample(self, said: Said, request: Request, answer: Answer[list[Said]]) -> Sample:
        size = self._end(said, request)
        return Sample(
            said.ids[:size],
            said.logprobs[:size],
            None if said.entropies is None else said.entropies[:size],
            "stop" if size < len(said.ids) else said.finish,
            answer.version,
            answer.losses,
        )

    def _end(self, said: Said, request: Request) -> int:
        """Return how many tokens there are up to the first stop string.

        The server looks for stop strings in what it samples; of a turn in pieces one may have
        begun before.
        """
        if not request.begun or not request.stop:
            return len(said.ids)

        def stops(size: int) -> bool:
            text = self._tokenizer.decode([*request.said, *said.ids[:size]])
            return any(stop in text for stop in request.stop)

        if not stops(len(said.ids)):
            return len(said.ids)
        return next(size for size in range(1, len(said.ids) + 1) if stops(size))

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Count the time in which something is sampled, once."""
        if not self._sampling:
            self._busy_since = time.perf_counter()
        self._sampling += 1
        try:
            yield
        finally:
            self._sampling -= 1
            if not self._sampling:
                self.spent.seconds += time.perf_counter() - self._busy_since


def probe_rows(vocabulary: int) -> tuple[tuple[int, ...], ...]:
    """Return rows of fixed tokens, drawn from all there are: their probabilities differ widely."""
    draws = random.Random(f"probe of {vocabulary}")
    row = range(_PROBE_TOKENS)
    return tuple(tuple(draws.randrange(vocabulary) for _ in row) for _ in range(_PROBE_ROWS))
