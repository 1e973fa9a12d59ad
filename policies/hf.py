"""A model of transformers that acts inside this process, and shares its weights with a learner.

Turns are sampled in rounds: all requests of a call go through the model together. First what is
new in each context is read, in passes of a bounded number of tokens; then all unfinished turns
are decoded a token at a time, and finished ones leave the batch. Keys and values are kept by
session, so that a later turn reads only what came since.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from agentgym.errors import DataError, UsageError
from agentgym.policies.draw import draw
from agentgym.policies.engine import Part, make_engine
from agentgym.policies.precision import Compute, computing
from agentgym.policies.prompt import Prompt, saved_prompt
from agentgym.types import Request, Sample

_TINY = 20_000_000  # parameters below which one thread is enough
_LOGITS_AT_ONCE = 2**25  # entries of one [tokens, vocabulary] tensor: 128 MB in float32


@dataclass(slots=True)
class Spent:
    """What sampling took so far."""

    prompt_tokens: int = 0  # that went through the model; kept ones did not
    kept_tokens: int = 0  # of prompts, that were kept from earlier turns
    sampled_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.prefill_seconds + self.decode_seconds


class HFPolicy:
    """A causal language model of transformers, in this process.

    Args:
        model: Shared, not copied. Whoever changes its weights calls :meth:`refresh`.
        tokenizer: Says which tokens end a turn, and decodes where stop strings are asked for.
        prompt: What the model was trained to read, if it is known; saved beside the weights.
        version: Of the weights.
        prefill_tokens: How many tokens of prompts go through the model at once.
        keep: Whether keys and values are kept from turn to turn.
        clock: What the seconds of :attr:`spent` are read from.
        compute: What products are computed in.

    Attributes:
        spent: What sampling took so far.
    """

    pacing: Literal["rounds", "free"] = "rounds"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        prompt: Prompt | None = None,
        version: int = 0,
        prefill_tokens: int = 4096,
        keep: bool = True,
        clock: Callable[[], float] = time.perf_counter,
        compute: Compute = "float32",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.version = version
        self.max_context = max_context_of(model.config)
        self.spent = Spent()
        self._prefill_tokens = prefill_tokens
        self._keep = keep
        self._clock = clock
        self._compute = compute
        self._ends = _end_tokens(model, tokenizer)
        self._engine = make_engine(model)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        compute: Compute = "float32",
    ) -> HFPolicy:
        """Load a model folder or a model of the hub.

        Args:
            name: A folder with config, weights and tokenizer, or a hub id.
            device: Where it goes; None takes the first GPU, or the CPU where there is none.
            dtype: Of the weights. In float32, log-probabilities equal the learner's to 1e-5.
            compute: What products are computed in, whatever the weights are.

        Raises:
            DataError: Something is missing or broken; the message says what.
        """
        model, tokenizer = load_model(name, dtype), load_tokenizer(name)
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        prompt = saved_prompt(Path(name)) if Path(name).is_dir() else None
        model.to(torch.device(where))  # type: ignore[arg-type] # transformers' stub
        return cls(model, tokenizer, prompt, compute=compute)

    def save(self, folder: Path, model: PreTrainedModel | None = None) -> None:
        """Write weights, tokenizer and prompt as a folder that ``from_pretrained`` opens.

        Args:
            folder: Is made if need be.
            model: Whose weights are written; None writes the policy's own.
        """
        (self.model if model is None else model).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.prompt is not None:
            self.prompt.save(folder)

    # Acting -----------------------------------------------------------------------------------

    async def sample(self, requests: Sequence[Request]) -> list[Sample]:
        """Sample one turn for each request; see :class:`agentgym.types.Policy`.

        A turn depends on its seed and its logits only.

        Raises:
            UsageError: A session is named twice, or a request does not fit into the context.
        """
        self._check(requests)
        with self._inference():
            turns = [_SampledTurn(request) for request in requests]
            self._decode(turns, self._prefill(requests))
            if not self._keep:
                self._engine.clear()
        return [turn.sample(self.version) for turn in turns]

    async def score(self, ids: Sequence[Sequence[int]], start: Sequence[int]) -> list[list[float]]:
        """Return log-probabilities at temperature 1 of each row's tokens from ``start`` on.

        Raises:
            UsageError: A start is 0 or outside its row: a first token has no probability.
        """
        for row, first in zip(ids, start, strict=True):
            if not 1 <= first <= len(row):
                raise UsageError(
                    f"scoring starts at token {first} of {len(row)}; expected 1 or more"
                )
        with self._inference():
            return [self._score(row, first) for row, first in zip(ids, start, strict=True)]

    def fork(self, session: str, copy: str) -> None:
        """Let ``copy`` begin with what is kept for ``session``."""
        self._engine.fork(session, copy)

    def drop(self, session: str) -> None:
        """Forget a session. Dropping one that is not there does nothing."""
        self._engine.drop(session)

    # Weights ----------------------------------------------------------------------------------

    def refresh(self, version: int) -> None:
        """Say that the shared weights were changed: what was kept for older ones is dropped."""
        self.version = version
        self._engine.clear()

    def load(self, path: str, version: int) -> None:
        """Take the weights of a model folder.

        Raises:
            DataError: The folder is none, or its weights have other names or shapes.
        """
        state = load_model(path, self.model.dtype).state_dict()
        try:
            self.model.load_state_dict(state)
        except RuntimeError as error:
            raise DataError(f"the weights of {path} do not fit the model: {error}") from error
        self.refresh(version)

    def close(self) -> None:
        """Release the keys and values. The model belongs to whoever gave it."""
        self._engine.release()

    # Inside -----------------------------------------------------------------------------------

    def _check(self, requests: Sequence[Request]) -> None:
        if len({request.session for request in requests}) < len(requests):
            raise UsageError("two requests of one call name the same session; a session acts once")
        for request in requests:
            whole = len(request.ids) + request.max_tokens
            if not request.ids or request.max_tokens < 1 or whole > self.max_context:
                raise UsageError(
                    f"a request of {len(request.ids)} tokens and at most {request.max_tokens} new"
                    f" ones; the model has room for 1 and 1 up to {self.max_context} together"
                )

    @contextmanager
    def _inference(self) -> Iterator[None]:
        training = self.model.training
        self.model.train(False)
        try:
            with torch.inference_mode(), computing(self.model.device, self._compute):
                yield
        finally:
            self.model.train(training)

    def _prefill(self, requests: Sequence[Request]) -> Tensor:
        """Read what is new in each context; return the logits after the last token of each."""
        begun = self._clock()
        fresh: list[Part] = []
        for request in requests:
            kept = self._engine.rewind(request.session, request.ids)
            fresh.append(Part(request.session, request.ids[kept:]))
            self.spent.kept_tokens += kept
            self.spent.prompt_tokens += len(request.ids) - kept
        logits = torch.cat([self._engine.feed(parts) for parts in self._passes(fresh)])
        self.spent.prefill_seconds += self._clock() - begun
        return logits

    def _passes(self, parts: Iterable[Part]) -> Iterator[list[Part]]:
        """Cut the new tokens into passes of at most so many, in order; only ends give logits."""
        now: list[Part] = []
        room = self._prefill_tokens
        for session, ids, logits in parts:
            for first in range(0, len(ids), self._prefill_tokens):
                piece = ids[first : first + self._prefill_tokens]
                if len(piece) > room:
                    yield now
                    now, room = [], self._prefill_tokens
                last = first + len(piece) == len(ids)
                now.append(Part(session, piece, logits if last else 0))
                room -= len(piece)
        if now:
            yield now

    def _decode(self, turns: Sequence[_SampledTurn], logits: Tensor) -> None:
        """Draw tokens until every turn is finished; ``logits`` are those of the first token."""
        begun = self._clock()
        unfinished = list(turns)
        while True:
            drawn = draw(
                logits,
                [turn.request.temperature for turn in unfinished],
                [turn.random.random() for turn in unfinished],
                [turn.request.top_k for turn in unfinished],
            )
            for turn, token, logprob, entropy in zip(unfinished, *drawn, strict=True):
                turn.take(token, logprob, entropy)
                turn.finish = self._finish(turn)
            self.spent.sampled_tokens += len(unfinished)
            unfinished = [turn for turn in unfinished if turn.finish is None]
            if not unfinished:
                break
            logits = self._engine.feed(
                [Part(turn.request.session, turn.ids[-1:]) for turn in unfinished]
            )
        self.spent.decode_seconds += self._clock() - begun

    def _finish(self, turn: _SampledTurn) -> Literal["stop", "length"] | None:
        if turn.ids[-1] in self._ends:
            return "stop"
        if turn.request.stop:
            text = self.tokenizer.decode([*turn.request.said, *turn.ids])
            if any(stop in text for stop in turn.request.stop):
                return "stop"
        return "length" if len(turn.ids) >= turn.request.max_tokens else None

    def _score(self, ids: Sequence[int], start: int) -> list[float]:
        session = "\0score"  # no episode's name
        size = int(self.model.config.get_text_config().vocab_size)
        at_once = max(1, min(self._prefill_tokens, _LOGITS_AT_ONCE // size))
        scores: list[float] = []
        self._engine.drop(session)
        for first in range(0, len(ids) - 1, at_once):
            piece = ids[first : min(first + at_once, len(ids) - 1)]
            # Logits after token t are about token t + 1.
            wanted = min(len(piece), max(0, first + len(piece) - (start - 1)))
            logits = self._engine.feed([Part(session, piece, wanted)])
            following = ids[first + len(piece) - wanted + 1 : first + len(piece) + 1]
            target = torch.tensor(following, device=logits.device, dtype=torch.long)[:, None]
            scores += logits.float().log_softmax(-1).gather(1, target)[:, 0].tolist()
        self._engine.drop(session)
        return scores


@dataclass(slots=True)
class _SampledTurn:
    """A turn while it is sampled."""

    request: Request
    random: random.Random = field(init=False)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.request.seed)
        for _ in self.request.said:
            self.random.random()

    def take(self, token: int, logprob: float, entropy: float) -> None:
        """Append a token."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.entropies.append(entropy)

    def sample(self, version: int) -> Sample:
        """Return the finished turn."""
        assert self.finish is not None
        return Sample(
            tuple(self.ids),
            tuple(self.logprobs),
            tuple(self.entropies),
            self.finish,
            version,
        )


def spare_threads(model: PreTrainedModel) -> None:
    """Let torch use one thread where the model is too small for more, for the whole process.

    A product of small matrices takes less time than threads take to meet after it: with two of
    them a tiny model is sampled no faster on an idle machine, and ten times slower on a busy one.
    ``OMP_NUM_THREADS`` in the environment is left to have its way.
    """
    if model.num_parameters() < _TINY and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def load_model(name: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """Load the weights of a model folder or hub id.

    Raises:
        DataError: There is no such model, or it is incomplete; in one line.
    """
    check_folder(Path(name))
    disable_progress_bar()  # type: ignore[no-untyped-call] # a model is loaded in a blink
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = _first_line(error)
        if "ignore_mismatched_sizes" in why:  # a setting that nobody here could change
            why = "its weights have other shapes than its config.json says"
        raise DataError(f"cannot load the model {name}: {why}") from error


def check_folder(folder: Path) -> None:
    """Refuse a folder that is there and holds no model; what is no folder may be a hub id.

    Raises:
        DataError: The configuration or the weights are missing.
    """
    if not folder.is_dir():
        return
    if not (folder / "config.json").exists():
        raise DataError(f"{folder} is no model folder: it has no config.json")
    if not any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir()):
        raise DataError(f"the model folder {folder} has no weights (*.safetensors or *.bin)")


def load_tokenizer(name: str | Path) -> Any:
    """Load the tokenizer of a model folder or hub id.

    Raises:
        DataError: There is none, or it is broken; in one line.
    """
    folder = Path(name)
    files = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    if folder.is_dir() and not any((folder / file).exists() for file in files):
        raise DataError(f"the model folder {folder} has no tokenizer ({' or '.join(files)})")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"cannot load the tokenizer of {name}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def max_context_of(config: PreTrainedConfig) -> int:
    """Return how many tokens a model of this configuration reads."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(found) if found else 2**31  # state-space models have no positions to run out of


def _end_tokens(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a turn, as the tokenizer and the model's own settings say."""
    settings: GenerationConfig | None = model.generation_config
    found = None if settings is None else settings.eos_token_id
    ends = {tokenizer.eos_token_id, *(found if isinstance(found, list) else [found])} - {None}
    if not ends:
        raise UsageError(
            "neither the tokenizer nor generation_config.json names a token that ends a turn;"
            " set eos_token in the tokenizer"
        )
    return frozenset(ends)
