"""Whether a vLLM server would do for a run: its version, its flags, its model, its context."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from agentgym.budget import Budget, budget_of
from agentgym.config import Config
from agentgym.doctor_finding import Finding, Level
from agentgym.errors import AgentGymError, DataError, ServerError
from agentgym.models import check_context
from agentgym.policies.bundled import resolve_model
from agentgym.policies.vllm_http import ServerOptions
from agentgym.policies.vllm_replica import Replica, Way
from agentgym.policies.vllm_sleep import Asleep
from agentgym.trainers.handover import way_of

_TOKENS = 32
_OTHER_WEIGHTS = 0.5  # nats; another precision differs by less, another model by several
_WAYS: tuple[Way, ...] = ("disk", "lora")


def server_findings(url: str, model: str | None, config: Config | None) -> Iterator[Finding]:
    """Ask a server what a run would ask.

    Args:
        url: Where it is.
        model: What it should serve, to be compared with; None compares nothing.
        config: Of the run that it should serve; None asks for what runs may need.
    """
    yield from asyncio.run(_look(url, model, config))


def context_findings(config: Config) -> Iterator[Finding]:
    """Compare what episodes of a run may come to with the contexts that it allows."""
    peek = import_module("agentgym.policies.peek").peek
    try:
        model = peek(resolve_model(config.policy.model))
        check_context(config.policy.model, model, config.policy.sampling)
    except AgentGymError as error:
        yield Finding("FAIL", "context", _line(error), _TRAIN)
        return
    for name, asked in config.envs.items():
        try:
            yield _fits(budget_of(config, name, model))
        except DataError as error:
            yield Finding("FAIL", asked.suite, _line(error), f"agentgym envs download {name}")
        except AgentGymError as error:
            yield Finding("FAIL", "context", _line(error), _TRAIN)


def _fits(budget: Budget) -> Finding:
    fits = budget.whole <= budget.room
    mend = None if fits else _more_room(budget)
    return Finding("ok" if fits else "note", "context", str(budget), mend)


def _line(error: AgentGymError) -> str:
    return " ".join(str(error).split())


_TRAIN = "agentgym train --set KEY=VALUE … --dry-run"


def _more_room(budget: Budget) -> str:
    rebuilt = " or policy.context='window(2)'" if budget.grows else ""
    return f"agentgym train --set policy.sampling.max_context={budget.whole}{rebuilt} …"


async def _look(url: str, model: str | None, config: Config | None) -> list[Finding]:
    sleep = config is not None and config.policy.server.sleep
    options = ServerOptions(urls=(url,), patience=0, timeout=60, sleep=sleep)
    serve = f"agentgym serve {model or 'MODEL'}"
    needed = _needed(config)
    found: list[Finding] = []
    usable: list[Way] = []
    for way in _WAYS:
        replica = Replica(url, options, ((1, 2, 3, 4),), "doctor")
        try:
            found += await _connect(replica, way)
            if not usable:
                found += await _compare(replica, model, config, serve)
            usable.append(way)
        except Asleep as error:
            return [*found, Finding("note", "server", str(error))]
        except ServerError as error:
            level: Level = "FAIL" if way == needed else "note"
            more = " --lora-rank 16" if way == "lora" else ""
            found.append(Finding(level, _about(way), str(error), serve + more))
        finally:
            await replica.close()
    if usable:
        return found
    if len({finding.said for finding in found}) == 1:  # the server itself, and neither way
        return [Finding("FAIL", "server", found[0].said, serve)]
    return [Finding("FAIL", finding.about, finding.said, finding.mend) for finding in found]


def _needed(config: Config | None) -> Way | None:
    """Return how weights get to the servers of a run; None where no run is known."""
    if config is None:
        return None
    return way_of(config.policy.server.sync, adapter=config.policy.lora is not None)


def _about(way: Way) -> str:
    return f"server, weights by {way}"


async def _connect(replica: Replica, way: Way) -> list[Finding]:
    await replica.connect(way)
    said = (
        f"{replica.url} is vLLM {replica.vllm} and has {replica.model}, contexts of"
        f" {replica.max_context:,} tokens"
    )
    return [Finding("ok", _about(way), said)]


async def _compare(
    replica: Replica, model: str | None, config: Config | None, serve: str
) -> list[Finding]:
    found = [await _cooling(replica, config, serve)]
    if config is not None:
        found.append(_room(replica, config, serve))
    if model is not None:
        found.append(await _parity(replica, model, config, serve))
    return found


async def _cooling(replica: Replica, config: Config | None, serve: str) -> Finding:
    """Say of which temperature the log-probabilities are."""
    about = "server, log-probabilities"
    if await replica.cools_first():
        return Finding("ok", about, "those at the sampling temperature")
    asked = () if config is None else (config.policy.sampling.temperature, config.eval.temperature)
    level: Level = "FAIL" if set(asked) - {0.0, 1.0} else "note"
    said = "those before the temperature; a run would have to sample at temperature 1"
    return Finding(level, about, said, serve)


def _room(replica: Replica, config: Config, serve: str) -> Finding:
    """Compare the contexts of a run with those that the server reads."""
    asked, read = config.policy.sampling.max_context, replica.max_context
    said = f"the run's contexts have up to {asked:,} tokens, the server reads {read:,}"
    if asked <= read:
        return Finding("ok", "server, context", said)
    return Finding("FAIL", "server, context", said, f"{serve} --max-model-len {asked}")


async def _parity(replica: Replica, model: str, config: Config | None, serve: str) -> Finding:
    """Compare the server's log-probabilities of fixed tokens with those of the model here."""
    about = "server, parity"
    hf = import_module("agentgym.policies.hf")
    compute = "float32" if config is None else config.policy.dtype
    try:
        policy = hf.HFPolicy.from_pretrained(resolve_model(model), compute=compute)
        row = _row(len(policy.tokenizer))
        (ours,) = await policy.score([row], [1])
        theirs = await replica.score(row, 1)
    except AgentGymError as error:
        said = f"cannot be compared with {model}: {_line(error)}"
        return Finding("FAIL", about, said, serve)
    gaps = [abs(one - other) for one, other in zip(ours, theirs, strict=True)]
    return _judged(gaps, model, ServerOptions() if config is None else config.policy.server, serve)


def _judged(gaps: list[float], model: str, options: Any, serve: str) -> Finding:
    about, gap = "server, parity", max(gaps)
    said = (
        f"log-probabilities of {len(gaps)} tokens differ by up to {gap:.2g} nats from those of"
        f" {model} here; a run takes {options.tolerance:g}"
    )
    if gap <= options.tolerance:
        return Finding("ok", about, said)
    if gap < _OTHER_WEIGHTS:
        why = "another precision does that, and a run would stop at its first hand-over"
        return Finding("FAIL", about, f"{said}: {why}", serve)
    why = "other weights, as an earlier run may have left there; training hands its own over"
    return Finding("note", about, f"{said}: {why}, an evaluation would be of the server's", serve)


def _row(vocabulary: int) -> list[int]:
    draws = random.Random(f"doctor of {vocabulary}")
    return [draws.randrange(vocabulary) for _ in range(_TOKENS + 1)]
